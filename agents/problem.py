"""The problem that an agent learns from: patients' prompts, their reward, and the budget of LLM completions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from reprlib import repr as shortened
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pmlm_env.core.edits import EditBatch, EditRules, Prompts
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.outcomes import Outcomes, Reward
from pmlm_env.core.protection import editable_words
from pmlm_env.core.task import EditTask, Encoder
from pmlm_env.envs.prompt_edit_vector import PMLMVectorEnv
from pmlm_env.llm import LLM, Budget, BudgetExceededError, Limits, LLMOptions, load_llm
from pmlm_env.llm.custom import LLMS
from pmlm_env.llm.specs import IN_PROCESS, is_custom

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Editor:
    """An LLM that an agent itself asks for edits, at temperature 0.

    Attributes:
        llm: Its name, as for ``--llm``.
        max_new_tokens: Maximum number of tokens of an answer.
        max_calls: Maximum number of its calls in the whole run; None = no limit.
        may_import: Whether it may be a class at ``package.module:Class``; see ``Agent``.
    """

    llm: str
    max_new_tokens: int = LLMOptions.max_new_tokens
    max_calls: int | None = None
    may_import: bool = True

    def options(self, providers: str | None = None) -> LLMOptions:
        """Return its options.

        Args:
            providers: A file of providers; left out for an LLM that takes none.

        Raises:
            ValueError: It must not be imported, or the file of providers is invalid.
        """
        options = LLMOptions(self.llm, max_new_tokens=self.max_new_tokens)
        given = replace(options, providers=providers)
        if self.in_process:
            return options
        if not is_custom(given):
            return given
        if not self.may_import and LLMS.is_path(self.llm):
            raise ValueError(
                f"the saved agent's editor is {shortened(self.llm)}, which is code from outside pmlm-env: give "
                "--allow-import to run it, if you trust it"
            )
        return options

    @property
    def in_process(self) -> bool:
        """Whether it runs in this process, and so costs nothing."""
        return self.llm.partition(":")[0] in IN_PROCESS


#: Makes the LLM that an agent asks for edits.
MakeEditor: TypeAlias = Callable[[Editor], LLM]


class BudgetSpentError(BudgetExceededError):
    """The agent's own budget is spent, as opposed to a limit of the whole run.

    Args:
        message: What is spent and what is needed.
        needed: Number of completions that the next batch needs.
    """

    def __init__(self, message: str, needed: int = 0) -> None:
        """Store the arguments."""
        super().__init__(message)
        self.needed = needed


#: Allowed ranges of a shape's integers, which may be read from untrusted folders; of ``n_edits`` if it is one.
_RANGES = {
    "embedding_size": (1, 8_192),
    "patient_size": (1, 4_096),
    "max_words": (1, 16_384),
    "n_edits": (0, 10_000),
}


@dataclass(frozen=True)
class Shape:
    """The dimensions of a problem, which an agent's networks are built for.

    Attributes:
        encoder: The encoder's name, as ``WordEncoder`` accepts it; "" for an encoder without a name.
        embedding_size: Length of a word's embedding.
        patient_size: Length of a patient vector.
        max_words: Number of slots.
        n_edits: The edit budget of each prompt; see ``EditRules``.
        protect: Words that may not be edited; see ``PMLMEnv``.

    Raises:
        ValueError: A value has the wrong type, or is out of range.
    """

    encoder: str
    embedding_size: int
    patient_size: int
    max_words: int
    n_edits: int | float
    protect: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the values."""
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if name == "n_edits" and isinstance(value, float):
                EditRules(value)  # a share
            elif not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                raise ValueError(f"{name} is {shortened(value)}: use a whole number from {least} to {most:,}")
        if not isinstance(self.encoder, str):
            raise ValueError(f"encoder is {shortened(self.encoder)}: use the name of a model")
        if not all(isinstance(name, str) for name in self.protect):
            raise ValueError(f"protect is {shortened(self.protect)}: use a list of names")


