"""Metrics of replies: their similarity to the doctors' replies, the conditions that they name, and their length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU
from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.languages import is_chinese
from pmlm_env.rewards.base import REWARD, CheckedReward, ScoredReply, mean_of
from pmlm_env.rewards.bertscore import BertScorer
from pmlm_env.rewards.components import COMPONENTS, Components

_ROUGES = ("rouge1", "rouge2", "rougeL")

#: The metrics of a reply: those of ``text_scores``, and all components.
METRICS = ("bleu4", *_ROUGES, *COMPONENTS)


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


class _ChineseTokens:
    """The tokens of ROUGE in Chinese: sacreBLEU's, which are single Han characters, and words of anything else."""

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of a text, in lower case."""
        return TokenizerZh()(text.lower()).split()


def text_scores(replies: Sequence[str], references: Sequence[str], language: str = "en") -> TextScores:
    """Score each reply against its reference.

    BLEU is sacreBLEU's ``sentence_bleu`` (13a tokenization, cased, exponential smoothing, effective order). It is
    averaged over patients, so that patients can be compared in pairs; this differs from corpus BLEU, which pools n-gram
    counts over all replies. ROUGE is computed by rouge-score with Porter stemming.

    In Chinese, both count characters: each Han character is a token, as by sacreBLEU's tokenization ``zh``, and so is
    each English word or number. Scores by words of jieba, such as LLaMA-Factory's ROUGE, are lower, because words
    match less often than characters.

    Args:
        replies: The LLM's replies; an empty reply scores 0.
        references: The doctors' replies, in the same order.
        language: Their language as a BCP 47 tag; all but Chinese are scored like English.

    Raises:
        ValueError: There are no replies, the lengths differ, or a reference is blank.
    """
    if not replies or len(replies) != len(references):
        raise ValueError(f"cannot score {len(replies)} replies against {len(references)} references")
    blank = [index for index, reference in enumerate(references) if not reference.strip()]
    if blank:
        raise ValueError(f"{len(blank)} references are blank, the first at index {blank[0]}: leave those patients out")
    chinese = is_chinese(language)
    bleu = BLEU(effective_order=True, tokenize="zh" if chinese else None)
    rouge = RougeScorer(_ROUGES, use_stemmer=True, tokenizer=_ChineseTokens() if chinese else None)
    bleu4 = [bleu.sentence_score(*pair).score / 100 for pair in zip(replies, ([r] for r in references), strict=True)]
    rouges = [rouge.score(reference, reply) for reply, reference in zip(replies, references, strict=True)]
    return TextScores(
        np.minimum(bleu4, 1.0),  # sacreBLEU gives 100.00000000000004 for a perfect reply
        *(np.array([scores[name].fmeasure for scores in rouges], dtype=np.float64) for name in _ROUGES),
    )


class ReplyMetrics:
    """Computes all ``METRICS`` of replies to a fixed set of patients, one value per patient.

    ``bleu4``, ``rouge1``, ``rouge2`` and ``rougeL`` are those of ``text_scores``; the others are defined in
    ``pmlm_env.rewards.components.COMPONENTS``. With another reward than BERTScore F1 there are also its own components,
    and ``reward``, its score; they are 0 for a missing reply, which is "".

    Args:
        episodes: The patients.
        training: Training patients, whose letters the margin is computed against.
        scorer: BERTScore.
        reward: The reward, if it is another than BERTScore F1.
    """

    def __init__(
        self, episodes: EpisodeSet, training: EpisodeSet, scorer: BertScorer, reward: CheckedReward | None = None
    ) -> None:
        """Store the arguments."""
        self.episodes, self._reward = episodes, reward
        self._components = Components(COMPONENTS, scorer, training, episodes.conditions)

    def __call__(
        self,
        replies: Sequence[str],
        prompts: Sequence[str],
        cut: Sequence[bool] | None = None,
        initial: Sequence[str] | None = None,
    ) -> dict[str, npt.NDArray[np.float64]]:
        """Compute the metrics of one reply per patient.

        Args:
            replies: N texts.
            prompts: The prompt of each reply.
            cut: Whether each reply was truncated at the limit on new tokens; False for all by default.
            initial: The (first) reply to each patient's initial prompt; by default the replies themselves.

        Returns:
            An array for each name in ``METRICS``, and perhaps for those of a reward, float64 (N,).
        """
        cut, initial = cut or [False] * len(replies), replies if initial is None else initial
        rows = [ScoredReply(*row) for row in zip(replies, self.episodes, prompts, cut, initial, strict=True)]
        references = [episode.reference for episode in self.episodes]
        text = text_scores(replies, references, self.episodes[0].language)
        values = {**asdict(text), **self._components(rows)}
        if self._reward is not None:
            there = [i for i, reply in enumerate(replies) if reply]
            known = {name: values[name][there] for name in self._components.names}
            if not set(self._reward.names) <= known.keys():
                known = self._reward.components([rows[i] for i in there]) | known
            known[REWARD] = self._reward.score(known)
            for name in [name for name in known if name not in values]:
                values[name] = np.zeros(len(replies))
                values[name][there] = known[name]
        return values

    def over_samples(
        self,
        replies: Sequence[Sequence[str]],
        prompts: Sequence[str],
        cut: Sequence[Sequence[bool]],
        initial: Sequence[str],
    ) -> dict[str, npt.NDArray[np.float64]]:
        """Compute the metrics of several replies per patient: means over the samples that have a value.

        Args:
            replies: As many texts for each of N patients, one for each sample.
            prompts: The prompt of each patient.
            cut: Whether each reply was truncated at the limit on new tokens.
            initial: The (first) reply to each patient's initial prompt.

        Returns:
            The same arrays as for one reply per patient, float64 (N,); NaN where no sample has a value.
        """
        samples = [
            self(texts, prompts, ended, initial)
            for texts, ended in zip(zip(*replies, strict=True), zip(*cut, strict=True), strict=True)
        ]
        columns = {name: np.stack([values[name] for values in samples], axis=1) for name in samples[0]}
        return {name: np.array([mean_of(row) for row in table]) for name, table in columns.items()}


def as_json(metrics: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, list[float | None]]:
    """Return metrics as results files have them: rounded, None for NaN."""
    return {
        name: [None if np.isnan(value) else round(float(value), 5) for value in column]
        for name, column in metrics.items()
    }
