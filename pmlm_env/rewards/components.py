"""Components: numbers that each say one thing of a reply, from which rewards are made."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.naming.labels import mentioned_labels
from pmlm_env.cohort.naming.status import NAMED, Status
from pmlm_env.core.episodes import Episode, EpisodeSet
from pmlm_env.core.labels import Label
from pmlm_env.core.languages import n_words
from pmlm_env.rewards.base import BERTSCORES, CheckedReward, ScoredReply, Values, mean_of
from pmlm_env.rewards.numbers import numbers_right
from pmlm_env.weights import ModelError

if TYPE_CHECKING:  # these load torch
    from pmlm_env.rewards.advice import Advice
    from pmlm_env.rewards.bertscore import BertScorer

logger = logging.getLogger(__name__)

#: All components, with their definitions. Values are fractions, except ``words`` and numbers of conditions.
COMPONENTS: Mapping[str, str] = {
    "bertscore_precision": "BERTScore precision against the doctor's reply",
    "bertscore_recall": "BERTScore recall against the doctor's reply",
    "bertscore_f1": "BERTScore F1 against the doctor's reply",
    "margin": "F1 against the doctor's reply, minus the mean F1 against those to eight patients with other conditions",
    "diagnosis_named": "1 if the reply names the patient's condition, even if only as a possibility",
    "diagnosis_possible": "1 if the reply names it only as a possibility",
    "diagnosis_denied": "1 if the reply mentions it and only denies it",
    "wrong_diagnosis_named": "1 if the reply names any other condition, even if only as a possibility",
    "wrong_diagnosis_possible": "1 if the reply names other conditions, all of them only as possibilities",
    "new_wrong_diagnosis": "number of other conditions that the reply names and the initial reply does not",
    "advice": "share of the pieces of advice in the doctor's reply that the reply gives too; English only",
    "numbers_right": "share of the numbers in the reply that stand in the prompt that it answers",
    "copy": "BERTScore F1 of the reply against the prompt that it answers",
    "initial_copy": "BERTScore F1 of the reply against the initial prompt, whichever prompt it answers",
    "words": "number of words; a Chinese character counts as one",
    "length_ratio": "words of the reply, divided by words of the doctor's reply",
    "cut": "1 if the limit on new tokens ended the reply",
}

#: Number of other patients' letters that the margin is computed against.
N_CONTRASTS = 8

#: The components about the conditions that a reply mentions.
_OF_CONDITIONS = {name for name in COMPONENTS if "diagnosis" in name}


class Components:
    """Computes components of replies, and only those that are asked for; see ``COMPONENTS``.

    Args:
        names: Names in ``COMPONENTS``.
        scorer: BERTScore.
        training: Training patients, whose letters the margin is computed against. The choice of the eight letters
            depends only on the patient, so that two agents' margins can be compared per patient. If there is no letter
            of another label, the margin is NaN.
        conditions: The labels that replies are searched for; they need not include the patient's own.

    Attributes:
        names: The names, in the order of ``COMPONENTS``.
    """

    def __init__(
        self,
        names: Collection[str],
        scorer: BertScorer,
        training: EpisodeSet | None = None,
        conditions: Iterable[Label] = (),
    ) -> None:
        """Store the arguments."""
        self.names = tuple(name for name in COMPONENTS if name in names)
        self.scorer, self.training, self.conditions = scorer, training, tuple(conditions)
        self._contrasts: dict[tuple[str, str], tuple[str, ...]] = {}

    def __call__(
        self, replies: Sequence[ScoredReply], names: Collection[str] | None = None
    ) -> dict[str, npt.NDArray[np.float64]]:
        """Compute components of N replies.

        Args:
            replies: N replies.
            names: Some of ``names``; by default all.

        Returns:
            An array for each name, in the order of ``COMPONENTS``, float64 (N,); NaN where a component has no value.
        """
        asked = self.names if names is None else tuple(name for name in self.names if name in names)
        values: dict[str, Any] = {}
        if {*BERTSCORES, "margin", "initial_copy"} & set(asked):
            values |= self._bertscore(replies, asked)
        if _OF_CONDITIONS & set(asked):
            values |= self._of_conditions(replies)
        texts = [reply.text for reply in replies]
        if "advice" in asked:
            letters = [reply.episode.reference for reply in replies]
            values["advice"] = np.full(len(texts), np.nan) if self.advice is None else self.advice.found(texts, letters)
        if "numbers_right" in asked:
            values["numbers_right"] = [numbers_right(reply.text, reply.prompt) for reply in replies]
        if "copy" in asked:
            values["copy"] = self.scorer.score_once(texts, [reply.prompt for reply in replies]).f1.double().numpy()
        words = np.array([n_words(text) for text in texts], dtype=np.float64)
        values["words"] = words
        values["length_ratio"] = words / [n_words(reply.episode.reference) or np.nan for reply in replies]
        values["cut"] = [reply.cut for reply in replies]
        return {name: np.asarray(values[name], dtype=np.float64) for name in asked}

    def _bertscore(self, replies: Sequence[ScoredReply], asked: Collection[str]) -> dict[str, Any]:
        """Return BERTScore against what is compared with many replies, from one call of the scorer."""
        others: dict[str, list[Sequence[str]]] = {
            "own": [[reply.episode.reference] for reply in replies],
            "initial_copy": [[reply.episode.prompt] if "initial_copy" in asked else [] for reply in replies],
            "margin": [self._contrast(reply.episode) if "margin" in asked else [] for reply in replies],
        }
        pairs = [
            (reply.text, other)
            for rows in others.values()
            for reply, row in zip(replies, rows, strict=True)
            for other in row
        ]
        scores = self.scorer.score([text for text, _ in pairs], [other for _, other in pairs])
        columns = [column.double().numpy() for column in (scores.precision, scores.recall, scores.f1)]
        f1 = iter(np.split(columns[-1], np.cumsum([len(row) for rows in others.values() for row in rows])[:-1]))
        means = {name: np.array([mean_of(next(f1)) for _ in rows]) for name, rows in others.items()}
        own = {name: column[: len(replies)] for name, column in zip(BERTSCORES, columns, strict=True)}
        return {**own, "initial_copy": means["initial_copy"], "margin": means["own"] - means["margin"]}

    def _of_conditions(self, replies: Sequence[ScoredReply]) -> dict[str, list[float]]:
        """Return the components about the conditions that replies mention."""
        columns: dict[str, list[float]] = {name: [] for name in COMPONENTS if name in _OF_CONDITIONS}
        for reply in replies:
            label = reply.episode.label
            language = reply.episode.language
            found = _mentioned(reply.text, label, self.conditions, language)
            same = reply.initial == reply.text
            before = found if same else _mentioned(reply.initial, label, self.conditions, language)
            own, wrong = found.get(label), _others(found, label)
            columns["diagnosis_named"].append(own in NAMED)
            columns["diagnosis_possible"].append(own == "possible")
            columns["diagnosis_denied"].append(own == "denied")
            columns["wrong_diagnosis_named"].append(bool(wrong))
            columns["wrong_diagnosis_possible"].append(bool(wrong) and all(found[name] == "possible" for name in wrong))
            columns["new_wrong_diagnosis"].append(len(wrong - _others(before, label)))
        return columns

    @cached_property
    def advice(self) -> Advice | None:
        """What finds advice in replies; None if the bundled encoder, which it needs, is not there."""
        from pmlm_env.rewards.advice import Advice  # this loads torch

        try:
            return Advice(str(self.scorer.device))
        except ModelError as error:
            logger.warning("The component advice has no value: %s", error)
            return None

    def _contrast(self, episode: Episode) -> tuple[str, ...]:
        key = (episode.patient_id, episode.label)
        if key not in self._contrasts:
            self._contrasts[key] = () if self.training is None else contrast_letters(episode, self.training)
        return self._contrasts[key]


class WithComponents:
    """A reward with further components beside its own, for tables, traces and infos.

    Args:
        reward: The reward.
        more: Computes the other components.

    Attributes:
        names: The names of ``more``, then those that only the reward has.
    """

    def __init__(self, reward: CheckedReward, more: Components) -> None:
        """Store the arguments."""
        self._reward, self._more = reward, more
        self.names = tuple(dict.fromkeys((*more.names, *reward.names)))

    def components(self, replies: Sequence[ScoredReply]) -> dict[str, npt.NDArray[np.float64]]:
        """Return all components; those of the reward are not computed twice."""
        values = self._more(replies)
        if set(self._reward.names) <= values.keys():
            return values
        return {**self._reward.components(replies), **values}

    def score(self, components: Values) -> npt.NDArray[np.float64]:
        """Return the reward's scores."""
        return self._reward.score(components)

    def change(self, before: Values, after: Values) -> npt.NDArray[np.float64]:
        """Return what edits earn by the reward."""
        return self._reward.change(before, after, np.zeros(len(after[self.names[0]]), dtype=np.bool_))


def _mentioned(reply: str, label: str, labels: Iterable[Label], language: str) -> dict[str, Status]:
    by_name = {each.name: each for each in labels}
    by_name.setdefault(label, Label(label))
    return mentioned_labels(reply, by_name.values(), language)


def _others(mentioned: Mapping[str, Status], label: str) -> set[str]:
    """Return the conditions other than ``label`` that are named."""
    return {name for name, status in mentioned.items() if status in NAMED and name != label}


def contrast_letters(episode: Episode, training: EpisodeSet) -> tuple[str, ...]:
    """Return the letters of eight random training patients with another label, or of all if there are fewer.

    The draw is seeded with the patient's id, so that it does not depend on which other patients are evaluated.
    """
    letters = [other.reference for other in training if other.label != episode.label and other.reference.strip()]
    seed = int.from_bytes(hashlib.sha256(episode.patient_id.encode()).digest()[:8], "big")
    chosen = np.random.default_rng(seed).permutation(len(letters))[:N_CONTRASTS]
    return tuple(letters[i] for i in chosen.tolist())
