"""Every agent of the benchmark by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal

from agents.base import Agent
from agents.baselines import KeepAll, RandomN, RandomP, SelfInformation, SingleRule, TaskGenetic, TaskGrips
from agents.baselines.surrogate import Surrogate
from agents.policy_gradient.agent import Kind, PolicyGradient, PolicyGradientConfig
from agents.q_learning.agent import QAgent, QConfig

BenchmarkEnv = Literal["lite", "real"]

#: Our default agent.
DEFAULT = "lexicon"

#: The agent that edits all prompts alike: what others gain beyond it is personal.
RULE = "single-rule"

#: Agents that ask for nothing while they are fitted: a run of theirs holds for every budget.
UNTRAINED = ("keep-all", "random-n", "self-information-low", "self-information-high")

#: Those of them whose refinement is the same whatever the seed.
UNSEEDED = ("keep-all", "self-information-low", "self-information-high")


def _inputs(env: BenchmarkEnv) -> dict[str, Any]:
    """Return how all networks take an env's words: Lite's embeddings do not know where a word stands, as BERT's do."""
    return {"positions": True, "normalize": False} if env == "lite" else {}


def _gradient(kind: Kind) -> Callable[[BenchmarkEnv, int], Agent]:
    return lambda env, seed: PolicyGradient(PolicyGradientConfig.of(kind, **_inputs(env)), seed)


def _sb3(algorithm: str) -> Callable[[BenchmarkEnv, int], Agent]:
    def make(env: BenchmarkEnv, seed: int) -> Agent:
        from agents.sb3.agents import SB3Agent, SB3Config

        return SB3Agent(SB3Config.of(algorithm, **_inputs(env)), seed)  # type: ignore[arg-type]

    return make


def _self_information(order: Literal["low", "high"]) -> Callable[[BenchmarkEnv, int], Agent]:
    def make(env: BenchmarkEnv, seed: int) -> Agent:
        model = "bigram" if env == "lite" else "smollm2-135m"
        return SelfInformation(SelfInformation.Config(order=order, model=model), seed)

    return make


#: Makes an agent with its default settings for an env, from a seed.
AGENTS: Mapping[str, Callable[[BenchmarkEnv, int], Agent]] = MappingProxyType(
    {
        "lexicon": lambda env, seed: PolicyGradient(None, seed),
        "leave-one-out": _gradient("leave-one-out"),
        "actor-critic": _gradient("actor-critic"),
        "reinforce": _gradient("reinforce"),
        "sparsemax": _gradient("sparsemax"),
        "q-dqn": lambda env, seed: QAgent(QConfig.of("dqn", **_inputs(env)), seed),
        "q-soft": lambda env, seed: QAgent(QConfig.of("soft", **_inputs(env)), seed),
        "maskable-ppo": _sb3("maskable_ppo"),
        "ppo": _sb3("ppo"),
        "a2c": _sb3("a2c"),
        "dqn": _sb3("dqn"),
        "qrdqn": _sb3("qrdqn"),
        "surrogate": lambda env, seed: Surrogate(None, seed),
        "single-rule": lambda env, seed: SingleRule(None, seed),
        "task-grips": lambda env, seed: TaskGrips(None, seed),
        "task-genetic": lambda env, seed: TaskGenetic(None, seed),
        "random-p": lambda env, seed: RandomP(None, seed),
        "random-n": lambda env, seed: RandomN(None, seed),
        "keep-all": lambda env, seed: KeepAll(None, seed),
        "self-information-low": _self_information("low"),
        "self-information-high": _self_information("high"),
    }
)
