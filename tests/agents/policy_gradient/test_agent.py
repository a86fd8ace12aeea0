from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from agents.base import Agent
from agents.baselines.surrogate import Surrogate
from agents.policy_gradient.agent import PolicyGradient, PolicyGradientConfig
from agents.problem import blind
from pmlm_env.llm import BudgetExceededError
from tests.arenas import BEST, CHANCE, ShuffledReward, make_arena, mean_return

pytestmark = pytest.mark.once


def _agent(kind: str, seed: int = 0) -> Agent:
    if kind == "surrogate":
        return Surrogate(None, seed)
    config = PolicyGradientConfig.of(kind)  # type: ignore[arg-type]
    changes: dict[str, Any] = {"hidden": 64} if config.hidden else {}
    if kind != "reinforce":
        patients = 16 // config.learner.rollouts
        changes["learner"] = replace(config.learner, patients=patients, learning_rate=3e-3, entropy=0.0, epochs=2)
    return PolicyGradient(replace(config, **changes), seed)


def _reached(kind: str, limit: int = 800, reward: Callable[..., Any] | None = None) -> float:
    """Mean return on prompts never seen, with decoys that may not be deleted."""
    arena = make_arena(limit, decoys=True, n=16, reward=reward)
    agent = _agent(kind)
    with suppress(BudgetExceededError):
        agent.fit(arena)
    assert arena.reward.calls <= limit
    unseen = make_arena(judged=False, decoys=True, n=16, seed=5)
    return mean_return(unseen, agent.refine(unseen))


@pytest.mark.parametrize(
    ("kind", "limit", "share"),
    [
        ("lexicon", 800, 0.85),
        ("leave-one-out", 800, 0.9),
        ("actor-critic", 800, 0.8),
        ("sparsemax", 800, 0.8),
        ("surrogate", 800, 0.8),
        ("reinforce", 2500, 0.6),
    ],
)
def test_it_learns_what_to_delete_from_prompts_never_seen(kind: str, limit: int, share: float) -> None:
    reached = _reached(kind, limit)
    assert reached >= share * BEST, reached / BEST


@pytest.mark.parametrize("kind", ["lexicon", "leave-one-out", "actor-critic", "sparsemax", "surrogate", "reinforce"])
def test_it_does_not_learn_where_each_prompt_gets_anothers_reward(kind: str) -> None:
    reached = _reached(kind, limit=2500 if kind == "reinforce" else 800, reward=ShuffledReward)
    assert reached < (0.5 if kind == "reinforce" else 0.7) * BEST, reached / BEST


@pytest.mark.parametrize("kind", ["lexicon", "surrogate", "reinforce"])
def test_it_refines_before_it_is_fitted_and_the_same_seed_does_the_same(kind: str) -> None:
    unseen = make_arena(judged=False, seed=5)
    untrained = _agent(kind).refine(unseen)
    assert all(len(set(slots)) == 3 for slots in untrained)
    fitted = []
    for _ in range(2):
        agent, arena = _agent(kind), make_arena(100)
        with suppress(BudgetExceededError):
            agent.fit(arena)
        fitted.append(agent.refine(unseen))
    assert fitted[0] == fitted[1]


def test_the_surrogate_finds_the_coefficients_of_a_linear_reward() -> None:
    arena = make_arena(2_000, n=16)
    agent = Surrogate(Surrogate.Config(penalty=1e-3))
    with suppress(BudgetExceededError):
        agent.fit(arena)
    lexicon = agent._lexicon
    values = agent.coefficients()[lexicon.ids(arena.episodes, arena.max_words)].sum(axis=-1)
    marked = np.array(["*" in word for episode in arena.episodes for word in episode.words])
    gap = values.ravel()[marked].mean() - values.ravel()[~marked].mean()
    assert gap == pytest.approx(0.1, rel=0.25)


def test_held_out_episodes_carry_neither_reference_nor_label_and_cannot_be_judged() -> None:
    arena = make_arena(judged=False)
    with pytest.raises(RuntimeError, match="held out"):
        _ = arena.reward
    hidden = blind(arena.episodes)
    assert {(e.reference, e.label) for e in hidden} == {("", "")}
    assert [e.words for e in hidden] == [e.words for e in arena.episodes]
    assert CHANCE < BEST
