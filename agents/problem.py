"""What an agent is given to learn from: patients' prompts, who judges them, and how many replies it may ask for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from reprlib import repr as shortened
from typing import Any

import numpy as np
import numpy.typing as npt

from pmlm_env.core.edits import EditBatch, EditRules, Prompts
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.outcomes import Outcomes, Reward
from pmlm_env.core.task import EditTask, Encoder
from pmlm_env.envs.prompt_edit_vector import PMLMVectorEnv
from pmlm_env.llm import BudgetExceededError


class BudgetSpentError(BudgetExceededError):
    """The agent's own budget is spent, and not a limit of the whole run."""


#: The least and the most that a shape's whole numbers may be: they come from folders that somebody else may have made.
_RANGES = {
    "embedding_size": (1, 8_192),
    "patient_size": (1, 4_096),
    "max_words": (1, 16_384),
    "n_edits": (0, 10_000),
}


@dataclass(frozen=True)
class Shape:
    """What an agent's networks are made for.

    Attributes:
        encoder: Whose embeddings: a name as ``WordEncoder`` takes it; "" for an encoder without a name.
        embedding_size: Numbers in a word's embedding.
        patient_size: Numbers in a patient vector.
        max_words: Slots.
        n_edits: Edits of a prompt, at most.
        protect: What may not be edited; see ``PMLMEnv``.

    Raises:
        ValueError: A value is of another type, or out of its range.
    """

    encoder: str
    embedding_size: int
    patient_size: int
    max_words: int
    n_edits: int
    protect: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the values."""
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                raise ValueError(f"{name} is {shortened(value)}: use a whole number from {least} to {most:,}")
        if not isinstance(self.encoder, str):
            raise ValueError(f"encoder is {shortened(self.encoder)}: use the name of a model")
        if not all(isinstance(name, str) for name in self.protect):
            raise ValueError(f"protect is {shortened(self.protect)}: use a list of names")


class MeteredReward:
    """Counts the completions that an agent asks for, and stops it at a limit: the same for every agent.

    Every completion counts, that of the initial prompt too. A prompt that this agent has asked about before is free,
    because its reply is kept. Whether another run's cache has the reply makes no difference: the budget is what the
    agent would have spent alone.

    Args:
        reward: Who judges.
        limit: Most completions; None = no limit, for searches that have limits of their own.
        per_prompt: Completions for each prompt (``n_samples``).
        watch: Called with each batch of outcomes, once it is counted.

    Attributes:
        calls: Completions so far.
        history: Mean delta of the episodes of each batch: (calls after it, episodes, mean delta).
    """

    def __init__(
        self,
        reward: Reward,
        limit: int | None = None,
        per_prompt: int = 1,
        watch: Callable[[Outcomes], object] | None = None,
    ) -> None:
        """Begin at zero."""
        self.limit, self.per_prompt, self.watch = limit, per_prompt, watch
        self.calls = 0
        self.history: list[tuple[int, int, float]] = []
        self._reward = reward
        self._asked: set[tuple[int, str]] = set()
        self._initial: set[int] = set()

    @property
    def left(self) -> float:
        """Completions that may still be asked for; infinite without a limit."""
        return float("inf") if self.limit is None else self.limit - self.calls

    @property
    def prompts_left(self) -> int:
        """Prompts that the rest of the budget pays for, if all of them are new.

        Raises:
            ValueError: There is no limit.
        """
        if self.limit is None:
            raise ValueError("an agent needs a budget: give MeteredReward a limit")
        return int(self.left) // self.per_prompt

    def cost(self, indices: Sequence[int], prompts: Sequence[str]) -> int:
        """Return how many completions a batch would take."""
        return (len(self._new(indices, prompts)) + len(set(indices) - self._initial)) * self.per_prompt

    def __call__(self, indices: Sequence[int], prompts: Sequence[str]) -> Outcomes:
        """Judge refined prompts.

        Raises:
            BudgetSpentError: The batch would exceed the limit; nothing is asked.
        """
        new = self._new(indices, prompts)
        cost = self.cost(indices, prompts)
        if cost > self.left:
            raise BudgetSpentError(f"{self.calls} of {self.limit} completions are spent, and {cost} more are needed")
        outcomes = self._reward(indices, prompts)
        self.calls += cost
        self._asked |= new
        self._initial |= set(indices)
        whole = ~outcomes.failed
        if whole.any():
            self.history.append((self.calls, int(whole.sum()), float(outcomes.delta[whole].mean())))
        if self.watch is not None:
            self.watch(outcomes)
        return outcomes

    def state(self) -> dict[str, Any]:
        """Return what was counted, as JSON takes it."""
        return {"calls": self.calls, "initial": sorted(self._initial), "asked": sorted(self._asked)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state`` returned.

        Raises:
            ValueError, KeyError, TypeError: It is not such a state.
        """
        self.calls = int(state["calls"])
        self._initial = {int(index) for index in state["initial"]}
        self._asked = {(int(index), str(text)) for index, text in state["asked"]}

    def _new(self, indices: Sequence[int], prompts: Sequence[str]) -> set[tuple[int, str]]:
        texts = [np.packbits(row).tobytes().hex() for row in prompts.kept] if isinstance(prompts, Prompts) else prompts
        return set(zip(indices, texts, strict=True)) - self._asked


