"""DeltaReward, the reward of Eq. 9: how much better the edits make the LLM's reply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np

from pmlm_env.core.episodes import Episode, EpisodeSet
from pmlm_env.core.outcomes import Outcomes, Texts
from pmlm_env.llm.base import LLM, Completion, LLMError, Reply, Request
from pmlm_env.rewards.base import CheckedReward, ReplyReward


class TooManyFailuresError(RuntimeError):
    """Too many episodes in a row got no reply, so the run is stopped."""


class Judged(NamedTuple):
    """The scored replies to one prompt.

    Attributes:
        reply: The first reply.
        score: The replies' mean score.
        sd: Standard deviation of the score over samples (n - 1 in the denominator); 0 for a single sample.
    """

    reply: str
    score: float
    sd: float


class DeltaReward:
    """Score of the reply to the refined prompt, minus that of the reply to the initial one (Eqs. 9-10).

    All episodes that end in a step share one LLM batch, and their replies are scored in one call. Each initial prompt
    is sent once, when its reply is first needed. An episode with a missing reply ends with an error; the others in
    its batch are scored as usual.

    Args:
        episodes: The episodes that indices refer to.
        llm: The downstream LLM.
        reward: Scores replies, such as ``BertScoreReward``.
        n_samples: Replies to each prompt; the score is their mean. Use more than 1 for an LLM that samples.
        max_failures: Number of episodes in a row with an error after which the run stops; None = never. Each reward
            counts its own failures.
        initial: Scored replies to initial prompts, by episode index: a dictionary that instances with the same
            episodes, LLM, reward and ``n_samples`` may share; by default, a new one.

    Attributes:
        initial: The given dictionary, or the new one.

    Raises:
        ValueError: An episode has no reference, so nothing can be scored, or a number is below 1.
    """

    def __init__(
        self,
        episodes: EpisodeSet,
        llm: LLM,
        reward: ReplyReward,
        n_samples: int = 1,
        max_failures: int | None = 64,
        initial: dict[int, Judged] | None = None,
    ) -> None:
        """Check that every episode can be scored."""
        for episode in episodes:
            if not episode.reference.strip():
                raise ValueError(f"patient {episode.patient_id} has no reference reply, so nothing can be scored")
        if n_samples < 1 or (max_failures is not None and max_failures < 1):
            raise ValueError(f"n_samples ({n_samples}) and max_failures ({max_failures}) must be 1 or more")
        self.episodes, self.llm, self.reward = episodes, llm, CheckedReward.of(reward)
        self.n_samples, self.max_failures = n_samples, max_failures
        self.initial = {} if initial is None else initial
        self._failures = 0  # in a row

    def __call__(self, indices: Sequence[int], prompts: Sequence[str]) -> Outcomes:
        """Score refined prompts; an LLM failure becomes an error, never a score.

        Raises:
            TooManyFailuresError: ``max_failures`` episodes in a row got no reply.
        """
        n = len(indices)
        if n == 0:
            return Outcomes.of_failures([])
        new = [i for i in dict.fromkeys(indices) if i not in self.initial]
        asked = [*prompts, *(self.episodes[i].prompt for i in new)]
        patients = [self.episodes[i] for i in (*indices, *new)]
        replies = self.llm.ask([Request(prompt, sample) for prompt in asked for sample in range(self.n_samples)])
        groups = [replies[start : start + self.n_samples] for start in range(0, len(replies), self.n_samples)]
        judged = self._judge(groups, patients)
        calls = [sum(isinstance(r, Completion) and not r.cached for r in group) for group in groups]
        for i, more in zip(new, calls[n:], strict=True):
            calls[list(indices).index(i)] += more  # the first episode that needs the initial reply pays for it
        initial = {**self.initial, **dict(zip(new, judged[n:], strict=True))}
        self.initial.update((i, each) for i, each in initial.items() if isinstance(each, Judged))
        pairs = [(after, initial[i]) for i, after in zip(indices, judged[:n], strict=True)]
        errors = [next((str(each) for each in pair if isinstance(each, LLMError)), "") for pair in pairs]
        self._count(errors)
        nothing = Judged("", 0.0, 0.0)
        whole = [(nothing, nothing) if e else pair for pair, e in zip(pairs, errors, strict=True)]
        after, before = (cast(tuple[Judged, ...], side) for side in zip(*whole, strict=True))
        return Outcomes(
            np.array([each.score for each in after]),
            np.array([each.score for each in before]),
            np.array(calls[:n], dtype=np.int64),
            Texts([each.reply for each in after], [each.reply for each in before], [e.reference for e in patients[:n]]),
            errors,
            np.array([each.sd for each in after]) if self.n_samples > 1 else None,
            np.array([each.sd for each in before]) if self.n_samples > 1 else None,
        )

    def _judge(self, groups: Sequence[Sequence[Reply]], patients: Sequence[Episode]) -> list[Judged | LLMError]:
        """Score the replies to each prompt, all in one call; if a prompt's replies have errors, return the first."""
        errors = [next((reply for reply in group if isinstance(reply, LLMError)), None) for group in groups]
        whole = [i for i, error in enumerate(errors) if error is None]
        texts = {i: [reply.text for reply in groups[i] if isinstance(reply, Completion)] for i in whole}
        flat = [(text, patients[i]) for i in whole for text in texts[i]]
        scores = self.reward.score([text for text, _ in flat], [patient for _, patient in flat])
        table = scores.reshape(len(whole), self.n_samples)
        sd = table.std(axis=1, ddof=1) if self.n_samples > 1 else np.zeros(len(whole))
        scored = {
            i: Judged(texts[i][0], float(row.mean()), float(s)) for i, row, s in zip(whole, table, sd, strict=True)
        }
        return [scored[i] if error is None else error for i, error in enumerate(errors)]

    def _count(self, errors: Sequence[str]) -> None:
        for error in errors:
            self._failures = self._failures + 1 if error else 0
            if self.max_failures is not None and self._failures >= self.max_failures:
                self._failures = 0  # for a caller that catches the error and goes on
                raise TooManyFailuresError(
                    f"{self.max_failures} episodes in a row got no reply; the last error: {error}. "
                    "Fix the cause, then run the command again: nothing that was paid for is lost"
                )
