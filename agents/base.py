"""What every agent is: fitted on training patients within a budget, then asked to refine prompts it has not seen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from agents.problem import Arena

#: Slots of the initial prompt to delete, in order: one tuple a prompt.
Deletions = list[tuple[int, ...]]


class Agent(ABC):
    """One way to edit prompts.

    A subclass says in ``Config``, a frozen dataclass, what can be set. It is made anew for each run.

    Args:
        config: Settings; the defaults of ``Config`` if None.
        seed: Draws all that is drawn.
    """

    #: What can be set: a frozen dataclass.
    Config: type

    def __init__(self, config: Any = None, seed: int = 0) -> None:
        """Note the settings."""
        self.config = self.Config() if config is None else config
        self.seed = seed

    @abstractmethod
    def fit(self, arena: Arena) -> None:
        """Learn from training patients until done, or until the arena's budget is spent.

        Raises:
            BudgetExceededError: The next batch would overshoot ``arena.reward.limit``; what was learnt so far holds,
                and ``refine`` works. Callers catch it.
        """

    @abstractmethod
    def refine(self, arena: Arena) -> Deletions:
        """Say which words to delete from each prompt of ``arena``, at most ``arena.n_edits``, without asking the LLM.

        The arena is blind: no reward, no reference, no label.
        """

    def save(self, folder: Path) -> None:
        """Write what was learnt into ``folder``, nothing pickled.

        Raises:
            ValueError: This agent cannot be saved.
        """
        raise ValueError(f"{type(self).__name__} cannot be saved")
