"""What `pmlm tune` tries of each agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from agents.registry import AGENTS, BenchmarkEnv

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Floats:
    """Numbers from ``low`` to ``high``, drawn on a logarithmic scale if ``log``."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Integers:
    """Whole numbers from ``low`` to ``high``."""

    low: int
    high: int


@dataclass(frozen=True)
class Choices:
    """One of some values."""

    values: tuple[Any, ...]


Range: TypeAlias = Floats | Integers | Choices

_RATE = Floats(1e-4, 3e-2, log=True)
_BATCH = Choices((16, 32, 64, 128))
_NETWORK: dict[str, Range] = {
    "learner.learning_rate": _RATE,
    "learner.entropy": Floats(0.0, 0.1),
    "learner.epochs": Integers(1, 8),
    "hidden": Choices((64, 128, 256, 512)),
    "dropout": Floats(0.0, 0.5),
}
_ON_POLICY: dict[str, Range] = {
    "learning_rate": _RATE,
    "episodes": Choices((1, 2, 4)),
    "ent_coef": Floats(0.0, 0.05),
    "gae_lambda": Floats(0.8, 1.0),
}
_PPO: dict[str, Range] = {**_ON_POLICY, "n_epochs": Integers(1, 16)}
_OFF_POLICY: dict[str, Range] = {
    "learning_rate": _RATE,
    "gradient_steps": Integers(1, 16),
    "learning_starts": Integers(100, 2_000),
    "target_update_interval": Integers(50, 1_000),
    "exploration_fraction": Floats(0.1, 1.0),
}
_TASK: dict[str, Range] = {"patients": Choices((2, 4, 8, 16, 32)), "finalists": Integers(1, 8)}
_Q: dict[str, Range] = {"learning_rate": _RATE, "gradient_steps": Integers(1, 16), "batch_size": _BATCH}

#: What is tuned of each agent: the setting, with a dot before each part of it, and its range.
SPACES: Mapping[str, Mapping[str, Range]] = MappingProxyType(
    {
        "lexicon": {
            "learner.words.step": Floats(0.3, 10.0, log=True),
            "learner.words.penalty": Floats(0.3, 30.0, log=True),
            "learner.words.memory": Integers(1, 8),
            "learner.rollouts": Choices((2, 4, 8)),
            "learner.patients": Choices((4, 8, 16, 32)),
        },
        "leave-one-out": _NETWORK,
        "actor-critic": _NETWORK,
        "reinforce": _NETWORK,
        "sparsemax": _NETWORK,
        "q-dqn": {**_Q, "n_step": Choices((1, 3, 5, 10)), "exploration": Floats(0.1, 1.0)},
        "q-soft": {**_Q, "temperature": Floats(0.01, 1.0, log=True), "target_rate": Floats(1e-3, 1.0, log=True)},
        "maskable-ppo": _PPO,
        "ppo": _PPO,
        "a2c": {**_ON_POLICY, "rows": Choices((4, 8, 16))},
        "dqn": _OFF_POLICY,
        "qrdqn": _OFF_POLICY,
        "surrogate": {"penalty": Floats(0.03, 30.0, log=True)},
        "task-grips": _TASK,
        "task-genetic": _TASK,
        "random-p": {
            "keep": Choices(((0.5, 0.7, 0.8, 0.9, 0.95), (0.5, 0.8), (0.8, 0.9, 0.95), (0.3, 0.5, 0.7), (0.5,))),
            "patients": Choices((4, 8, 16, 32)),
        },
    }
)


def first_of(name: str, env: BenchmarkEnv) -> dict[str, Any]:
    """Return an agent's defaults as Optuna takes them."""
    config, first = AGENTS[name](env, 0).config, {}
    for key, within in SPACES[name].items():
        value = attrgetter(key)(config)
        first[key] = within.values.index(value) if isinstance(within, Choices) else value
    return first


def draw(trial: optuna.Trial, name: str) -> dict[str, Any]:
    """Draw a trial's settings of an agent."""
    return {key: _draw(trial, key, within) for key, within in SPACES[name].items()}


def _draw(trial: optuna.Trial, key: str, within: Range) -> Any:
    if isinstance(within, Choices):  # by their places, for not every value is one that Optuna takes
        return within.values[trial.suggest_categorical(key, range(len(within.values)))]
    if isinstance(within, Integers):
        return trial.suggest_int(key, within.low, within.high)
    return trial.suggest_float(key, within.low, within.high, log=within.log)
