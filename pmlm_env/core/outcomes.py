"""Outcomes: replies and scores of refined prompts, and the interface of a reward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Texts:
    """The replies and references of n episodes, each a sequence of n strings.

    Attributes:
        reply: The LLM's replies to the refined prompts; the first sample if there are several.
        initial_reply: The LLM's replies to the initial prompts; likewise.
        reference: The doctors' replies.
    """

    reply: Sequence[str]
    initial_reply: Sequence[str]
    reference: Sequence[str]


@dataclass(frozen=True)
class Outcomes:
    """Scores and replies of n episodes that have ended.

    Attributes:
        score: Score of the reply to the refined prompt, such as BERTScore F1, float64 (n,); the mean over samples.
        initial_score: Score of the reply to the initial prompt, likewise.
        llm_calls: Calls made for each episode, int64 (n,); cached replies cost none.
        texts: Replies and references; None if the reward stores no texts.
        errors: n strings: why there is no reply, or "". An episode with an error has no valid scores; do not learn
            from it.
        score_sd: Standard deviation of the score over samples of the reply, float64 (n,); None if there is only one
            sample.
        initial_score_sd: Likewise, of the initial score.
        components: Components of the replies to the refined prompts by name, each float64 (n,), means over samples;
            NaN = no value. Empty if the reward has none.
        initial_components: Likewise, of the replies to the initial prompts.
        rewards: What the edits earn, float64 (n,); None = score minus initial score.
    """

    score: npt.NDArray[np.float64]
    initial_score: npt.NDArray[np.float64]
    llm_calls: npt.NDArray[np.int64]
    texts: Texts | None = None
    errors: Sequence[str] = ()
    score_sd: npt.NDArray[np.float64] | None = None
    initial_score_sd: npt.NDArray[np.float64] | None = None
    components: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    initial_components: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    rewards: npt.NDArray[np.float64] | None = None

    @property
    def failed(self) -> npt.NDArray[np.bool_]:
        """Whether there was an error, bool (n,)."""
        if not any(self.errors):
            return np.zeros(len(self.score), dtype=np.bool_)
        return np.array([bool(error) for error in self.errors])

    @property
    def delta(self) -> npt.NDArray[np.float64]:
        """The rewards, float64 (n,): score minus initial score, unless ``rewards`` says otherwise; 0 after an error."""
        return np.where(self.failed, 0.0, self.score - self.initial_score if self.rewards is None else self.rewards)

    def take(self, rows: Sequence[int]) -> Outcomes:
        """Return the outcomes of the episodes in ``rows``, in that order."""
        index = list(rows)
        texts = self.texts and Texts(
            *(
                [column[i] for i in index]
                for column in (self.texts.reply, self.texts.initial_reply, self.texts.reference)
            )
        )
        return Outcomes(
            self.score[index],
            self.initial_score[index],
            self.llm_calls[index],
            texts,
            [self.errors[i] for i in index] if self.errors else (),
            None if self.score_sd is None else self.score_sd[index],
            None if self.initial_score_sd is None else self.initial_score_sd[index],
            {name: values[index] for name, values in self.components.items()},
            {name: values[index] for name, values in self.initial_components.items()},
            None if self.rewards is None else self.rewards[index],
        )

    @classmethod
    def of_failures(cls, errors: Sequence[str]) -> Outcomes:
        """Return the outcomes of episodes without a reply."""
        n = len(errors)
        return cls(np.zeros(n), np.zeros(n), np.zeros(n, dtype=np.int64), None, errors)


class Reward(Protocol):
    """Scores refined prompts when episodes end."""

    def __call__(self, indices: Sequence[int], prompts: Sequence[str]) -> Outcomes:
        """Score the refined prompts of the episodes at ``indices``, in the same order."""
        ...
