"""What each word is worth to the reply, against what agents delete: why a word went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from agents import registry
from agents.experiments.judged import common_words, edited, words_of
from agents.experiments.on_patients import PatientsExperiment
from agents.experiments.rows import ECHO, OTHER_REPLY, WORDS
from pmlm_env.core.edits import apply_edits, deletions
from pmlm_env.core.protection import editable_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from agents.benchmark.patients import RealPatients

#: Metrics whose change is recorded for each word that is left out.
EFFECTS = ("bertscore_f1", "margin", "diagnosis_named", "wrong_diagnosis_named")

#: With ``quick``: every how many words one is left out.
_QUICK_STEP = 20


@dataclass(frozen=True)
class Influence(PatientsExperiment):
    """What each word of a prompt is worth to the reply, against what agents delete.

    Each word of each test patient's prompt is left out in turn, and the LLM replies to the rest. The tables show how
    much the scores change by role and by word, and whether the agents delete the words whose deletion helps.

    Attributes:
        agents: Agents whose deletions are compared with the words' effects.
        test_patients: Number of test patients. Each needs as many LLM calls as their prompt has words.
    """

    agents: tuple[str, ...] = (registry.DEFAULT, "random-n")
    test_patients: int = 32

    name: ClassVar[str] = "influence"
    packages: ClassVar[Sequence[str]] = ("pmlm-env", "numpy", "torch", "transformers")

    def cells(self) -> list[dict[str, Any]]:
        """Return the runs: the words' effects, the echo, then the agents, one seed after another.

        Raises:
            ValueError: There is no such agent, or the cohort or the LLM cannot be used.
        """
        fixed = [{"row": row, "seed": 0} for row in (WORDS, ECHO)]
        same = self.identity(self.models)
        return [{**cell, **same} for cell in [*fixed, *self.agent_cells(*dict.fromkeys(self.agents))]]

    def n_calls(self, cell: Mapping[str, Any]) -> int:
        """Return the most calls of the LLM that a run makes; for the words' effects, a reply for each word."""
        replies = super().n_calls(cell)
        if cell["row"] != WORDS:
            return replies
        return replies * (1 + len(range(0, len(self.longest_prompt(self.pipeline).texts), self._step)))

    def run(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        """Leave out one word after another, or let an agent edit the prompts, and judge the replies.

        Raises:
            ValueError: The cohort has too few patients.
        """
        patients = self.judge(self.pipeline, self.models)
        if cell["row"] == WORDS:
            with patients.working():
                return effects(patients, self._step)
        return edited(cell, patients)

    def table(self, runs: Sequence[Mapping[str, Any]]) -> str:
        """Return the tables for each set of patients and models; see ``agents.experiments.influence_table``."""
        from agents.experiments.influence_table import influence_tables

        return influence_tables(runs)

    def figures(self, runs: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
        """Return the figure of the last run's patients and models; see ``agents.experiments.influence_table``."""
        from agents.experiments.influence_table import influence_figures

        return influence_figures(runs)

    @property
    def _step(self) -> int:
        """Every how many words one is left out."""
        return _QUICK_STEP if self.quick else 1


def effects(patients: RealPatients, step: int = 1) -> dict[str, Any]:
    """Return the change of each metric when a word is left out, for each word of the held-out patients' prompts.

    Args:
        patients: The patients.
        step: Every how many words one is left out; 1 = all.

    Returns:
        The patients; the ``metrics`` of the replies to the untouched prompts, one value per patient; the ``changes`` of
        ``EFFECTS`` and ``OTHER_REPLY``, one list per patient with a value per word, None for a word that was not left
        out and for a metric without a value (of several samples, the change of their mean, and the share of those that
        change); the ``roles`` of the words; and the ``words`` themselves as places in
        ``vocabulary``, None for a word that occurs in few prompts and may be a patient's own.
    """
    held_out = patients.held_out
    left_out = editable_words(held_out, patients.protect) & (np.arange(held_out.max_words) % step == 0)
    # The untouched prompts, then all without word 0, all without word 1, ...; a prompt without a word to be left out
    # stays as it is.
    edits = [
        [deletions(e, [slot] if slot >= 0 and may[slot] else []) for e, may in zip(held_out, left_out, strict=True)]
        for slot in range(-1, held_out.max_words)
    ]
    prompts = [list(apply_edits(held_out, range(len(held_out)), each)) for each in edits]
    replies = patients.replies([prompt for each in prompts for prompt in each])  # in one batch
    texts = np.array([[reply.text for reply in samples] for samples in replies], dtype=object)
    texts = texts.reshape(len(prompts), len(held_out), -1).swapaxes(0, 1)  # patients, prompts, samples
    # Many replies are the same, and need scores only once: the first different replies of all patients, the second, ...
    different = [list(dict.fromkeys(own.ravel())) for own in texts]
    most = max(map(len, different))
    columns = [[own[min(place, len(own) - 1)] for own in different] for place in range(most)]
    found = [patients.measured(column, prompts[0])["metrics"] for column in columns]
    places = np.array(
        [[own.index(text) for text in of_patient.ravel()] for own, of_patient in zip(different, texts, strict=True)]
    ).reshape(texts.shape)
    changes = {OTHER_REPLY: (places[:, 1:] != places[:, :1]).mean(axis=2)}
    for name in EFFECTS:
        of_replies = np.array([each[name] for each in found], dtype=np.float64).T
        of_words = np.take_along_axis(of_replies[:, None], places, axis=2).mean(axis=2)
        changes[name] = of_words[:, 1:] - of_words[:, :1]
    words = words_of(held_out)
    vocabulary = common_words(words)
    number = {word: place for place, word in enumerate(vocabulary)}
    return {
        "patients": [episode.patient_id for episode in held_out],
        "metrics": patients.answered(prompts[0])["metrics"],
        "changes": {
            name: [
                [None if np.isnan(value) else round(float(value), 5) for value in row[:n]]
                for row, n in zip(np.where(left_out, values, np.nan), held_out.lengths, strict=True)
            ]
            for name, values in changes.items()
        },
        "roles": [[role for _, role in of_prompt] for of_prompt in words],
        "words": [[number.get(word) for word in of_prompt] for of_prompt in words],
        "vocabulary": vocabulary,
    }
