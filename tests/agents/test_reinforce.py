from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from agents.policy import PolicyConfig, WordPolicy
from agents.reinforce import Reinforce, ReinforceConfig
from agents.rollout import Rollout, play
from pmlm_env import PMLMVectorEnv
from pmlm_env.reward import Outcome
from tests.standins import HashEncoder, MarkedWordsReward, make_episodes

N_EDITS, BEST = 3, 0.3


def _trainer(config: ReinforceConfig, seed: int = 0, dropout: float = 0.0, n: int = 16, **task: Any) -> Reinforce:
    episodes = task.pop("episodes", None) or make_episodes(n, n_words=12, n_marked=N_EDITS)
    task = {"reward": MarkedWordsReward(episodes), "n_edits": N_EDITS, **task}
    env = PMLMVectorEnv(
        config.patients * config.rollouts, autoreset_mode="Disabled", array_type="torch",
        episodes=episodes, encoder=HashEncoder(), **task,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        policy = WordPolicy(PolicyConfig(HashEncoder.hidden_size, dropout=dropout))
    return Reinforce(policy, env, config, seed)


def _final_return(trainer: Reinforce) -> float:
    """Mean return of sampled play over the last tenth of the updates."""
    returns = [update.deltas.mean() for update in trainer.updates()]
    return float(np.mean(returns[-len(returns) // 10 :]))


TOY = ReinforceConfig(updates=60, patients=8, rollouts=4, learning_rate=3e-3, entropy=0.0)


def test_it_learns_to_delete_the_marked_words() -> None:
    assert _final_return(_trainer(TOY)) >= 0.95 * BEST


def test_reinforce_as_published_learns_it_too() -> None:
    config = ReinforceConfig(
        updates=150, patients=16, rollouts=1, baseline="none", learning_rate=3e-3, entropy=0.0, scale_advantages=False
    )
    assert _final_return(_trainer(config)) >= 0.7 * BEST


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

    def shuffled(rollout: Rollout) -> torch.Tensor:
        advantages = honest(rollout)
        return advantages[torch.randperm(len(advantages), generator=rng)]

    trainer.advantages = shuffled  # type: ignore[method-assign]
    assert _final_return(trainer) < 0.6 * BEST


def test_greedy_play_of_a_trained_policy_carries_over_to_prompts_never_seen() -> None:
    trainer = _trainer(TOY)
    list(trainer.updates())
    unseen = make_episodes(10, n_words=12, n_marked=N_EDITS, seed=99)
    env = PMLMVectorEnv(
        10, autoreset_mode="Disabled", array_type="torch",
        episodes=unseen, encoder=HashEncoder(), reward=MarkedWordsReward(unseen), n_edits=N_EDITS,
    )  # fmt: skip
    with torch.no_grad():
        rollout = play(env, trainer.policy.eval(), range(10), None)
    assert rollout.rewards.mean() >= 0.8 * BEST


def test_the_log_probability_is_that_of_what_was_drawn_dropout_included(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = _trainer(ReinforceConfig(updates=1, patients=4, rollouts=2), dropout=0.4)
    seen = []
    forward = WordPolicy.forward

    def spy(self: WordPolicy, observation: Any) -> Any:
        seen.append(forward(self, observation))
        return seen[-1]

    monkeypatch.setattr(WordPolicy, "forward", spy)
    rollout = play(trainer.env, trainer.policy.train(), [0, 0, 1, 1, 2, 2, 3, 3], trainer.actions_rng)
    deleted = torch.tensor([info["deleted"] for info in rollout.infos])
    expected = sum(seen[t].log_probs.gather(1, deleted[:, t : t + 1])[:, 0] for t in range(N_EDITS))
    torch.testing.assert_close(rollout.log_probs, expected)
    # and dropout was at work: recomputing would give something else
    again = forward(trainer.policy, trainer.env.reset(options={"episode": np.repeat(range(4), 2)})[0])
    assert not torch.allclose(again.log_probs, seen[0].log_probs)


def test_leave_one_out_advantages_of_a_worked_example() -> None:
    config = ReinforceConfig(updates=1, patients=2, rollouts=3, scale_advantages=False)
    trainer = _trainer(config)
    rewards = torch.tensor([1.0, 2.0, 6.0, 5.0, 0.0, 7.0])
    valid = torch.tensor([True, True, True, True, False, True])
    rollout = Rollout(rewards, valid, [], torch.zeros(6), torch.zeros(6), 0)
    # 1 - (2+6)/2, 2 - (1+6)/2, 6 - (1+2)/2; then 5 - 7, nothing for the failed one, 7 - 5
    assert trainer.advantages(rollout).tolist() == [-3.0, -1.5, 4.5, -2.0, 0.0, 2.0]


class _FailingReward(MarkedWordsReward):
    def __call__(self, indices, prompts):  # type: ignore[no-untyped-def]
        return [Outcome(prompt, error="down") for prompt in prompts]


def test_episodes_that_failed_teach_nothing() -> None:
    episodes = make_episodes(4)
    config = ReinforceConfig(updates=1, patients=2, rollouts=2, entropy=0.0)
    trainer = _trainer(config, episodes=episodes, reward=_FailingReward(episodes))
    before = [parameter.clone() for parameter in trainer.policy.parameters()]
    update = trainer.update()
    assert update.failed == 4
    assert len(update.deltas) == 0
    for old, new in zip(before, trainer.policy.parameters(), strict=True):
        torch.testing.assert_close(old, new, atol=0, rtol=0)


def test_the_same_seed_gives_the_same_run_whatever_the_global_generators_hold() -> None:
    runs = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        np.random.seed(noise)
        trainer = _trainer(ReinforceConfig(updates=3, patients=4, rollouts=2), seed=5, dropout=0.4)
        state = torch.get_rng_state()
        runs.append([update.deltas.tolist() for update in trainer.updates()])
        assert torch.equal(state, torch.get_rng_state())
    assert runs[0] == runs[1]


def test_everybody_comes_once_before_anybody_comes_twice() -> None:
    trainer = _trainer(ReinforceConfig(updates=1, patients=4, rollouts=2), n=6)
    drawn = np.concatenate([trainer._next_patients() for _ in range(3)])
    assert sorted(drawn[:6]) == list(range(6))
    assert sorted(drawn[6:]) == list(range(6))


def test_prompts_that_run_out_of_words_end_early_and_count() -> None:
    episodes = make_episodes(4, n_words=2, n_marked=1)
    trainer = _trainer(ReinforceConfig(updates=1, patients=2, rollouts=2), episodes=episodes, n_edits=10)
    rollout = play(trainer.env, trainer.policy, [0, 1, 2, 3], trainer.actions_rng)
    assert rollout.valid.all()
    assert [len(info["deleted"]) for info in rollout.infos] == [2] * 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rollouts": 1}, "leave-one-out"),
        ({"updates": 0}, "must be 1 or more"),
        ({"baseline": "critic"}, "baseline is 'critic'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReinforceConfig(**wrong)
