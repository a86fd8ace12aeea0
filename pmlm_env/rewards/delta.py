"""DeltaReward, the reward of Eq. 9: how much better the edits make the LLM's reply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.outcomes import Outcomes, Texts
from pmlm_env.llm.base import LLM, Completion, LLMError, Reply, Request
from pmlm_env.rewards.base import CheckedReward, ComponentReward, ReplyReward, ScoredReply, mean_of


class TooManyFailuresError(RuntimeError):
    """Too many episodes in a row got no reply, so the run is stopped."""


class Judged(NamedTuple):
    """The scored replies to one prompt.

    Attributes:
        replies: The reply of each sample.
        score: The replies' mean score.
        sd: Standard deviation of the score over samples (n - 1 in the denominator); 0 for a single sample.
        components: The replies' components: means over the samples that have a value, or NaN if none has.
    """

    replies: tuple[str, ...]
    score: float
    sd: float
    components: Mapping[str, float]


class DeltaReward:
    """What edits earn: by default, the change of the score from the initial prompt's reply (Eqs. 9-10).

    All episodes that end in a step share one LLM batch, and their replies are scored in one call. Each initial prompt
    is sent once, when its reply is first needed. An episode with a missing reply ends with an error; the others in
    its batch are scored as usual.

    Args:
        episodes: The episodes that indices refer to.
        llm: The downstream LLM.
        reward: Scores replies, such as ``BertScoreReward``; of either interface in ``pmlm_env.rewards.base``.
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
        reward: CheckedReward | ReplyReward | ComponentReward,
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
        new = self._without_initial(indices)
        groups = self._ask([*prompts, *(self.episodes[i].prompt for i in new)])
        n = len(indices)
        return self._outcomes(indices, prompts, groups[:n], dict(zip(new, groups[n:], strict=True)))

    def of_replies(
        self, indices: Sequence[int], prompts: Sequence[str], replies: Sequence[Sequence[Reply]]
    ) -> Outcomes:
        """Score replies that are already there, such as a control's; initial prompts are sent if they were not yet.

        Args:
            indices: N episode indices.
            prompts: The prompts that the replies answer.
            replies: For each prompt one reply, or one for each sample.

        Raises:
            TooManyFailuresError: ``max_failures`` episodes in a row got no reply.
        """
        new = self._without_initial(indices)
        groups = self._ask([self.episodes[i].prompt for i in new])
        return self._outcomes(indices, prompts, replies, dict(zip(new, groups, strict=True)))

    def _without_initial(self, indices: Sequence[int]) -> list[int]:
        """Return the episodes whose reply to the initial prompt is not known yet."""
        return [i for i in dict.fromkeys(indices) if i not in self.initial]

    def _ask(self, prompts: Sequence[str]) -> list[list[Reply]]:
        """Return ``n_samples`` replies to each prompt."""
        if not prompts:
            return []
        replies = self.llm.ask([Request(prompt, sample) for prompt in prompts for sample in range(self.n_samples)])
        return [replies[start : start + self.n_samples] for start in range(0, len(replies), self.n_samples)]

    def _outcomes(
        self,
        indices: Sequence[int],
        prompts: Sequence[str],
        groups: Sequence[Sequence[Reply]],
        new: Mapping[int, Sequence[Reply]],
    ) -> Outcomes:
        """Score the replies to refined prompts, and those to initial prompts that are ``new``."""
        n = len(indices)
        if n == 0:
            return Outcomes.of_failures([])
        calls = [_calls(group) for group in groups]
        for i, group in new.items():
            calls[list(indices).index(i)] += _calls(group)  # the first episode that needs the initial reply pays for it
        errors = {i: error for i, group in new.items() if (error := error_of(group))}
        whole = [i for i in new if i not in errors]

        def first(i: int) -> str:
            """Return the first reply to an initial prompt."""
            return _texts(new[i])[0] if i in new else self.initial[i].replies[0]

        failed = [error_of(group) or errors.get(i, "") for i, group in zip(indices, groups, strict=True)]
        rows = [row for row, error in enumerate(failed) if not error]
        judged = self._judge(
            [
                *((groups[row], indices[row], prompts[row], first(indices[row])) for row in rows),
                *((new[i], i, self.episodes[i].prompt, first(i)) for i in whole),
            ]
        )
        self.initial.update(zip(whole, judged[len(rows) :], strict=True))
        self._count(failed)
        nothing = Judged(("",), 0.0, 0.0, dict.fromkeys(self.reward.names, np.nan))
        after, before = [nothing] * n, [nothing] * n
        for row, each in zip(rows, judged, strict=False):
            after[row], before[row] = each, self.initial[indices[row]]
        references = [self.episodes[i].reference for i in indices]
        rewards = np.zeros(n)
        initial, refined = (_columns([side[row] for row in rows], self.reward.names) for side in (before, after))
        same = [before[row].replies == after[row].replies for row in rows]
        rewards[rows] = self.reward.change(initial, refined, same)
        return Outcomes(
            np.array([each.score for each in after]),
            np.array([each.score for each in before]),
            np.array(calls, dtype=np.int64),
            Texts([each.replies[0] for each in after], [each.replies[0] for each in before], references),
            failed,
            np.array([each.sd for each in after]) if self.n_samples > 1 else None,
            np.array([each.sd for each in before]) if self.n_samples > 1 else None,
            _columns(after, self.reward.names),
            _columns(before, self.reward.names),
            rewards,
        )

    def _judge(self, asked: Sequence[tuple[Sequence[Reply], int, str, str]]) -> list[Judged]:
        """Score replies, all in one call.

        Args:
            asked: For each prompt: its replies, the index of its episode, the prompt, and the initial reply.
        """
        flat = [
            ScoredReply(reply.text, self.episodes[i], prompt, reply.finish_reason == "length", initial)
            for replies, i, prompt, initial in asked
            for reply in replies
            if isinstance(reply, Completion)
        ]
        components = self.reward.components(flat)
        scores = self.reward.score(components)
        out, end = [], 0
        for replies, *_ in asked:
            start, end = end, end + len(replies)
            part = scores[start:end]
            out.append(
                Judged(
                    tuple(reply.text for reply in flat[start:end]),
                    float(part.mean()),
                    float(part.std(ddof=1)) if len(part) > 1 else 0.0,
                    {name: mean_of(values[start:end]) for name, values in components.items()},
                )
            )
        return out

    def _count(self, errors: Sequence[str]) -> None:
        for error in errors:
            self._failures = self._failures + 1 if error else 0
            if self.max_failures is not None and self._failures >= self.max_failures:
                self._failures = 0  # for a caller that catches the error and goes on
                raise TooManyFailuresError(
                    f"{self.max_failures} episodes in a row got no reply; the last error: {error}. "
                    "Fix the cause, then run the command again: nothing that was paid for is lost"
                )


def given(text: str, cut: bool = False) -> Completion:
    """Return a text as a reply that no LLM was asked for, such as a control's; see ``DeltaReward.of_replies``."""
    return Completion(text, 0, 0, "length" if cut else "stop", cached=True)


def error_of(replies: Sequence[Reply]) -> str:
    """Return the first error of the replies to one prompt; "" if there is none."""
    return next((str(reply) for reply in replies if isinstance(reply, LLMError)), "")


def _texts(replies: Sequence[Reply]) -> list[str]:
    return [reply.text for reply in replies if isinstance(reply, Completion)]


def _calls(replies: Sequence[Reply]) -> int:
    return sum(isinstance(reply, Completion) and not reply.cached for reply in replies)


def _columns(judged: Sequence[Judged], names: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
    return {name: np.array([each.components[name] for each in judged]) for name in names}
