"""Settings of the baselines."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NoConfig:
    """Nothing can be set."""


@dataclass(frozen=True)
class RandomPConfig:
    """Settings of ``random-p``.

    Attributes:
        keep: Probabilities of keeping a word, from which ``fit`` takes the best.
        patients: Fewest training patients to try them on; where the budget pays for fewer, the middle one is taken.
    """

    keep: tuple[float, ...] = (0.5, 0.7, 0.8, 0.9, 0.95)
    patients: int = 8

    def __post_init__(self) -> None:
        """Check the probabilities.

        Raises:
            ValueError: There is none, or one is not a probability.
        """
        if not self.keep or not all(0 <= p <= 1 for p in self.keep):
            raise ValueError(f"keep is {self.keep}: give probabilities, one at least")


@dataclass(frozen=True)
class SingleRuleConfig:
    """Settings of ``single-rule``.

    Attributes:
        patients: Training patients to search on.
        judged: Largest share of the budget that is spent on scoring rules; the rest is spent on random deletions.
        penalty: Weight of the squared coefficients, in units of the places' mean squared count.
    """

    patients: int = 24
    judged: float = 0.4
    penalty: float = 1.0

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: A number is out of its range.
        """
        if self.patients < 1 or not 0 < self.judged < 1 or self.penalty <= 0:
            raise ValueError("patients must be 1 or more, judged between 0 and 1, penalty above 0")


@dataclass(frozen=True)
class TaskSearchConfig:
    """Settings of ``task-grips`` and ``task-genetic``.

    Attributes:
        patients: Training patients that every candidate is scored on.
        finalists: Candidates that are scored again, on other patients, with a fifth of the budget.
    """

    patients: int = 8
    finalists: int = 4

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: A number is below 1.
        """
        if min(self.patients, self.finalists) < 1:
            raise ValueError("patients and finalists must be 1 or more")


@dataclass(frozen=True)
class SurrogateConfig:
    """Settings of ``surrogate``.

    Attributes:
        rows: Prompts whose rewards are asked for in one batch.
        penalty: Weight of the squared coefficients, in units of the words' mean squared count.
    """

    rows: int = 32
    penalty: float = 1.0

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: A number is out of its range.
        """
        if self.rows < 1 or self.penalty <= 0:
            raise ValueError("rows must be 1 or more, penalty above 0")


@dataclass(frozen=True)
class SelfInformationConfig:
    """Settings of ``self-information-low`` and ``self-information-high``.

    Attributes:
        model: What says how surprising a word is: ``bigram``, counted on the training prompts, or a causal LM, by a
            bundled model's name, a directory or a hub name.
    """

    model: str = "smollm2-135m"
