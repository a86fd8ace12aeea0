"""The interfaces of a reward, and the check of what it returns."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pmlm_env.core.arrays import read_only
from pmlm_env.core.episodes import Episode

#: The name of the default reward.
BERTSCORE = "bertscore"

#: The name of the reward with settings of the user's.
GUARDED = "guarded"

#: The components that are BERTScore's own.
BERTSCORES = ("bertscore_precision", "bertscore_recall", "bertscore_f1")

#: The component of a reward that only has a score: the score itself.
REWARD = "reward"

#: Components by name, each float64 (N,); NaN = no value.
Values = Mapping[str, npt.NDArray[np.float64]]


class ScoredReply(NamedTuple):
    """A reply to be scored.

    Attributes:
        text: The reply.
        episode: The patient's episode.
        prompt: The prompt that it answers.
        cut: Whether the limit on new tokens ended it.
        initial: The (first) reply to the patient's initial prompt; the text itself if it is that reply.
    """

    text: str
    episode: Episode
    prompt: str
    cut: bool
    initial: str


class ReplyReward(Protocol):
    """Interface of a reward that only has a score; an edit earns the change of the score."""

    def score(self, replies: Sequence[str], episodes: Sequence[Episode]) -> npt.ArrayLike:
        """Score each reply to the patient of the episode at the same index.

        Args:
            replies: N texts, one or more.
            episodes: N episodes, with the prompt, the doctor's reply (``reference``), the condition (``label``), ...

        Returns:
            One finite number for each reply, (N,); higher is better.
        """
        ...


class ComponentReward(Protocol):
    """Interface of a reward that is made of components, which infos, traces and tables show one by one.

    The arrays that ``score`` and ``change`` get are read-only: change copies.
    """

    @property
    def names(self) -> Sequence[str]:
        """The names of the components; one in ``pmlm_env.rewards.components.COMPONENTS`` means what it means there."""
        ...

    def components(self, replies: Sequence[ScoredReply]) -> Mapping[str, npt.ArrayLike]:
        """Return each component of N replies, one or more: numbers (N,), NaN where one has no value."""
        ...

    def score(self, components: Values) -> npt.ArrayLike:
        """Return the score of N replies, of their components: finite numbers (N,); higher is better."""
        ...

    def change(self, before: Values, after: Values) -> npt.ArrayLike:
        """Return what N edits earn, finite numbers (N,).

        Args:
            before: Components of the replies to the initial prompts, means over samples.
            after: Components of the replies to the refined prompts, means over samples.
        """
        ...


class _ScoreOnly:
    """A ``ComponentReward`` whose only component is the score of a ``ReplyReward``."""

    names = (REWARD,)

    def __init__(self, reward: ReplyReward) -> None:
        self._reward = reward

    def components(self, replies: Sequence[ScoredReply]) -> dict[str, npt.ArrayLike]:
        texts, episodes = [reply.text for reply in replies], [reply.episode for reply in replies]
        return {REWARD: self._reward.score(texts, episodes)}

    def score(self, components: Values) -> npt.ArrayLike:
        return components[REWARD]

    def change(self, before: Values, after: Values) -> npt.ArrayLike:
        return after[REWARD] - before[REWARD]


class CheckedReward:
    """A reward of either interface, whose results are checked.

    Args:
        name: Its name in the registry, for messages.
        reward: The reward: a ``ComponentReward`` if it has the method ``components``, or else a ``ReplyReward``.

    Attributes:
        name: The name.
        names: The names of its components.
        seconds: Wall time spent in ``components`` so far.

    Raises:
        ValueError: The reward lacks a method of its interface, or the names of its components.
    """

    def __init__(self, name: str, reward: ReplyReward | ComponentReward) -> None:
        """Check that the methods and the names are there."""
        methods = ("components", "score", "change") if hasattr(reward, "components") else ("score",)
        if lacking := [each for each in methods if not callable(getattr(reward, each, None))]:
            raise ValueError(
                f"the reward {name} lacks {', '.join(lacking)}: it should have the method{'s' * (len(methods) > 1)} "
                f"{', '.join(methods)}, see docs/rewards.md"
            )
        self.name, self.seconds = name, 0.0
        self._reward: Any = reward if hasattr(reward, "components") else _ScoreOnly(reward)
        names = getattr(self._reward, "names", None)
        if not (isinstance(names, list | tuple) and names and all(isinstance(each, str) for each in names)):
            raise ValueError(
                f"the reward {name} has no names of components: its attribute names should be a list of one text or "
                "more, see docs/write-your-own.md"
            )
        self.names: tuple[str, ...] = tuple(names)

    @classmethod
    def of(cls, reward: CheckedReward | ReplyReward | ComponentReward) -> CheckedReward:
        """Return a reward that is checked under the name of its class, or as it is if it is checked already."""
        return reward if isinstance(reward, cls) else cls(type(reward).__qualname__, reward)  # type: ignore[arg-type]

    def components(self, replies: Sequence[ScoredReply]) -> dict[str, npt.NDArray[np.float64]]:
        """Return each component, float64 (N,), in the order of ``names``; the reward is not asked about no replies.

        Raises:
            ValueError: The reward returned something else than one number for each reply and component.
        """
        if not replies:
            return {name: np.zeros(0) for name in self.names}
        started = time.perf_counter()
        found = self._reward.components(list(replies))
        self.seconds += time.perf_counter() - started
        if not isinstance(found, Mapping) or found.keys() != set(self.names):
            raise ValueError(
                f"the reward {self.name} returned other components than {', '.join(self.names)}: its method components "
                "should return a dictionary of these"
            )
        if isinstance(self._reward, _ScoreOnly):
            return {REWARD: self._numbers("score", found[REWARD], len(replies))}
        return {name: self._numbers("components", found[name], len(replies), name) for name in self.names}

    def score(self, components: Values) -> npt.NDArray[np.float64]:
        """Return the scores of replies with these components, float64 (N,).

        Raises:
            ValueError: The reward returned something else than one finite number for each reply.
        """
        n = len(next(iter(components.values())))
        return self._numbers("score", self._reward.score(_read_only(components)), n) if n else np.zeros(0)

    def change(
        self, before: Values, after: Values, same: Sequence[bool] | npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float64]:
        """Return what edits earn, float64 (N,); see ``ComponentReward``.

        Args:
            before: Components of the replies to the initial prompts.
            after: Components of the replies to the refined prompts.
            same: Whether the replies to both prompts are the same texts, N values. Then the edits earn exactly 0, even
                if a component, such as ``copy``, also depends on the prompt.

        Raises:
            ValueError: The reward returned something else than one finite number for each reply.
        """
        if not len(same):
            return np.zeros(0)
        found = self._reward.change(_read_only(before), _read_only(after))
        return np.where(same, 0.0, self._numbers("change", found, len(same)))

    def _numbers(self, method: str, found: Any, n: int, component: str = "") -> npt.NDArray[np.float64]:
        """Return what a method returned as float64 (n,); a component may be NaN."""
        try:
            numbers = np.asarray(found)
        except (TypeError, ValueError, RuntimeError):  # ragged lists, and tensors on a GPU or with a gradient
            numbers = np.array(None)
        if numbers.dtype.kind not in "biuf":
            what = f"values of type {type(found).__name__} that are not numbers"
        elif numbers.shape != (n,):
            what = f"numbers of shape {numbers.shape}"
        elif (wrong := np.isinf(numbers) if component else ~np.isfinite(numbers)).any():
            what = f"{numbers[wrong][0]} at index {np.flatnonzero(wrong)[0]}"
        else:
            return numbers.astype(np.float64)
        of, kind = (f" as {component}", "number, or NaN,") if component else ("", "finite number")
        raise ValueError(
            f"the reward {self.name} returned {what}{of}: its method {method} should return one {kind} for each of "
            f"{n} replies, of shape ({n},)"
        )


def _read_only(components: Values) -> Values:
    """Return components that a method cannot change by mistake: the same values are shown, and used again."""
    return {name: read_only(values) for name, values in components.items()}


def mean_of(values: npt.NDArray[np.float64]) -> float:
    """Return the mean of the values that are not NaN, or NaN if all are."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
