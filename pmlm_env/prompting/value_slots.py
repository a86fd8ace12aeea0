"""Where a prompt states a patient's values: the truth about simulated letters, as slots of the prompt."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from pmlm_env.cohort.schema import Patient, Schema
from pmlm_env.core.words import split
from pmlm_env.prompting.fields import Values
from pmlm_env.prompting.wording import wording_in


def value_slots(words: Sequence[str], patient: Patient, schema: Schema, indicators: Collection[str]) -> tuple[int, ...]:
    """Return the slots of the words by which ``{values}`` states a patient's latest values of some indicators.

    With the indicators in the column ``personal`` of a simulated cohort, these are the words of the prompt that the
    patient's letter depends on; see docs/simulator.md.

    Args:
        words: The words of the patient's initial prompt, such as ``Episode.words``.
        patient: The patient.
        schema: What the patient's cohort measures.
        indicators: Names of indicators; those that the prompt does not state have no slots.

    Returns:
        The slots in ascending order.
    """
    slots: set[int] = set()
    wording = wording_in(schema.language)
    for column, indicator in enumerate(schema.indicators):
        if indicator.name in indicators:
            alone = Values(replace(patient, values=patient.values[:, [column]]), [indicator], wording)
            *first, last = (word.text for word in split(f"{alone}", schema.language))
            for end in range(len(first), len(words)):
                start = end - len(first)
                if list(words[start:end]) == first and words[end].rstrip(",.，。") == last:
                    slots |= {*range(start, end + 1)}
    return tuple(sorted(slots))
