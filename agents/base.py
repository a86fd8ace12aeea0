"""What every agent is: fitted on training patients within a budget, then asked to edit prompts it has not seen."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from agents.problem import Problem, Shape
from agents.settings import Range, plain
from pmlm_env.core.edits import Edit
from pmlm_env.io.files import make_folder, write

if TYPE_CHECKING:
    import torch

#: The edits of each prompt, in order.
Edits: TypeAlias = list[tuple[Edit, ...]]

#: Reads a file of tensors that must have these names and shapes, and no others.
ReadTensors: TypeAlias = "Callable[[Mapping[str, tuple[int, ...]]], dict[str, torch.Tensor]]"

#: The two files of a saved agent.
CONFIG, WEIGHTS = "config.json", "model.safetensors"


class Agent(ABC):
    """One way to edit prompts.

    A subclass says in ``Config``, a frozen dataclass, what can be set. An agent is made anew for each run; see
    ``agents.registry.make`` for agents by name.

    Args:
        config: Settings; the defaults of ``Config`` if None.
        seed: Seeds everything that is random; from 0 to 2**32 - 1.

    Attributes:
        shape: What the agent was fitted for; None before ``fit``.

    Raises:
        ValueError: The settings are another agent's, or the seed is no whole number in that range.
    """

    #: What it is called in the registry, where it is not made by a name of its own.
    name: str
    #: What can be set: a frozen dataclass.
    Config: ClassVar[type]
    #: What ``pmlm tune`` tries: settings by name, with their ranges.
    space: ClassVar[Mapping[str, Range]] = {}
    #: Whether ``fit`` asks for replies; one fit of an agent that does not holds for every budget.
    learns: ClassVar[bool] = True
    #: Whether the seed makes a difference.
    seeded: ClassVar[bool] = True
    #: Whether ``refine`` looks at embeddings, and so needs the encoder that the agent was trained with.
    needs_embeddings: ClassVar[bool] = True

    def __init__(self, config: Any = None, seed: int = 0) -> None:
        """Keep the settings."""
        if config is not None and not isinstance(config, self.Config):
            raise ValueError(f"the settings are {type(config).__name__}: this agent has {self.Config.__name__}")
        if type(seed) is not int or not 0 <= seed < 2**32:
            raise ValueError(f"seed is {shortened(seed)}: use a whole number from 0 to {2**32 - 1:,}")
        self.config: Any = self.Config() if config is None else config
        self.seed = seed
        self.shape: Shape | None = None

    @abstractmethod
    def fit(self, problem: Problem) -> None:
        """Learn from training patients until done, or until the problem's budget is spent.

        Raises:
            BudgetSpentError: The next batch would exceed the budget; what was learned so far holds, and ``refine``
                works. Callers catch it.
        """

    @abstractmethod
    def refine(self, problem: Problem) -> Edits:
        """Edit each prompt of ``problem``, at most ``problem.n_edits`` times, without asking the LLM.

        The problem is blind: no reward, no reference, no label. An agent that was not fitted edits as it would begin.
        """

    def learned(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Return what was learned: values for JSON, and float32 tensors by name. Nothing, by default."""
        return {}, {}

    def restore(self, values: Mapping[str, Any], tensors: ReadTensors, device: str) -> None:
        """Put back what ``learned`` returned, for the problem of ``self.shape``.

        Args:
            values: The values.
            tensors: Reads the tensors, once it is told their names and shapes.
            device: Where the tensors belong.

        Raises:
            ValueError: They are not of this agent.
        """
        self._check_names(values)
        tensors({})

    def _check_names(self, values: Mapping[str, Any], expected: Collection[str] = ()) -> None:
        """See that what was learned has the names it should have.

        Raises:
            ValueError: It has not.
        """
        if values.keys() != set(expected):
            found, should = (", ".join(sorted(map(shortened, names))) or "nothing" for names in (values, expected))
            raise ValueError(f"learned holds {found}, and of an agent {self.name} it should hold {should}")

    def save(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into ``folder``: all that ``agents.registry.load`` needs.

        Raises:
            ValueError: Nothing was learned yet.
            OSError: A file cannot be written.
        """
        if self.shape is None:
            raise ValueError(f"the agent {self.name} has learned nothing yet: call fit first")
        from safetensors.torch import save

        folder = Path(folder)
        make_folder(folder)
        values, tensors = self.learned()
        write(folder / WEIGHTS, save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))
        described = {
            "agent": self.name,
            "settings": plain(self.config),
            "seed": self.seed,
            "shape": plain(self.shape),
            "learned": values,
        }
        write(folder / CONFIG, json.dumps(described, indent=1, ensure_ascii=False) + "\n")

    def words(self) -> tuple[str, ...]:
        """Return the words of training prompts that ``save`` writes: whoever publishes the agent hands them on."""
        return ()


class StepwiseAgent(Agent):
    """An agent that learns in updates, between which it can be saved to go on later exactly as if it had not stopped.

    Other agents go on by being fitted again from the beginning: the same seed asks for the same replies, which are
    kept, so that nothing is bought twice.
    """

    @abstractmethod
    def begin(self, problem: Problem) -> None:
        """Make what learns, and set ``shape``."""

    @abstractmethod
    def update(self) -> dict[str, float] | None:
        """Play one batch of episodes, learn from it, and return figures about it; None where learning is done.

        Raises:
            BudgetSpentError: The batch would exceed the budget.
        """

    @abstractmethod
    def progress(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Return all that is needed to go on, weights included: values for JSON, and tensors by name."""

    @abstractmethod
    def go_on(self, values: Mapping[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Put back what ``progress`` returned, after ``begin``.

        Raises:
            ValueError, KeyError, TypeError, RuntimeError: They do not fit.
        """

    def fit(self, problem: Problem) -> None:
        """Take all updates; see ``Agent.fit``."""
        self.begin(problem)
        while self.update() is not None:
            pass
