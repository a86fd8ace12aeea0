"""Settings of the baselines."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NoConfig:
    """No settings."""


@dataclass(frozen=True)
class RandomPConfig:
    """Settings of ``random-p``.

    Attributes:
        keep: Probabilities of keeping a word; ``fit`` selects the best of them.
        patients: Minimum number of training patients to try them on; if the budget covers fewer, the middle
            probability is used.
    """

    keep: tuple[float, ...] = (0.5, 0.7, 0.8, 0.9, 0.95)
    patients: int = 8

    def __post_init__(self) -> None:
        """Check the probabilities.

        Raises:
            ValueError: ``keep`` is empty, or a value is not a probability.
        """
        if not self.keep or not all(0 <= p <= 1 for p in self.keep):
            raise ValueError(f"keep is {self.keep}: give probabilities, one at least")


@dataclass(frozen=True)
class SingleRuleConfig:
    """Settings of ``single-rule``.

    Attributes:
        patients: Training patients to search on.
        judged: Maximum share of the budget for scoring rules; the rest is spent on random deletions.
        penalty: Weight of the squared coefficients, in units of the places' mean squared count.
    """

    patients: int = 24
    judged: float = 0.4
    penalty: float = 1.0

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: A setting is out of range.
        """
        if self.patients < 1 or not 0 < self.judged < 1 or self.penalty <= 0:
            raise ValueError("patients must be 1 or more, judged between 0 and 1, penalty above 0")


@dataclass(frozen=True)
class TaskSearchConfig:
    """Settings of ``task-grips`` and ``task-genetic``.

    Attributes:
        patients: Training patients that every candidate is scored on.
        finalists: Number of candidates that are scored again, on other patients, with a fifth of the budget.
    """

    patients: int = 8
    finalists: int = 4

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: A setting is below 1.
        """
        if min(self.patients, self.finalists) < 1:
            raise ValueError("patients and finalists must be 1 or more")


@dataclass(frozen=True)
class SurrogateConfig:
    """Settings of ``surrogate``.

    Attributes:
        rows: Number of prompts whose rewards are requested in one batch.
        penalty: Weight of the squared coefficients, in units of the words' mean squared count.
    """

    rows: int = 32
    penalty: float = 1.0

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: A setting is out of range.
        """
        if self.rows < 1 or self.penalty <= 0:
            raise ValueError("rows must be 1 or more, penalty above 0")


@dataclass(frozen=True)
class SelfInformationConfig:
    """Settings of ``self-information-low`` and ``self-information-high``.

    Attributes:
        model: Model that measures how surprising a word is: ``bigram`` (counts from the training prompts) or a causal
            LM, given as a bundled model's name, a directory or a hub name.
    """

    model: str = "smollm2-135m"
