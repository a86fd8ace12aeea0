"""Settings of ``pmlm train``."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, make_dataclass
from functools import cache
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

from agents.model_options import CallOptions, ModelOptions
from agents.registry import DEFAULT, settings_of

#: Largest budget of completions; more would be a slip of the keyboard.
MOST_COMPLETIONS = 10_000_000


# ``with_agent_settings`` creates the version for one agent.
@dataclass(frozen=True)
class TrainConfig:
    """Train an agent on the training patients of a prepared folder.

    Attributes:
        episodes: A folder that ``pmlm prepare`` wrote.
        run: The run folder to write.
        agent: The agent: the name of a built-in one or of an installed package's, or ``package.module:Class``;
            `pmlm train --agent NAME --help` shows its own settings.
        settings: The agent's own settings.
        budget: Maximum number of LLM completions for training, including those for the initial prompts.
        models: The models of the run.
        calls: Options for LLM calls, and spending limits.
        seed: Seed for weights, patients, and actions.
        resume: Resume ``run`` with its saved settings. You may change limits, ``concurrency``, ``max_failures``,
            ``device``, and ``providers``, and raise ``budget``.
        allow_import: With ``resume``: import and run the classes that the run names as ``package.module:Class``. Do so
            only if you trust the run.
        dry_run: Print the maximum cost of the run, and do nothing else.
    """

    episodes: Path = Path("prepared")
    run: Path = Path("runs/train")
    agent: str = DEFAULT
    settings: Any = None
    budget: int = 2_000
    models: ModelOptions = field(default_factory=ModelOptions)
    calls: CallOptions = field(default_factory=CallOptions)
    seed: int = 0
    resume: bool = False
    allow_import: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        """Fill in the agent's default settings, and check the budget.

        Raises:
            ValueError: There is no such agent, the settings belong to another agent, or the budget or the seed is not
                within its range.
        """
        fill_in(self)
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {shortened(self.seed)}: use a whole number from 0 to {2**32 - 1:,}")


def fill_in(config: Any) -> None:
    """Fill in the agent's default settings if ``config.settings`` is None, and check the settings and the budget.

    Args:
        config: A dataclass with ``agent``, ``settings``, and ``budget``.

    Raises:
        ValueError: There is no such agent, the settings belong to another agent, or the budget is out of range.
    """
    usual = settings_of(config.agent)
    if config.settings is None:
        object.__setattr__(config, "settings", usual)
    elif type(config.settings) is not type(usual):
        raise ValueError(
            f"the settings are {type(config.settings).__name__}: {config.agent} has {type(usual).__name__}"
        )
    check_count("budget", config.budget, MOST_COMPLETIONS)


def check_count(name: str, number: int, most: int) -> None:
    """Check that a number is from 1 to ``most``.

    Raises:
        ValueError: It is not.
    """
    if not 1 <= number <= most:
        raise ValueError(f"{name} is {shortened(number)}: use a whole number from 1 to {most:,}")


@cache
def with_agent_settings(config: type, agent: str) -> type:
    """Specialize a dataclass with ``agent`` and ``settings``, such as ``TrainConfig``, for one agent.

    In the returned dataclass, the field ``settings`` has the type and the default values of that agent's settings, so
    that a command line or a settings file can be read into it.

    Raises:
        ValueError: There is no such agent.
    """
    usual = settings_of(agent)
    changed = []
    for each in fields(config):
        if each.name == "agent":
            changed.append((each.name, str, field(default=agent)))
        elif each.name == "settings":
            changed.append((each.name, type(usual), field(default=usual)))
    made = make_dataclass(config.__name__, changed, bases=(config,), frozen=True)
    made.__doc__, made.__module__ = config.__doc__, config.__module__
    return made