class MeteredReward:
    """A reward that counts the completions an agent requests, and stops it at a limit; the same for every agent.

    Every completion counts, including those of initial prompts. Repeating a prompt that this agent has already
    requested is free, because its reply is cached. Replies in another run's cache still count: the budget is what the
    agent would have spent on its own.

    Args:
        reward: The reward function.
        limit: Maximum number of completions; None = no limit, for searches that have their own limits.
        per_prompt: Completions per prompt (``n_samples``).
        watch: Called with each batch of outcomes, after it is counted.

    Attributes:
        calls: Number of completions so far.
        history: One entry for each batch: (calls after it, number of episodes, their mean delta).
        failed: Number of episodes so far that got no reply; their completions count, too.
        last_error: Why the last of them got none; "" if there is none.
    """

    def __init__(
        self,
        reward: Reward,
        limit: int | None = None,
        per_prompt: int = 1,
        watch: Callable[[Outcomes], object] | None = None,
    ) -> None:
        """Set the counters to zero."""
        self.limit, self.per_prompt, self.watch = limit, per_prompt, watch
        self.calls = 0
        self.history: list[tuple[int, int, float]] = []
        self.failed, self.last_error = 0, ""
        self._reward = reward
        self._asked: set[tuple[int, str]] = set()
        self._initial: set[int] = set()

    @property
    def left(self) -> float:
        """Number of completions left in the budget; infinite without a limit."""
        return float("inf") if self.limit is None else self.limit - self.calls

    @property
    def prompts_left(self) -> int:
        """Number of prompts that the remaining budget pays for, if all of them are new.

        Raises:
            ValueError: There is no limit.
        """
        if self.limit is None:
            raise ValueError("the agent needs a budget: give MeteredReward a limit")
        return int(self.left) // self.per_prompt

    @property
    def most_episodes(self) -> int:
        """The most episodes that a learner plays: twice what the remaining budget pays for if all prompts are new.

        Repeated prompts are free, and a policy of low entropy repeats itself, so that the budget alone would not end
        its training.

        Raises:
            ValueError: There is no limit.
        """
        return 2 * self.prompts_left

    def cost(self, indices: Sequence[int], prompts: Sequence[str]) -> int:
        """Return how many completions a batch would use."""
        return (len(self._new(indices, prompts)) + len(set(indices) - self._initial)) * self.per_prompt

    def __call__(self, indices: Sequence[int], prompts: Sequence[str]) -> Outcomes:
        """Score refined prompts.

        Raises:
            BudgetSpentError: The batch would exceed the limit; no completion is requested.
        """
        new = self._new(indices, prompts)
        cost = self.cost(indices, prompts)
        if cost > self.left:
            raise BudgetSpentError(
                f"{self.calls} of {self.limit} completions are spent, and the next batch needs {cost} more", cost
            )
        outcomes = self._reward(indices, prompts)
        self.calls += cost
        self._asked |= new
        self._initial |= set(indices)
        whole = ~outcomes.failed
        if errors := [error for error in outcomes.errors if error]:
            self.failed, self.last_error = self.failed + len(errors), errors[-1]
        if whole.any():
            self.history.append((self.calls, int(whole.sum()), float(outcomes.delta[whole].mean())))
        if self.watch is not None:
            self.watch(outcomes)
        return outcomes

    @property
    def left_out(self) -> dict[str, int]:
        """What a result says of episodes that got no reply; {} if there is none."""
        return {"failed": self.failed} if self.failed else {}

    def warn_of_failures(self, name: str) -> None:
        """Warn if an agent or a search did without episodes because they got no reply."""
        if self.failed:
            logger.warning(
                "%s: %d episodes got no reply and are left out, the last because: %s",
                name,
                self.failed,
                self.last_error,
            )

    def state(self) -> dict[str, Any]:
        """Return the counters as JSON values."""
        return {"calls": self.calls, "initial": sorted(self._initial), "asked": sorted(self._asked)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the counters that ``state`` returned.

        Raises:
            ValueError, KeyError, TypeError: The state is malformed.
        """
        self.calls = int(state["calls"])
        self._initial = {int(index) for index in state["initial"]}
        self._asked = {(int(index), str(text)) for index, text in state["asked"]}

    def _new(self, indices: Sequence[int], prompts: Sequence[str]) -> set[tuple[int, str]]:
        texts = [np.packbits(row).tobytes().hex() for row in prompts.kept] if isinstance(prompts, Prompts) else prompts
        return set(zip(indices, texts, strict=True)) - self._asked


class Problem:
    """A set of patients' prompts, with what an agent needs to edit them and, in training, to have them scored.

    Args:
        episodes: The prompts.
        encoder: Embeds words.
        reward: Scores prompts; None if the patients are held out.
        n_edits: The edit budget of each prompt: a whole number, or a share of its words; see ``EditRules``.
        max_words: Number of slots, the same for all problems of an experiment; by default the length of the longest
            prompt.
        protect: Words that may not be edited; see ``PMLMEnv``.
        editor: Makes the LLM that an agent itself asks for edits, as ``Problem.editor`` does; by default, one whose
            replies are cached in memory only.

    Attributes:
        budgets: The maximum number of edits of each prompt, int64 (number of episodes,).
    """

    def __init__(
        self,
        episodes: EpisodeSet,
        encoder: Encoder,
        reward: MeteredReward | None,
        n_edits: int | float = 10,
        max_words: int | None = None,
        protect: Collection[str] = (),
        editor: MakeEditor | None = None,
    ) -> None:
        """Store the arguments, and create the edit rules."""
        self.episodes, self.encoder = episodes, encoder
        self.max_words = episodes.max_words if max_words is None else max_words
        self._rules = EditRules(n_edits, self.max_words, protect)
        self.n_edits, self.budgets = self._rules.n_edits, self._rules.budgets(episodes.lengths)
        self.protect = tuple(self._rules.protect)  # one name, where it was a string
        self._reward, self._editor = reward, editor

    def editor(self, editor: Editor) -> LLM:
        """Make the LLM that an agent itself asks for edits.

        Raises:
            ValueError: There is no such LLM, or prompts must not be sent to it.
            LLMError: It cannot be used at all, for example without a key.
        """
        if self._editor is not None:
            return self._editor(editor)
        return load_llm(editor.options(), device=str(self.encoder.device), budget=Budget(Limits(editor.max_calls)))

    @property
    def reward(self) -> MeteredReward:
        """The reward that scores prompts.

        Raises:
            RuntimeError: The patients are held out.
        """
        if self._reward is None:
            raise RuntimeError("these patients are held out: their prompts may be edited, but not scored")
        return self._reward

    @property
    def shape(self) -> Shape:
        """The dimensions of this problem."""
        return Shape(
            getattr(self.encoder, "model_name", ""),
            self.encoder.hidden_size,
            self.episodes.vectors.shape[1],
            self.max_words,
            self.n_edits,
            self.protect,
        )

    def warn_of_short_prompts(self) -> None:
        """Warn if the edit budget allows an agent to delete everything that may be edited of some prompts."""
        n_editable = editable_words(self.episodes, self.protect).sum(axis=1)
        all_of_them = n_editable <= self.budgets
        if all_of_them.any():
            empty = int((n_editable == self.episodes.lengths)[all_of_them].sum())
            logger.warning(
                "%d of %d prompts have no more words that may be edited than the edit budget, %s: an agent can delete "
                "all of these words, which leaves %d of the prompts empty. Train with a smaller --n-edits, or leave "
                "these patients out",
                all_of_them.sum(),
                len(self.episodes),
                self.n_edits,
                empty,
            )

    def env(self, rows: int, **options: Any) -> PMLMVectorEnv:
        """Make a vector env with ``rows`` sub-envs; the default options suit ``agents.policies.rollout.play``."""
        reward = _unscored if self._reward is None else self._reward
        forms = {name: options.pop(name) for name in ("observation", "patient", "observed") if name in options}
        task = EditTask(self.episodes, self.encoder, reward, self._rules, **forms)
        return PMLMVectorEnv(rows, **{"autoreset_mode": "Disabled", "array_type": "torch", "task": task, **options})

    def batch(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> EditBatch:
        """Load some initial prompts into an ``EditBatch``, one per row."""
        batch = EditBatch(self.episodes, len(indices), self._rules)
        batch.load(np.arange(len(indices)), np.asarray(indices))
        return batch

    def judge(self, indices: Sequence[int], kept: npt.NDArray[np.bool_]) -> Outcomes:
        """Score edited prompts.

        Args:
            indices: Episode indices, N of them.
            kept: Mask of the words that were not deleted, bool (N, max_words).

        Raises:
            BudgetSpentError: The batch would exceed the budget.
        """
        index = np.asarray(indices, dtype=np.int64).tolist()
        return self.reward(index, Prompts(self.episodes, index, kept))


def blind(episodes: EpisodeSet) -> EpisodeSet:
    """Return the episodes without references and labels, as a deployed agent would see them."""
    return episodes.part(replace(episode, reference="", label="") for episode in episodes)


def _unscored(indices: Sequence[int], prompts: Sequence[str]) -> Outcomes:
    """Placeholder reward for editing held-out patients' prompts: always 0, without calling the LLM."""
    nothing = np.zeros(len(indices))
    return Outcomes(nothing, nothing, np.zeros(len(indices), dtype=np.int64))
