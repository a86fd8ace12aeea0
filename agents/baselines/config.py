"""Settings of the baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Order = Literal["low", "high"]


@dataclass(frozen=True)
class NoConfig:
    """Nothing can be set."""


@dataclass(frozen=True)
class RandomPConfig:
    """Which probabilities are tried.

    Attributes:
        keep: Probabilities of keeping a word, from which ``fit`` takes the best.
        patients: Fewest training patients to judge them by; where the budget pays for less, the middle one is taken.
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
    """How the rule is searched.

    Attributes:
        calls: Completions, where the problem has no limit.
        patients: Training patients to search on, always the same ones.
        judged: Largest share of the calls that goes into judging rules; the rest goes into random deletions.
        penalty: Weight of the squared coefficients, in units of the places' mean squared count.
    """

    calls: int = 600
    patients: int = 24
    judged: float = 0.4
    penalty: float = 1.0

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: A number is out of its range.
        """
        if min(self.calls, self.patients) < 1 or not 0 < self.judged < 1 or self.penalty <= 0:
            raise ValueError("calls and patients must be 1 or more, judged between 0 and 1, penalty above 0")


@dataclass(frozen=True)
class TaskSearchConfig:
    """How the edit is searched.

    Attributes:
        calls: Completions, where the problem has no limit.
        patients: Training patients that each candidate is scored on, always the same.
        finalists: Candidates that are scored again on others, with a fifth of the calls.
    """

    calls: int = 600
    patients: int = 8
    finalists: int = 4

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: A number is below 1.
        """
        if min(self.calls, self.patients, self.finalists) < 1:
            raise ValueError("calls, patients and finalists must be 1 or more")


@dataclass(frozen=True)
class SurrogateConfig:
    """What can be set.

    Attributes:
        episodes: How many where the problem has no limit; else the limit ends it.
        rows: Prompts judged at once.
        penalty: Weight of the squared coefficients, in units of the words' mean squared count.
    """

    episodes: int = 2_000
    rows: int = 32
    penalty: float = 1.0


@dataclass(frozen=True)
class SelfInformationConfig:
    """Which words go, and who says how surprising they are.

    Attributes:
        order: ``low``: the least surprising words go; ``high``: the most surprising.
        model: ``bigram``, counted on the training prompts, or a causal LM: a bundled model's name, a directory or a
            hub name.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        batch_size: Most prompts in one pass.
    """

    order: Order = "low"
    model: str = "bigram"
    device: str = "auto"
    batch_size: int = 16

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: One of them makes no sense.
        """
        if self.order not in get_args(Order):
            raise ValueError(f"order is {self.order!r}: use one of {get_args(Order)}")
        if self.batch_size < 1:
            raise ValueError("batch_size must be 1 or more")
