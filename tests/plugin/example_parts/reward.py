"""A reward that compares word sequences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from rouge_score.rouge_scorer import RougeScorer

from pmlm_env.core.episodes import Episode


class RougeL:
    """ROUGE-L (Lin 2004) of the reply and the doctor's reply, from their longest common sequence of words.

    Args:
        measure: ``precision``, ``recall`` or ``fmeasure``.
    """

    def __init__(self, measure: str = "fmeasure") -> None:
        """Check the measure."""
        if measure not in ("precision", "recall", "fmeasure"):
            raise ValueError(f"measure is {measure!r}: use precision, recall or fmeasure")
        self.measure = measure
        self.scorer = RougeScorer(["rougeL"])

    def score(self, replies: Sequence[str], episodes: Sequence[Episode]) -> npt.NDArray[np.float64]:
        """Score each reply against the reference of the episode at the same index, from 0 to 1."""
        scores = [
            getattr(self.scorer.score(episode.reference, reply)["rougeL"], self.measure)
            for reply, episode in zip(replies, episodes, strict=True)
        ]
        return np.array(scores, dtype=np.float64)
