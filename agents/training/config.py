"""Settings of ``pmlm train``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from functools import cache
from pathlib import Path
from reprlib import repr as shortened
from typing import Any, get_type_hints

from agents.model_options import CallOptions, ModelOptions
from agents.registry import DEFAULT, REGISTRY, settings_of
from agents.settings import check_count
from pmlm_env.encoders.base import ENCODERS
from pmlm_env.llm import LLMOptions
from pmlm_env.llm.custom import LLMS
from pmlm_env.llm.specs import is_custom
from pmlm_env.rewards.registry import REWARDS

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
            ``device``, and ``providers``, and raise ``budget``. ``leave-one-out``, ``actor-critic``, ``reinforce``,
            ``sparsemax`` and ``lexicon`` then go on; others are fitted again, and may need replies that the run lacks.
        allow_import: With ``resume``: import and run the classes that the run names as ``package.module:Class``. Do so
            only if you trust the run.
        dry_run: Print the maximum cost of the run, and do nothing else.
        wandb: Name of a Weights & Biases project that gets the metrics too (extra ``wandb``): numbers and names of
            models, no texts. It is not stored with the run. ``WANDB_MODE=offline`` keeps them in the run folder.
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
    wandb: str | None = None

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


def _option_names(config: type) -> list[str]:
    """Return the names of the settings in a dataclass, and in the dataclasses that are its tables."""
    kinds, names = get_type_hints(config), [each.name for each in fields(config)]
    tables = [kinds[name] for name in names if is_dataclass(kinds[name])]
    return [*names, *(name for table in tables for name in _option_names(table))]


def with_agent_settings(config: type, agent: str) -> type:
    """Specialize a dataclass with ``agent`` and ``settings``, such as ``TrainConfig``, for one agent.

    In the returned dataclass, the field ``settings`` has the type and the default values of that agent's settings, so
    that a command line or a settings file can be read into it.

    Raises:
        ValueError: There is no such agent, or two options have the same name.
    """
    kind: type = type(settings_of(agent))
    return _specialized(config, agent, kind)


@cache  # so that equal settings are of the same type
def _specialized(config: type, agent: str, kind: type) -> type:
    """See ``with_agent_settings``; ``kind`` is the type of the agent's settings."""
    usual = settings_of(agent)
    names = [*_option_names(config), *_option_names(kind)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(
            f"the agent {agent} has a setting {twice[0]}, and --{twice[0].replace('_', '-')} is an option already: "
            "rename it in its Config"
        )
    changed: list[tuple[str, type, Any]] = []
    for each in fields(config):
        if each.name == "agent":
            changed.append((each.name, str, field(default=agent)))
        elif each.name == "settings":
            changed.append((each.name, kind, field(default=usual)))
    made = make_dataclass(config.__name__, changed, bases=(config,), frozen=True)
    made.__doc__, made.__module__ = config.__doc__, config.__module__
    return made


def named_classes(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the classes that a run's settings name as ``package.module:Class``, by part, such as "reward".

    Nothing is imported. Names of installed packages' classes are not among them.

    Args:
        settings: The settings as JSON values; see ``agents.settings.plain``.

    Raises:
        ValueError: The providers' file is invalid.
    """
    models = settings["models"]
    names = {"agent": settings.get("agent"), **{part: models.get(part) for part in ("reward", "encoder", "llm")}}
    names["editor"] = editor_in(settings)
    registries = {"agent": REGISTRY, "reward": REWARDS, "encoder": ENCODERS, "llm": LLMS, "editor": LLMS}
    found = {part: name for part, name in names.items() if isinstance(name, str) and registries[part].is_path(name)}
    for part in ("llm", "editor"):
        if part in found and not is_custom(LLMOptions(found[part], providers=models.get("providers"))):
            del found[part]  # a provider's model
    return found


def editor_in(settings: Mapping[str, Any]) -> str | None:
    """Return the LLM that a run's agent itself asks for edits, if it asks one; see ``Agent.editor``.

    Args:
        settings: The settings as JSON values.
    """
    own = settings.get("settings")
    name = own.get("editor") if isinstance(own, Mapping) else None
    return name if isinstance(name, str) else None


def refuse_classes(named: Mapping[str, str], file: Path) -> None:
    """Refuse the classes that ``named_classes`` found in a run's file.

    Raises:
        ValueError: There are some.
    """
    if named:
        classes = ", ".join(f"the {part} {name}" for part, name in named.items())
        raise ValueError(
            f"{file} names {classes}, which is code from outside pmlm-env: give --allow-import to run it, if you "
            "trust it"
        )
