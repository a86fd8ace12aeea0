"""Base classes of all agents: an agent is fitted on training patients within a budget, then edits unseen prompts."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from agents.problem import Editor, Problem, Shape
from agents.settings import Range, plain
from pmlm_env.core.edits import Edit
from pmlm_env.io.files import make_folder, write, write_json

if TYPE_CHECKING:  # these take seconds to import
    import torch

    from pmlm_env.core.episodes import EpisodeSet
    from pmlm_env.retrieval import PatientEncoder

#: The edits of each prompt, in order.
Edits: TypeAlias = list[tuple[Edit, ...]]

#: Reads a file of tensors that must have exactly these names and shapes.
ReadTensors: TypeAlias = "Callable[[Mapping[str, tuple[int, ...]]], dict[str, torch.Tensor]]"

#: The two files of a saved agent.
CONFIG, WEIGHTS = "config.json", "model.safetensors"


class Agent(ABC):
    """Base class of all agents.

    A subclass defines its settings in ``Config``, a frozen dataclass whose fields have defaults and are of the types
    bool, int, float, str, Path, Literal, tuple[TYPE, ...], or one of them or None. Each run creates a new agent; see
    ``agents.registry.make`` to create agents by name.

    Args:
        config: Settings; the defaults of ``Config`` if None.
        seed: Seed for all randomness, from 0 to 2**32 - 1.

    Attributes:
        shape: The problem dimensions that the agent was fitted for; None before ``fit``.
        counts: What the last ``refine`` counted, for the results files; empty for most agents.
        may_import: Whether classes that the settings name as ``package.module:Class`` may be imported; False for a
            saved agent that was loaded without ``allow_import``.

    Raises:
        ValueError: The settings belong to another agent, or the seed is not a whole number in that range.
    """

    #: The agent's name in the registry; ``agents.registry.make`` sets it.
    name: str
    #: The agent's settings: a frozen dataclass.
    Config: ClassVar[type]
    #: The search space of ``pmlm tune``: settings by name, with their ranges.
    space: ClassVar[Mapping[str, Range]] = {}
    #: Settings that differ on PMLMLite-v0, by name.
    lite: ClassVar[Mapping[str, Any]] = {}
    #: Whether ``fit`` requests LLM replies; if not, a single fit is valid for every budget.
    learns: ClassVar[bool] = True
    #: Whether the results depend on the seed.
    seeded: ClassVar[bool] = True
    #: Whether several processes can train it together (``pmlm_env.processes``).
    divides: ClassVar[bool] = False
    #: Whether ``refine`` uses embeddings, and so needs the encoder that the agent was trained with.
    needs_embeddings: ClassVar[bool] = True

    def __init__(self, config: Any = None, seed: int = 0) -> None:
        """Store the settings."""
        if config is not None and not isinstance(config, self.Config):
            raise ValueError(f"the settings are {type(config).__name__}: this agent has {self.Config.__name__}")
        if type(seed) is not int or not 0 <= seed < 2**32:
            raise ValueError(f"seed is {shortened(seed)}: use a whole number from 0 to {2**32 - 1:,}")
        self.config: Any = self.Config() if config is None else config
        self.seed = seed
        self.shape: Shape | None = None
        self.counts: dict[str, int] = {}
        self.may_import = True

    @abstractmethod
    def fit(self, problem: Problem) -> None:
        """Learn from training patients until done, or until the problem's budget is spent.

        First of all, it sets ``shape`` to ``problem.shape``.

        Raises:
            BudgetSpentError: The next batch would exceed the budget. The agent keeps what it has learned so far, and
                ``refine`` works. Callers catch this error.
        """

    @abstractmethod
    def refine(self, problem: Problem) -> Edits:
        """Edit each prompt of ``problem``, within its edit budget (``problem.budgets``).

        The LLM that replies to refined prompts is not called. The problem is blind: it has no reward, references, or
        labels. An agent that was not fitted uses its initial policy.
        """

    def learned(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Return what was learned: JSON values, and float32 tensors by name. Both are empty by default.

        What numpy has in place of these, and tensors of other numbers, are saved as such values and tensors.
        """
        return {}, {}

    def restore(self, values: Mapping[str, Any], tensors: ReadTensors, device: str) -> None:
        """Restore what ``learned`` returned, for problems of shape ``self.shape``.

        Args:
            values: The JSON values.
            tensors: Reads the tensors, given their names and shapes.
            device: The device to put the tensors on.

        Raises:
            ValueError: The values or tensors do not belong to this agent.
        """
        self._check_names(values)
        tensors({})

    def _check_names(self, values: Mapping[str, Any], expected: Collection[str] = ()) -> None:
        """Check that the learned values have the expected names.

        Raises:
            ValueError: A name is missing or unexpected.
        """
        if values.keys() != set(expected):
            found, should = (", ".join(sorted(map(shortened, names))) or "nothing" for names in (values, expected))
            raise ValueError(f"learned contains {found}; for the agent {self.name} it should contain {should}")

    def save(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into ``folder``, for ``agents.registry.load``.

        Raises:
            ValueError: The agent was not fitted yet, or ``learned`` returned what cannot be saved.
            OSError: A file cannot be written.
        """
        if self.shape is None:
            raise ValueError(f"the agent {self.name} has learned nothing yet: call fit first, which has to set `shape`")
        from safetensors.torch import save

        folder = Path(folder)
        make_folder(folder)
        values, tensors = self.learned()
        try:
            values = json.loads(json.dumps(values, default=_from_numpy))
        except TypeError as error:
            raise ValueError(
                f"what the agent {self.name} has learned cannot be saved: {error}: its method learned should return "
                "JSON values, and tensors by name"
            ) from None
        write(folder / WEIGHTS, save({name: self._float32(name, tensor) for name, tensor in tensors.items()}))
        content = {
            "agent": self.name,
            "settings": plain(self.config),
            "seed": self.seed,
            "shape": plain(self.shape),
            "learned": values,
        }
        write_json(folder / CONFIG, content)

    def _float32(self, name: str, values: Any) -> torch.Tensor:
        """Return a tensor that ``learned`` returned as it is saved: a copy, because tensors may share memory."""
        import torch

        try:
            tensor = torch.as_tensor(values).detach()
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(
                f"what the agent {self.name} has learned cannot be saved: {shortened(name)} is of type "
                f"{type(values).__name__}: its method learned should return tensors by name"
            ) from None
        copy = tensor.to("cpu", torch.float32, copy=True).contiguous()
        if not tensor.is_floating_point() and not torch.equal(copy.to(tensor.dtype), tensor.cpu()):
            raise ValueError(
                f"what the agent {self.name} has learned cannot be saved: {shortened(name)} has whole numbers that "
                "float32 cannot hold: return them among the JSON values"
            )
        return copy

    @property
    def editor(self) -> Editor | None:
        """The LLM that the agent itself asks for edits, by ``problem.editor``; None for most agents.

        Its name is in a setting called ``editor``, by which commands check where prompts of a saved run would go.
        """
        return None

    @property
    def needs_checkups(self) -> bool:
        """Whether the agent looks at patients' check-ups (``Episode.checkups``), and not only at their vectors."""
        return False

    def patient_encoder(self, episodes: EpisodeSet) -> PatientEncoder | None:
        """Return the patient encoder that the agent has learned, to be written into the run folder; None by default.

        Args:
            episodes: The episodes that it has learned from.
        """
        return None

    def words(self) -> tuple[str, ...]:
        """Return the words of training prompts that ``save`` writes; publishing the agent discloses them."""
        return ()

    @property
    def holds_prompts(self) -> bool:
        """Whether ``save`` writes whole prompts of training patients; such an agent is not published."""
        return False


def _from_numpy(value: Any) -> Any:
    """Return a number or an array of numpy as a JSON value."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"there is a value of type {type(value).__name__}")


class StepwiseAgent(Agent):
    """An agent that learns in updates; training can be saved between updates and resumed exactly.

    Other agents resume by being fitted again from the start: the same seed and budget request the same replies, which
    come from the cache at no cost.
    """

    @abstractmethod
    def begin(self, problem: Problem) -> None:
        """Create the learnable parameters, and set ``shape``."""

    @abstractmethod
    def update(self) -> dict[str, float] | None:
        """Play one batch of episodes, learn from it, and return its metrics; None if training is finished.

        Raises:
            BudgetSpentError: The batch would exceed the budget.
        """

    @abstractmethod
    def progress(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Return the full training state, weights included: JSON values, and tensors by name."""

    @abstractmethod
    def go_on(self, values: Mapping[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Restore what ``progress`` returned, after ``begin``.

        Raises:
            ValueError, KeyError, TypeError, RuntimeError: The state does not fit this agent.
        """

    def fit(self, problem: Problem) -> None:
        """Run all updates; see ``Agent.fit``."""
        self.begin(problem)
        while self.update() is not None:
            pass
