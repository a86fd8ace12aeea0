"""Settings of the baselines."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from agents.settings import check_count
from pmlm_env.llm import LLMOptions
from pmlm_env.llm.storage.budget import MAX_AMOUNT
from pmlm_env.weights import DEFAULT_LLM


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
            ValueError: ``keep`` is empty, a value is not a probability, or ``patients`` is below 1.
        """
        if not self.keep or not all(0 <= p <= 1 for p in self.keep):
            raise ValueError(f"keep is {self.keep}: give probabilities, one at least")
        if self.patients < 1:
            raise ValueError(f"patients is {self.patients}: use a whole number, 1 or more")


@dataclass(frozen=True)
class SingleRuleConfig:
    """Settings of ``single-rule`` and ``phrase-rule``.

    Attributes:
        patients: Training patients to search on.
        judged: Maximum share of the budget for scoring rules; the rest is spent on random deletions.
        penalty: Weight of the squared coefficients, in units of the mean squared count of what is deleted together.
    """

    patients: int = 24
    judged: float = 0.4
    penalty: float = 1.0

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: A setting is out of range.
        """
        if self.patients < 1 or not 0 < self.judged < 1 or not 0 < self.penalty < inf:
            raise ValueError("patients must be 1 or more, judged between 0 and 1, penalty above 0 and finite")


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
        if self.rows < 1 or not 0 < self.penalty < inf:
            raise ValueError("rows must be 1 or more, penalty above 0 and finite")


@dataclass(frozen=True)
class TreeSurrogateConfig:
    """Settings of ``tree-surrogate``.

    Attributes:
        rounds: Number of batches that the budget is divided into.
        explored: Share of the budget for random deletions, before the models choose what is tried.
        tries: Deletions to try for each training patient; with a small budget, fewer patients are used.
        members: Number of models.
        refits: Number of models that are fitted anew before each batch.
        trees: Number of trees of a model.
        depth: Depth of the trees.
        caution: The multiple of the models' standard deviation that is subtracted from their mean prediction.
    """

    rounds: int = 12
    explored: float = 0.4
    tries: int = 5
    members: int = 10
    refits: int = 2
    trees: int = 100
    depth: int = 4
    caution: float = 1.0

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: A setting is out of range.
        """
        for name, most in (("rounds", 1_000), ("tries", 1_000), ("members", 100), ("trees", 1_000), ("depth", 8)):
            check_count(name, getattr(self, name), most)
        check_count("refits", self.refits, self.members)
        if not 0 < self.explored <= 1:
            raise ValueError(f"explored is {self.explored}: use a number above 0 and at most 1")
        if not 0 <= self.caution < inf:
            raise ValueError(f"caution is {self.caution}: use a number of 0 or more")


@dataclass(frozen=True)
class SelfInformationConfig:
    """Settings of ``self-information-low`` and ``self-information-high``.

    Attributes:
        model: Model that measures how surprising a word is: ``bigram`` (counts from the training prompts) or a causal
            LM, given as a bundled model's name, a directory or a hub name.
    """

    model: str = "smollm2-135m"


@dataclass(frozen=True)
class LLMEditorConfig:
    """Settings of ``llm-editor``.

    Attributes:
        editor: The LLM that edits, named as for ``--llm``: the default LLM of pmlm-env, another ``local:`` one, or an
            endpoint, ``PROVIDER:MODEL``; an address of your own stands in the file for ``--providers``.
        editor_tokens: Maximum number of tokens of its answer; a model that reasons needs more.
        editor_calls: Maximum number of its calls in the whole run, which do not count against the agent's budget of
            completions; no limit by default.
    """

    editor: str = f"local:{DEFAULT_LLM}"
    editor_tokens: int = LLMOptions.max_new_tokens
    editor_calls: int | None = None

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: A setting is out of range.
        """
        check_count("editor_tokens", self.editor_tokens, 1_000_000)
        if self.editor_calls is not None and not 1 <= self.editor_calls <= MAX_AMOUNT:
            raise ValueError(f"editor_calls is {self.editor_calls}: use a whole number, 1 or more")


@dataclass(frozen=True)
class FewShotEditorConfig(LLMEditorConfig):
    """Settings of ``llm-editor-few-shot``.

    Attributes:
        examples: Maximum number of examples to show.
        candidates: Random deletions to judge for each training patient that may become an example.
    """

    examples: int = 3
    candidates: int = 8

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: A setting is out of range.
        """
        super().__post_init__()
        if not 1 <= self.examples <= 100 or self.candidates < 1:
            raise ValueError("examples must be from 1 to 100, and candidates 1 or more")
