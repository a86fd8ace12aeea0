"""Metrics of replies: their similarity to the doctors' replies, the conditions that they name, and their length."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from pmlm_env.cohort.naming.labels import named_labels
from pmlm_env.core.episodes import Episode, EpisodeSet
from pmlm_env.core.labels import Label
from pmlm_env.rewards.base import CheckedReward
from pmlm_env.rewards.bertscore import BertScorer

#: The metrics of a reply. Values are fractions, except ``words``.
METRICS = (
    "bleu4", "rouge1", "rouge2", "rougeL", "bertscore_precision", "bertscore_recall", "bertscore_f1", "margin",
    "diagnosis_named", "wrong_diagnosis_named", "copy", "words", "cut",
)  # fmt: skip

#: The metric of a reply that is there with another reward than BERTScore F1: the score that this reward gives.
REWARD = "reward"

#: Number of other patients' letters that the margin is computed against.
N_CONTRASTS = 8

_ROUGES = ("rouge1", "rouge2", "rougeL")


@dataclass(frozen=True, eq=False)
class TextScores:
    """Overlap of replies with their references: arrays of shape (N,), one value per reply, in [0, 1].

    Attributes:
        bleu4: Sentence-level BLEU-4.
        rouge1: F-measure of unigrams.
        rouge2: F-measure of bigrams.
        rougeL: F-measure of the longest common subsequence.
    """

    bleu4: npt.NDArray[np.float64]
    rouge1: npt.NDArray[np.float64]
    rouge2: npt.NDArray[np.float64]
    rougeL: npt.NDArray[np.float64]

    def means(self) -> dict[str, float]:
        """Return the mean of each score over the replies, by name."""
        return {name: float(values.mean()) for name, values in asdict(self).items()}


def text_scores(replies: Sequence[str], references: Sequence[str]) -> TextScores:
    """Score each reply against its reference, for English text.

    BLEU is sacreBLEU's ``sentence_bleu`` (13a tokenization, cased, exponential smoothing, effective order). It is
    averaged over patients, so that patients can be compared in pairs; this differs from corpus BLEU, which pools n-gram
    counts over all replies. ROUGE is computed by rouge-score with Porter stemming. Neither is comparable with scores
    based on characters or jieba tokens, such as LLaMA-Factory's.

    Args:
        replies: The LLM's replies; an empty reply scores 0.
        references: The doctors' replies, in the same order.

    Raises:
        ValueError: There are no replies, the lengths differ, or a reference is blank.
    """
    if not replies or len(replies) != len(references):
        raise ValueError(f"cannot score {len(replies)} replies against {len(references)} references")
    blank = [index for index, reference in enumerate(references) if not reference.strip()]
    if blank:
        raise ValueError(f"{len(blank)} references are blank, the first at index {blank[0]}: leave those patients out")
    bleu = BLEU(effective_order=True)
    rouge = RougeScorer(_ROUGES, use_stemmer=True)
    bleu4 = [bleu.sentence_score(*pair).score / 100 for pair in zip(replies, ([r] for r in references), strict=True)]
    rouges = [rouge.score(reference, reply) for reply, reference in zip(replies, references, strict=True)]
    return TextScores(
        np.minimum(bleu4, 1.0),  # sacreBLEU gives 100.00000000000004 for a perfect reply
        *(np.array([scores[name].fmeasure for scores in rouges], dtype=np.float64) for name in _ROUGES),
    )


def diagnosis_named(reply: str, label: str, labels: Iterable[Label]) -> bool:
    """Whether ``reply`` names the patient's condition, as defined in ``named_labels``.

    Args:
        reply: The LLM's reply.
        label: The name of the patient's true condition.
        labels: All labels of the cohort; they need not include the patient's.
    """
    return label in _named(reply, label, labels)


def wrong_diagnosis_named(reply: str, label: str, labels: Iterable[Label]) -> bool:
    """Whether ``reply`` names any of the cohort's ``labels`` other than the patient's own ``label``."""
    return bool(_named(reply, label, labels) - {label})


def _named(reply: str, label: str, labels: Iterable[Label]) -> set[str]:
    by_name = {each.name: each for each in labels}
    by_name.setdefault(label, Label(label))
    return named_labels(reply, by_name.values())


def judged_by(names: Container[str]) -> str:
    """Return the metric whose change the agent was trained to increase, given the names of the metrics that exist."""
    return REWARD if REWARD in names else "bertscore_f1"


class ReplyMetrics:
    """Computes all ``METRICS`` of replies to a fixed set of patients, one value per patient.

    | metric | definition |
    |---|---|
    | ``bleu4``, ``rouge1``, ``rouge2``, ``rougeL`` | see ``text_scores`` |
    | ``bertscore_precision``, ``bertscore_recall``, ``bertscore_f1`` | against the patient's own letter |
    | ``margin`` | F1 against the patient's own letter, minus the mean F1 against eight others' (``contrast_letters``) |
    | ``diagnosis_named`` | 1 if the reply names the patient's condition |
    | ``wrong_diagnosis_named`` | 1 if the reply names any other condition |
    | ``copy`` | BERTScore F1 of the reply against its prompt |
    | ``words`` | number of words |
    | ``cut`` | 1 if the reply was truncated at the limit on new tokens |
    | ``reward`` | only with another reward than BERTScore F1: its score; 0 for a missing reply, which is "" |

    The margin removes the part of F1 that comes from the form that all letters share.

    Args:
        episodes: The patients.
        training: Training patients, whose letters the margin is computed against. The choice of the eight letters
            depends only on the patient, so that two agents' margins can be compared per patient. If there is no letter
            of another label, the margin is NaN.
        scorer: BERTScore.
        reward: The reward, if it is another than BERTScore F1.
    """

    def __init__(
        self, episodes: EpisodeSet, training: EpisodeSet, scorer: BertScorer, reward: CheckedReward | None = None
    ) -> None:
        """Draw the letters that the margin is computed against."""
        self.episodes, self._scorer, self._reward = episodes, scorer, reward
        self._contrasts = [contrast_letters(episode, training) for episode in episodes]

    def __call__(
        self, replies: Sequence[str], prompts: Sequence[str], cut: Sequence[bool] | None = None
    ) -> dict[str, npt.NDArray[np.float64]]:
        """Compute the metrics of one reply per patient.

        Args:
            replies: N texts.
            prompts: The prompt of each reply.
            cut: Whether each reply was truncated at the limit on new tokens; False for all by default.

        Returns:
            An array for each name in ``METRICS``, and perhaps for ``reward``, float64 (N,).
        """
        references = [episode.reference for episode in self.episodes]
        text, bert = text_scores(replies, references), self._scorer.score(replies, references)
        labels = self.episodes.conditions
        pairs = list(zip(replies, (episode.label for episode in self.episodes), strict=True))
        f1 = bert.f1.double().numpy()
        values: dict[str, Sequence[float] | npt.NDArray[np.float64]] = {
            **asdict(text),
            "bertscore_precision": bert.precision.double().numpy(),
            "bertscore_recall": bert.recall.double().numpy(),
            "bertscore_f1": f1,
            "margin": f1 - self._contrast(replies),
            "diagnosis_named": [diagnosis_named(reply, label, labels) for reply, label in pairs],
            "wrong_diagnosis_named": [wrong_diagnosis_named(reply, label, labels) for reply, label in pairs],
            "copy": self._scorer.score_once(replies, prompts).f1.double().numpy(),
            "words": [len(reply.split()) for reply in replies],
            "cut": [False] * len(replies) if cut is None else cut,
        }
        if self._reward is not None:
            there = [i for i, reply in enumerate(replies) if reply]
            values[REWARD] = own = np.zeros(len(replies))
            own[there] = self._reward.score([replies[i] for i in there], [self.episodes[i] for i in there])
        return {name: np.asarray(column, dtype=np.float64) for name, column in values.items()}

    def _contrast(self, replies: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return the mean F1 of each reply against its contrast letters, float64 (N,)."""
        pairs = [(reply, letter) for reply, letters in zip(replies, self._contrasts, strict=True) for letter in letters]
        f1 = self._scorer.score([reply for reply, _ in pairs], [letter for _, letter in pairs]).f1.double().numpy()
        bounds = np.cumsum([len(letters) for letters in self._contrasts])[:-1]
        return np.array([part.mean() if len(part) else np.nan for part in np.split(f1, bounds)])


def contrast_letters(episode: Episode, training: EpisodeSet) -> tuple[str, ...]:
    """Return the letters of eight random training patients with another label, or of all if there are fewer.

    The draw is seeded with the patient's id, so that it does not depend on which other patients are evaluated.
    """
    letters = [other.reference for other in training if other.label != episode.label and other.reference.strip()]
    seed = int.from_bytes(hashlib.sha256(episode.patient_id.encode()).digest()[:8], "big")
    chosen = np.random.default_rng(seed).permutation(len(letters))[:N_CONTRASTS]
    return tuple(letters[i] for i in chosen.tolist())
