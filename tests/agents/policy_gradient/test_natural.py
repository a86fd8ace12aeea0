from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from agents.policies.lexicon import Lexicon
from agents.policies.rollout import Rollout, play
from agents.policies.word_policy import PolicyConfig, WordPolicy
from agents.policy_gradient.config import NaturalConfig, ReinforceConfig
from agents.policy_gradient.natural import NaturalGradient
from agents.policy_gradient.reinforce import Reinforce
from pmlm_env.device import seeded
from tests.problems import BEST, ShuffledReward, make_problem
from tests.standins import HashEncoder

pytestmark = pytest.mark.once

TOY = ReinforceConfig(patients=8, rollouts=4)


def _policy(hidden: int = 0, distribution: str = "softmax", dropout: float = 0.0) -> WordPolicy:
    shape = PolicyConfig(HashEncoder.hidden_size, hidden=hidden, dropout=dropout, distribution=distribution)  # type: ignore[arg-type]
    with seeded(0):
        return WordPolicy(shape, Lexicon.of(make_problem(n=16).episodes, at_least=1))


def _trainer(
    config: ReinforceConfig = TOY, policy: WordPolicy | None = None, seed: int = 0, reward: Any = None
) -> Reinforce:
    policy = policy or _policy()
    rows = (config.patients or 16) * config.rollouts
    env = make_problem(10_000, n=16, reward=reward).env(rows, observation=policy.observation)
    return Reinforce(policy, env, config, seed)


def _last_returns(trainer: Reinforce) -> float:
    return float(np.mean([trainer.update().deltas.mean() for _ in range(40)][-3:]))


@pytest.mark.parametrize("distribution", ["softmax", "sparsemax"])
@pytest.mark.parametrize("hidden", [0, 8])
def test_an_episodes_score_is_the_gradient_of_its_log_probability(hidden: int, distribution: str) -> None:
    policy = _policy(hidden, distribution)
    problem = make_problem()
    generator = torch.Generator().manual_seed(3)
    torch.nn.init.normal_(policy.table.weight, std=0.1, generator=generator)
    with torch.no_grad():
        policy.table.weight[0] = 0
    rollout = play(problem.env(6, observation=policy.observation), policy.eval(), range(6), generator)
    scores = NaturalGradient(policy, NaturalConfig()).scores(rollout)
    policy.table.weight.requires_grad_(True)
    total = sum(policy(step.observation).log_prob(step.slots) for step in rollout.steps)
    for row in range(6):
        (slopes,) = torch.autograd.grad(total[row], policy.table.weight, retain_graph=True)
        torch.testing.assert_close(scores[row].float(), slopes[:, 0], atol=1e-4, rtol=1e-4)
    assert scores.abs().sum() > 0


def test_a_step_goes_where_ridge_regression_of_advantages_on_scores_points() -> None:
    policy, rng = _policy(), np.random.default_rng(0)
    size = len(policy.lexicon)
    config = NaturalConfig(step=0.7, penalty=2.0, memory=2, fade=0.5)
    natural = NaturalGradient(policy, config)
    batches = [(rng.normal(size=(n, size)), rng.normal(size=n)) for n in (5, 6, 7)]
    for scores, advantages in batches:
        before = policy.table.weight[:, 0].clone()
        natural.step(torch.from_numpy(scores), torch.from_numpy(advantages))
    remembered = batches[1:]  # the first batch is no longer in memory
    scores, advantages = (np.concatenate(part) for part in zip(*remembered, strict=True))
    ridge = Ridge(alpha=2.0 * np.square(scores).sum(axis=1).mean(), fit_intercept=False)
    ridge.fit(scores, advantages / np.sqrt(np.square(advantages).mean()), sample_weight=[0.5] * 6 + [1.0] * 7)
    np.testing.assert_allclose((policy.table.weight[:, 0] - before).numpy(), 0.7 * ridge.coef_, atol=1e-5)


def test_equal_rewards_move_nothing() -> None:
    policy = _policy()
    natural = NaturalGradient(policy, NaturalConfig())
    natural.step(torch.randn(4, len(policy.lexicon), dtype=torch.float64), torch.zeros(4, dtype=torch.float64))
    assert not policy.table.weight.any()


def test_it_learns_to_delete_the_marked_words() -> None:
    assert _last_returns(_trainer()) >= 0.95 * BEST


def test_without_the_mask_it_deletes_words_twice() -> None:
    """Its weights do not know what is gone already: only the mask does."""
    assert _last_returns(_trainer(replace(TOY, masked=False))) < 0.9 * BEST


def test_with_rewards_of_others_it_does_not_learn_it() -> None:
    assert _last_returns(_trainer(reward=ShuffledReward)) < 0.6 * BEST


def test_an_episode_without_reply_has_no_say() -> None:
    rewards = torch.tensor([1.0, 2.0, 9.0, 5.0, 4.0, 3.0, 2.0, 9.0])
    valid = torch.tensor([True, True, False, False, True, True, True, True])
    trainer = _trainer(ReinforceConfig(patients=2, rollouts=4))
    advantages = trainer.comparison(valid) @ rewards.double()
    assert advantages.tolist() == pytest.approx([-1.0, 1.0, 0.0, 0.0, -2 / 3, -2, -10 / 3, 6])
    assert not trainer.comparison(valid)[2:4].any()


def test_network_and_lexicon_learn_side_by_side() -> None:
    trainer = _trainer(policy=_policy(hidden=16))
    before = trainer.policy.word.weight.clone()
    assert _last_returns(trainer) >= 0.9 * BEST
    assert not torch.equal(before, trainer.policy.word.weight)
    assert not any(parameter is trainer.policy.table.weight for parameter in trainer.network)


def test_a_policy_without_a_lexicon_has_no_words_to_move() -> None:
    with pytest.raises(ValueError, match="no lexicon"):
        NaturalGradient(WordPolicy(PolicyConfig(HashEncoder.hidden_size)), NaturalConfig())
    with pytest.raises(ValueError, match="network"):
        WordPolicy(PolicyConfig(HashEncoder.hidden_size, hidden=0))


@pytest.mark.parametrize(
    "changes",
    [
        {"step": 0.0},
        {"step": math.nan},
        {"penalty": -1.0},
        {"penalty": math.inf},
        {"memory": 0},
        {"fade": 0.0},
        {"fade": 1.5},
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        NaturalConfig(**changes)  # type: ignore[arg-type]


def test_the_policy_that_plays_is_the_one_whose_scores_count() -> None:
    """The network's steps come between: scores must be those of the draw."""
    trainer = _trainer(replace(TOY, learning_rate=1.0), policy=_policy(hidden=16, dropout=0.4))
    seen: list[torch.Tensor] = []
    honest = trainer.words.scores

    def spy(rollout: Rollout) -> torch.Tensor:
        drawn = torch.stack([step.log_probs for step in rollout.steps])
        now = torch.stack([trainer.policy(step.observation).log_prob(step.slots) for step in rollout.steps])
        seen.append((drawn - now).detach().abs().max())
        return honest(rollout)

    trainer.words.scores = spy  # type: ignore[method-assign]
    trainer.update()
    assert seen[0].item() == 0.0
