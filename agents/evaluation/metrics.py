"""How close replies are to the doctors' own, and whether they name the right condition."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from pmlm_env.cohort.schema import LABEL_NAMES, named_labels

_ROUGES = ("rouge1", "rouge2", "rougeL")


@dataclass(frozen=True, eq=False)
class TextScores:
    """Overlap of replies with their references, one value a reply, each of shape (N,), in [0, 1].

    Attributes:
        bleu4: Sentence-level BLEU-4.
        rouge1: F-measure of single words.
        rouge2: F-measure of word pairs.
        rougeL: F-measure of the longest common subsequence.
    """

    bleu4: npt.NDArray[np.float64]
    rouge1: npt.NDArray[np.float64]
    rouge2: npt.NDArray[np.float64]
    rougeL: npt.NDArray[np.float64]

    def means(self) -> dict[str, float]:
        """Return the mean over the replies of each score, by name."""
        return {name: float(values.mean()) for name, values in asdict(self).items()}


def text_scores(replies: Sequence[str], references: Sequence[str]) -> TextScores:
    """Score each reply against its reference, for English text.

    BLEU is sacreBLEU's ``sentence_bleu`` (13a words, case kept, exponential smoothing, effective order), and its
    summary the mean over patients, so that patients can be compared in pairs. That is not corpus BLEU, which pools
    n-gram counts over all replies first. ROUGE is rouge-score's, with Porter stemming. Neither is comparable with
    figures made of characters or jieba words, such as LLaMA-Factory's.

    Args:
        replies: The LLM's replies; an empty one scores 0.
        references: The doctors' replies, in the same order.

    Raises:
        ValueError: There is no reply, the lengths differ, or a reference is blank.
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


def diagnosis_named(reply: str, label: str, labels: Iterable[str] = LABEL_NAMES) -> bool:
    """Whether ``reply`` names the patient's condition; see ``named_labels`` for what naming is.

    Args:
        reply: The LLM's reply.
        label: Her true condition.
        labels: All the cohort's labels; ``label`` may be missing from them.
    """
    return label in named_labels(reply, {label, *labels})


def wrong_diagnosis_named(reply: str, label: str, labels: Iterable[str] = LABEL_NAMES) -> bool:
    """Whether ``reply`` names any other of the cohort's ``labels`` than the patient's own, ``label``."""
    return bool(named_labels(reply, {label, *labels}) - {label})
