from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from agents.policies.rollout import Rollout, play
from agents.policies.word_policy import PolicyConfig, WordPolicy
from agents.policy_gradient.config import ReinforceConfig
from agents.policy_gradient.reinforce import Reinforce
from pmlm_env import PMLMVectorEnv
from pmlm_env.core.outcomes import Outcomes
from pmlm_env.device import seeded
from tests.standins import HashEncoder, MarkedWordsReward, make_episodes, make_task

pytestmark = pytest.mark.once

N_EDITS, BEST = 3, 0.3


def _trainer(config: ReinforceConfig, seed: int = 0, dropout: float = 0.0, n: int = 16, **task: Any) -> Reinforce:
    episodes = task.pop("episodes", None) or make_episodes(n, n_words=12, n_marked=N_EDITS)
    task = {"n_edits": N_EDITS, **task}
    env = PMLMVectorEnv(
        config.patients * config.rollouts, autoreset_mode="Disabled", array_type="torch",
        task=make_task(episodes, **task),
    )  # fmt: skip
    with seeded(seed):
        policy = WordPolicy(PolicyConfig(HashEncoder.hidden_size, dropout=dropout))
    return Reinforce(policy, env, config, seed)


def _final_return(trainer: Reinforce, updates: int = 60) -> float:
    """Mean return of sampled play over the last tenth of the updates."""
    returns = [trainer.update().deltas.mean() for _ in range(updates)]
    return float(np.mean(returns[-len(returns) // 10 :]))


TOY = ReinforceConfig(patients=8, rollouts=4, learning_rate=3e-3, entropy=0.0, epochs=1)


def test_it_learns_to_delete_the_marked_words() -> None:
    assert _final_return(_trainer(TOY)) >= 0.95 * BEST


def test_reinforce_as_published_learns_it_too() -> None:
    config = ReinforceConfig(
        patients=16, rollouts=1, baseline="none", learning_rate=3e-3, entropy=0.0, epochs=1,
        scale_advantages=False,
    )  # fmt: skip
    chance = 0.1 * N_EDITS * N_EDITS / 12
    assert _final_return(_trainer(config), 150) >= 2 * chance


@pytest.mark.parametrize("masked", [True, False])
def test_it_takes_the_mask_to_tell_words_that_may_go_from_words_that_may_not(masked: bool) -> None:
    """Three marked words may go and three are protected: to the eye they are alike."""
    episodes = make_episodes(16, n_words=12, n_marked=N_EDITS, decoys=True)
    trainer = _trainer(replace(TOY, masked=masked), episodes=episodes, protect=("peer", "instruction"))
    reached = _final_return(trainer)
    assert reached >= 0.95 * BEST if masked else reached < 0.9 * BEST


def test_with_shuffled_advantages_it_does_not_learn_it() -> None:
    trainer = _trainer(TOY)
    honest, rng = trainer.advantages, torch.Generator().manual_seed(0)

    def shuffled(rollout: Rollout, values: torch.Tensor | None) -> torch.Tensor:
        advantages = honest(rollout, values)
        return advantages[torch.randperm(len(advantages), generator=rng)]

    trainer.advantages = shuffled  # type: ignore[method-assign]
    assert _final_return(trainer) < 0.6 * BEST


def test_greedy_play_of_a_trained_policy_carries_over_to_prompts_never_seen() -> None:
    trainer = _trainer(TOY)
    for _ in range(60):
        trainer.update()
    unseen = make_episodes(10, n_words=12, n_marked=N_EDITS, seed=99)
    task = make_task(unseen, n_edits=N_EDITS)
    env = PMLMVectorEnv(10, autoreset_mode="Disabled", array_type="torch", task=task)
    rollout = play(env, trainer.policy.eval(), range(10), None)
    assert rollout.rewards.mean() >= 0.8 * BEST


def _after_play(epochs: int, dropout: float) -> tuple[Reinforce, Rollout, Any]:
    config = ReinforceConfig(patients=4, rollouts=2, epochs=epochs)
    trainer = _trainer(config, dropout=dropout)
    kept: dict[str, Any] = {}
    honest = trainer.loss

    def spy(rollout: Rollout, advantages: torch.Tensor, weight: torch.Tensor) -> Any:
        kept.update(rollout=rollout, advantages=advantages, weight=weight)
        ratios = [
            (trainer.policy(step.observation).log_prob(step.slots) - step.log_probs).detach() for step in rollout.steps
        ]
        kept.setdefault("ratios", []).append(torch.stack(ratios))
        torch.manual_seed(kept.setdefault("seed", torch.initial_seed()))
        return honest(rollout, advantages, weight)

    trainer.loss = spy  # type: ignore[method-assign]
    trainer.update()
    return trainer, kept["rollout"], kept["ratios"]


def test_the_log_probability_in_the_loss_is_that_of_the_draw_dropout_included() -> None:
    trainer, rollout, ratios = _after_play(epochs=1, dropout=0.4)
    assert ratios[0].abs().max() == 0.0
    # dropout was active: another dropout mask gives different log-probabilities
    step = rollout.steps[0]
    assert not torch.allclose(trainer.policy.train()(step.observation).log_prob(step.slots), step.log_probs)


def test_the_first_gradient_is_eq_11s_and_clipping_holds_the_later_ones_back() -> None:
    config = ReinforceConfig(patients=4, rollouts=2, epochs=3, clip_ratio=0.1)
    trainer = _trainer(config)
    rollout = play(trainer.env, trainer.policy.train(), [0, 0, 1, 1, 2, 2, 3, 3], trainer.actions_rng)
    advantages, weight = torch.linspace(-1, 1, 8), torch.full((8,), 1 / 8)
    trainer.loss(rollout, advantages, weight)[0].backward()
    ours = [parameter.grad.clone() for parameter in trainer.policy.parameters()]  # type: ignore[union-attr]
    trainer.policy.zero_grad()
    summed = sum(trainer.policy(step.observation).log_prob(step.slots) for step in rollout.steps)
    (-(summed * advantages).mean()).backward()
    for mine, parameter in zip(ours, trainer.policy.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad)
    # an episode far beyond the clip range, in the direction of its advantage, contributes no gradient
    shifted = [replace(step, log_probs=step.log_probs - 1.0) for step in rollout.steps]
    trainer.policy.zero_grad()
    trainer.loss(replace(rollout, steps=shifted), torch.ones(8), weight)[0].backward()
    assert all(not parameter.grad.any() for parameter in trainer.policy.parameters())  # type: ignore[union-attr]


def test_leave_one_out_advantages_of_a_worked_example() -> None:
    config = ReinforceConfig(patients=2, rollouts=3, scale_advantages=False)
    trainer = _trainer(config)
    rewards = torch.tensor([1.0, 2.0, 6.0, 5.0, 0.0, 7.0])
    valid = torch.tensor([True, True, True, True, False, True])
    rollout = Rollout(rewards, valid, [], [], 0)
    # 1 - (2+6)/2, 2 - (1+6)/2, 6 - (1+2)/2; then 5 - 7, 0 for the failed rollout, 7 - 5
    assert trainer.advantages(rollout).tolist() == [-3.0, -1.5, 4.5, -2.0, 0.0, 2.0]


class _FailingReward(MarkedWordsReward):
    def __call__(self, indices, prompts):  # type: ignore[no-untyped-def]
        return Outcomes.of_failures(["down"] * len(prompts))


def test_episodes_that_failed_teach_nothing() -> None:
    episodes = make_episodes(4)
    config = ReinforceConfig(patients=2, rollouts=2, entropy=0.0)
    trainer = _trainer(config, episodes=episodes, reward=_FailingReward(episodes))
    before = [parameter.clone() for parameter in trainer.policy.parameters()]
    update = trainer.update()
    assert update.failed == 4
    assert len(update.deltas) == 0
    trainer.env.task.reward = MarkedWordsReward(episodes)
    trainer.update()
    before = [parameter.clone() for parameter in trainer.policy.parameters()]
    trainer.env.task.reward = _FailingReward(episodes)
    trainer.update()  # Adam's momentum must not change the parameters either
    for old, new in zip(before, trainer.policy.parameters(), strict=True):
        torch.testing.assert_close(old, new, atol=0, rtol=0)


def test_the_same_seed_gives_the_same_run_whatever_the_global_generators_hold() -> None:
    runs = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        np.random.seed(noise)
        trainer = _trainer(ReinforceConfig(patients=4, rollouts=2), seed=5, dropout=0.4)
        state = torch.get_rng_state()
        runs.append([trainer.update().deltas.tolist() for _ in range(3)])
        assert torch.equal(state, torch.get_rng_state())
    assert runs[0] == runs[1]


def test_all_patients_are_drawn_once_before_any_is_drawn_twice() -> None:
    trainer = _trainer(ReinforceConfig(patients=4, rollouts=2), n=6)
    drawn = np.concatenate([trainer._next_patients() for _ in range(3)])
    assert sorted(drawn[:6]) == list(range(6))
    assert sorted(drawn[6:]) == list(range(6))


def test_prompts_that_run_out_of_words_end_early_and_count() -> None:
    episodes = make_episodes(4, n_words=2, n_marked=1)
    trainer = _trainer(ReinforceConfig(patients=2, rollouts=2), episodes=episodes, n_edits=10)
    rollout = play(trainer.env, trainer.policy, [0, 1, 2, 3], trainer.actions_rng)
    assert rollout.valid.all()
    assert [len(info["edits"]) for info in rollout.infos] == [2] * 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rollouts": 1}, "leave-one-out"),
        ({"epochs": 0}, "must be 1 or more"),
        ({"baseline": "median"}, "baseline is 'median'"),
        ({"learning_rate": -0.1}, "learning_rate is -0.1: use a number above 0"),
        ({"clip_norm": -1.0}, "clip_norm is -1.0: use a number above 0"),
        ({"clip_ratio": float("nan")}, "clip_ratio is nan: use a number above 0"),
        ({"entropy": -0.5}, "entropy is -0.5: use a number of 0 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReinforceConfig(**wrong)
