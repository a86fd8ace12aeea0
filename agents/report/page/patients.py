"""The data of a run's page: each patient's prompt, edits, replies and scores, as small as a page needs them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agents.evaluation.controls import CONTROLS
from agents.report.page.kept import Deleted
from agents.report.page.variants import VARIANTS
from pmlm_env.cohort.naming.labels import mentioned_labels
from pmlm_env.core.labels import Label
from pmlm_env.core.languages import language_of
from pmlm_env.core.traces import Trace
from pmlm_env.rewards.base import REWARD
from pmlm_env.rewards.components import COMPONENTS

#: Maximum size of further kept replies in the whole page, in characters.
_MOST_KEPT = 200_000

#: What each metric says, besides the components.
_METRICS = {
    REWARD: "the score of the reward that the agent was trained with",
    "bleu4": "BLEU-4 against the doctor's reply",
    "rouge1": "ROUGE-1 against the doctor's reply",
    "rouge2": "ROUGE-2 against the doctor's reply",
    "rougeL": "ROUGE-L against the doctor's reply",
}

#: Metrics of which less is better, or neither; of all others, more is better.
_LESS = {"diagnosis_denied", "wrong_diagnosis_named", "wrong_diagnosis_possible", "new_wrong_diagnosis", "cut"}
_NEITHER = {"diagnosis_possible", "copy", "initial_copy", "words", "length_ratio"}

#: Metrics that are true or false of a reply, and those that are no fractions, with their decimal places.
_TRUE_OR_FALSE = {name for name in COMPONENTS if "diagnosis" in name} - {"new_wrong_diagnosis"} | {"cut"}
_NUMBERS = {"words": 0, "length_ratio": 2, "new_wrong_diagnosis": 0}


class _Texts:
    """Texts without repeats: what occurs often, such as a word or a letter, is in the page once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        """Return a text's position in the list."""
        return self._numbers.setdefault(text, len(self._numbers))

    def __contains__(self, text: str) -> bool:
        """Return whether a text is in the list."""
        return text in self._numbers

    def all(self) -> list[str]:
        """Return the list."""
        return list(self._numbers)


def patients_data(
    traces: Sequence[Trace],
    conditions: Iterable[Label] | None,
    kept: Mapping[str, Mapping[Deleted, Sequence[str]]],
    in_points: bool,
) -> dict[str, Any]:
    """Return what the page shows of single patients, as JSON values.

    Args:
        traces: The traces of one evaluation.
        conditions: The conditions that replies may name; None if they are not known.
        kept: Further replies of each patient; see ``kept_replies``.
        in_points: Whether the score of the agent's reward is a fraction.
    """
    texts, replies = _Texts(), _Texts()
    by_patient: dict[str, dict[str, Trace]] = {}
    for trace in traces:
        by_patient.setdefault(trace.patient_id, {})[trace.variant] = trace
    metrics = next((list(trace.after) for trace in traces if trace.after), [])
    metrics.sort(key=lambda name: (name != REWARD, name != "bertscore_f1"))
    shown = [name for name in VARIANTS if any(trace.variant == name for trace in traces)]
    patients = []
    runs_of = {
        patient: [_run(theirs[name], number, metrics, replies) for number, name in enumerate(shown) if name in theirs]
        for patient, theirs in by_patient.items()
    }
    further_of, left_out = _shared_out(kept, runs_of, replies)
    for patient, theirs in by_patient.items():
        first = _any(theirs)
        runs, further = runs_of[patient], further_of[patient]
        patients.append(
            {
                "id": patient,
                "label": texts.number(first.label),
                "predicted": texts.number(first.predicted),
                "peers": [[texts.number(name), n] for name, n in Counter(p.label for p in first.peers).most_common()],
                "words": [texts.number(word) for word in first.words],
                "spaces": [texts.number(space) for space in first.spaces],
                "roles": "".join(role[0] for role in first.roles),
                "reference": replies.number(first.reference),
                "runs": runs,
                "kept": [[list(slots), [replies.number(text) for text in found]] for slots, found in further.items()],
            }
        )
    return {
        "language": language_of("".join(word for theirs in by_patient.values() for word in _any(theirs).words)),
        "texts": texts.all(),
        "replies": replies.all(),
        "named": None if conditions is None else _named(replies.all(), tuple(conditions)),
        "variants": [[name, VARIANTS[name], name in CONTROLS] for name in shown],
        "metrics": [metric(name, in_points) for name in metrics],
        "patients": patients,
        "left_out": left_out,
    }