class Problem:
    """Some patients' prompts, with all that an agent needs to edit them and, where it may learn, to be judged.

    Args:
        episodes: The prompts.
        encoder: Embeds words.
        reward: Judges prompts; None where the patients are held out.
        n_edits: Edits of a prompt, at most.
        max_words: Number of slots, the same for all problems of an experiment; the longest prompt's by default.
        protect: What may not be edited; see ``PMLMEnv``.
    """

    def __init__(
        self,
        episodes: EpisodeSet,
        encoder: Encoder,
        reward: MeteredReward | None,
        n_edits: int = 10,
        max_words: int | None = None,
        protect: Collection[str] = (),
    ) -> None:
        """Gather the parts."""
        self.episodes, self.encoder, self.n_edits = episodes, encoder, n_edits
        self.max_words = episodes.max_words if max_words is None else max_words
        self._rules = EditRules(n_edits, self.max_words, protect)
        self.protect = tuple(self._rules.protect)  # one name, where it was a string
        self._reward = reward

    @property
    def reward(self) -> MeteredReward:
        """What judges prompts.

        Raises:
            RuntimeError: The patients are held out.
        """
        if self._reward is None:
            raise RuntimeError("these patients are held out: their prompts may be edited, but not judged")
        return self._reward

    @property
    def shape(self) -> Shape:
        """What an agent's networks are made for here."""
        return Shape(
            getattr(self.encoder, "model_name", ""),
            self.encoder.hidden_size,
            self.episodes.vectors.shape[1],
            self.max_words,
            self.n_edits,
            self.protect,
        )

    def env(self, rows: int, **options: Any) -> PMLMVectorEnv:
        """Make a vector env of ``rows`` prompts; by default as ``agents.policies.rollout.play`` wants it."""
        reward = _unscored if self._reward is None else self._reward
        observation = options.pop("observation", "embeddings")
        task = EditTask(self.episodes, self.encoder, reward, self._rules, observation)
        return PMLMVectorEnv(rows, **{"autoreset_mode": "Disabled", "array_type": "torch", "task": task, **options})

    def batch(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> EditBatch:
        """Load some initial prompts into an ``EditBatch``, one a row."""
        batch = EditBatch(self.episodes, len(indices), self._rules)
        batch.load(np.arange(len(indices)), np.asarray(indices))
        return batch

    def judge(self, indices: Sequence[int], kept: npt.NDArray[np.bool_]) -> Outcomes:
        """Judge edited prompts.

        Args:
            indices: Which episodes, N of them.
            kept: Which of their words are left, bool (N, max_words).

        Raises:
            BudgetSpentError: That would exceed the budget.
        """
        index = np.asarray(indices, dtype=np.int64).tolist()
        return self.reward(index, Prompts(self.episodes, index, kept))


def blind(episodes: EpisodeSet) -> EpisodeSet:
    """Return the episodes without reference and label: what a deployed agent would have."""
    return EpisodeSet([replace(episode, reference="", label="") for episode in episodes])


def _unscored(indices: Sequence[int], prompts: Sequence[str]) -> Outcomes:
    """The reward of held-out patients while their prompts are edited: 0, and no LLM is asked."""
    nothing = np.zeros(len(indices))
    return Outcomes(nothing, nothing, np.zeros(len(indices), dtype=np.int64))
