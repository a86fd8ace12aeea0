"""Learning values. Random play brings .075, or .15 with decoys, the best deletions .3; in brackets, three seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from agents.base import Deletions
from agents.policies.word_policy import MaskedCategorical
from agents.q_learning.agent import QAgent, QConfig
from agents.q_learning.replay import Replay
from pmlm_env.llm import BudgetExceededError
from tests.arenas import BEST, N_EDITS, ShuffledReward, make_arena, mean_return

pytestmark = pytest.mark.once

KINDS = ["dqn", "soft"]


def _settings(kind: Any, **more: Any) -> QConfig:
    few = {"hidden": 32, "learning_rate": 3e-3, "n_step": N_EDITS, "gradient_steps": 4, "batch_size": 24}
    return QConfig.of(kind, **{**few, "episodes": 300, **more})


def _learned(config: QConfig, seed: int = 0, reward: Callable[..., Any] | None = None, *, decoys: bool = True) -> float:
    """Mean return on prompts never seen."""
    agent = QAgent(config, seed)
    agent.fit(make_arena(n=16, reward=reward, decoys=decoys))
    unseen = make_arena(n=16, seed=99, judged=False, decoys=decoys)
    return mean_return(unseen, agent.refine(unseen))


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_which_words_to_delete(kind: str) -> None:
    assert _learned(_settings(kind)) >= 0.8 * BEST  # (.90 to .98 of it)


@pytest.mark.parametrize("kind", KINDS)
def test_it_takes_the_mask_to_tell_words_that_may_go_from_words_that_may_not(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unmasked(scores: torch.Tensor, legal: torch.Tensor) -> MaskedCategorical:
        return MaskedCategorical(scores, torch.ones_like(legal))

    monkeypatch.setattr("agents.q_learning.agent.MaskedCategorical", unmasked)
    assert _learned(_settings(kind)) < 0.7 * BEST  # (.35 to .50)


@pytest.mark.parametrize("kind", KINDS)
def test_from_rewards_of_other_prompts_it_learns_nothing(kind: str) -> None:
    assert _learned(_settings(kind), reward=ShuffledReward, decoys=False) < 0.7 * BEST  # (.06 to .52)


def test_one_step_targets_with_masked_double_q_learn_it_too() -> None:
    assert _learned(_settings("dqn", n_step=1, target_rate=0.1)) >= 0.8 * BEST  # (.88 to .90)


@pytest.mark.parametrize("kind", KINDS)
def test_it_stops_at_the_budget_and_can_refine_before_and_after(kind: str) -> None:
    arena, blind = make_arena(limit=50, n=16), make_arena(judged=False)
    agent = QAgent(_settings(kind))
    before = agent.refine(blind)
    with pytest.raises(BudgetExceededError):
        agent.fit(arena)
    assert 50 - 2 * agent.config.rows < arena.reward.calls <= 50
    after = agent.refine(blind)
    assert after != before
    for deletions in (before, after):
        assert [len(set(slots)) for slots in deletions] == [N_EDITS] * len(blind.episodes)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_deletions_whatever_the_global_generators_hold(kind: str) -> None:
    runs: list[Deletions] = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        np.random.seed(noise)
        agent = QAgent(_settings(kind, episodes=40), seed=3)
        agent.fit(make_arena())
        runs.append(agent.refine(make_arena(judged=False)))
    assert runs[0] == runs[1]


def test_the_replay_shows_what_the_env_showed() -> None:
    arena = make_arena(decoys=True)
    env = arena.env(2)
    replay = Replay(env.task)
    seen = [env.reset(options={"episode": np.array([1, 4])})[0]]
    slots = []
    for _ in range(N_EDITS):
        slots.append(seen[-1]["action_mask"].argmax(dim=1).numpy())
        seen.append(env.step(slots[-1])[0])
    for row, episode in enumerate((1, 4)):
        replay.add(episode, tuple(int(step[row]) for step in slots), 0.5)
    for t in range(N_EDITS):
        again = replay.observe(np.array([0, 1]), np.array([t, t]))
        assert all(torch.equal(again[key], seen[t][key]) for key in seen[t])
        assert replay.slots(np.array([0, 1]), np.array([t, t])).tolist() == slots[t].tolist()


def test_a_reward_counts_in_standard_deviations_from_the_same_patients_mean() -> None:
    replay = Replay(make_arena().env(1).task)
    for episode, reward in [(0, 1.0), (0, 3.0), (1, 7.0), (2, 5.0), (2, 5.0)]:
        replay.add(episode, (0,), reward)
    assert replay.returns(np.arange(5)).tolist() == [-1.0, 1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"kind": "hard"}, "kind is 'hard'"), ({"rows": 6}, "multiple of rollouts"), ({"n_step": 0}, "must be 1 or more")],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QConfig(**wrong)