def _run(trace: Trace, variant: int, metrics: Sequence[str], replies: _Texts) -> dict[str, Any]:
    return {
        "variant": variant,
        "deleted": [edit.slot for edit in trace.edits],
        "probabilities": [_rounded(edit.probability) for edit in trace.edits],
        "replies": [replies.number(reply.text) for reply in trace.replies],
        "cut": any(reply.finish_reason == "length" for reply in trace.replies),
        "scores": [_rounded(trace.after.get(name)) for name in metrics],
        "reward": _rounded(trace.reward),
        "error": trace.error,
    }


def _shared_out(
    kept: Mapping[str, Mapping[Deleted, Sequence[str]]],
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    replies: _Texts,
) -> tuple[dict[str, dict[Deleted, Sequence[str]]], int]:
    """Return each patient's kept replies that fit, and how many do not.

    All patients have equal shares of the page; patients with few replies come first, and leave what they do not need to
    the others.
    """
    found: dict[str, dict[Deleted, Sequence[str]]] = {}
    left_out, most = 0, _MOST_KEPT
    for patient in sorted(runs, key=lambda patient: len(kept.get(patient, {}))):
        seen = {tuple(sorted(run["deleted"])) for run in runs[patient]}
        share = most // (len(runs) - len(found))
        found[patient], missing, rest = _fitting(kept.get(patient, {}), seen, replies, share)
        left_out += missing
        most -= share - rest
        for texts in found[patient].values():  # a reply that patients share takes room once
            for text in texts:
                replies.number(text)
    return found, left_out


def _fitting(
    kept: Mapping[Deleted, Sequence[str]], seen: set[Deleted], replies: _Texts, most: int
) -> tuple[dict[Deleted, Sequence[str]], int, int]:
    """Return the kept replies to other prompts that fit, fewest deletions first, how many do not, and the room left."""
    found: dict[Deleted, Sequence[str]] = {}
    left_out = 0
    for slots in sorted(kept, key=lambda slots: (len(slots), slots)):
        if slots in seen:
            continue
        size = sum(len(text) for text in kept[slots] if text not in replies) + 4 * len(slots)
        if size > most:
            left_out += 1
        else:
            most -= size
            found[slots] = kept[slots]
    return found, left_out, most


def _any(runs: Mapping[str, Trace]) -> Trace:
    """Return one of a patient's traces, which all have the same prompt and reference."""
    return next(iter(runs.values()))


def _named(replies: Sequence[str], conditions: Sequence[Label]) -> list[list[str]]:
    """Return, for each reply, the conditions that it mentions, and what it says of each."""
    language = language_of("".join(label.name for label in conditions))
    return [
        [part for name, status in mentioned_labels(reply, conditions, language).items() for part in (name, status)]
        for reply in replies
    ]


def metric(name: str, in_points: bool) -> dict[str, Any]:
    """Return how a metric is shown: ``digits`` are decimal places, or None for what is true or false.

    Args:
        name: The metric.
        in_points: Whether the score of the agent's reward is a fraction.
    """
    fraction = in_points if name == REWARD else name not in _NUMBERS
    return {
        "name": name,
        "what": COMPONENTS.get(name) or _METRICS.get(name, "a component of the reward"),
        "scale": 100 if fraction else 1,
        "digits": None if name in _TRUE_OR_FALSE else _NUMBERS.get(name, 2 if fraction else 4),
        "better": -1 if name in _LESS else 0 if name in _NEITHER else 1,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
