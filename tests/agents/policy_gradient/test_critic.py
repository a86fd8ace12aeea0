from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.policies.rollout import Rollout, Step, play
from agents.policies.word_policy import PolicyConfig, WordPolicy
from agents.policy_gradient.config import ReinforceConfig
from agents.policy_gradient.critic import WordCritic
from agents.policy_gradient.reinforce import Reinforce
from pmlm_env.device import seeded
from tests.problems import make_problem
from tests.standins import HashEncoder

pytestmark = pytest.mark.once


def _policy(seed: int = 0) -> WordPolicy:
    with seeded(seed):
        return WordPolicy(PolicyConfig(HashEncoder.hidden_size, hidden=32))


def _played(policy: WordPolicy, seed: int = 0) -> Rollout:
    problem = make_problem(10_000, n=16)
    return play(problem.env(16), policy, range(16), torch.Generator().manual_seed(seed))


def test_the_value_of_a_state_is_the_mean_of_its_words_under_the_policy() -> None:
    policy = _policy()
    critic = WordCritic(policy, 1e-2, 1)
    torch.nn.init.normal_(critic.network.body[-1].weight, generator=torch.Generator().manual_seed(0))
    rollout = _played(policy)
    values = critic.values(rollout, policy)
    assert values.shape == (3, 16)
    for step, row in zip(rollout.steps, values, strict=True):
        scores = critic.network.scores(step.observation).detach().numpy()
        probs = policy(step.observation).probs.detach().numpy()
        assert row.numpy() == pytest.approx([np.dot(p, q) for p, q in zip(probs, scores, strict=True)], abs=1e-5)


def test_it_learns_what_a_marked_word_is_worth_to_a_random_policy() -> None:
    """Deleting one of three marked words of twelve first: .1 + .1 x 2 x 2/11; another one: .1 x 2 x 3/11."""
    policy = _policy()
    critic = WordCritic(policy, 1e-3, 4)
    for seed in range(80):
        critic.learn(_played(policy, seed))
    step = _played(policy, 99).steps[0]
    said = critic.network.scores(step.observation).detach()[:, :12]
    marked = torch.tensor([["*" in word for word in episode.words] for episode in make_problem(n=16).episodes])
    assert float(said[marked].mean() - said[~marked].mean()) == pytest.approx(0.1 + 0.4 / 11 - 0.6 / 11, rel=0.3)


@pytest.mark.parametrize("failed", [False, True], ids=["rests", "failed"])
def test_a_row_that_rests_or_failed_teaches_nothing(failed: bool) -> None:
    policy = _policy()
    rollout = _played(policy)
    others = torch.arange(16) != 1
    valid = rollout.valid & others if failed else rollout.valid
    losses = []
    for rewards in (rollout.rewards, rollout.rewards + torch.tensor([0.0, 50.0] + [0.0] * 14)):
        critic = WordCritic(policy, 1e-2, 1)
        critic.network.load_state_dict(policy.state_dict())
        step = rollout.steps[0]
        step = Step(step.observation, step.slots, step.log_probs, step.live if failed else step.live & others)
        losses.append(critic.learn(Rollout(rewards, valid, [], [step], 0)))
    assert losses[0] == losses[1]


def test_each_step_has_an_advantage_of_its_own() -> None:
    config = ReinforceConfig(patients=4, rollouts=1, baseline="critic", scale_advantages=False)
    trainer = Reinforce(_policy(), make_problem(10_000).env(4), config, 0)
    rollout = Rollout(torch.tensor([1.0, 2.0, 3.0, 9.0]), torch.tensor([True, True, True, False]), [], [], 0)
    values = torch.tensor([[0.5, 0.5, 0.5, 0.5], [1.0, 2.0, 4.0, 0.0]])
    assert trainer.advantages(rollout, values).tolist() == [[0.5, 1.5, 2.5, 0.0], [0.0, 0.0, -1.0, 0.0]]


def test_steps_after_an_episodes_end_do_not_count_in_the_scale_of_advantages() -> None:
    trainer = Reinforce(_policy(), make_problem(10_000).env(3), ReinforceConfig(3, 1, baseline="critic"), 0)
    lives = torch.tensor([[True, True, True], [True, False, True]])
    steps = [Step({}, torch.zeros(3), torch.zeros(3), live) for live in lives]
    rollout = Rollout(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([True, True, False]), [], steps, 0)
    found = trainer.advantages(rollout, torch.tensor([[0.0, 3.0, 0.0], [-1.0, 77.0, 0.0]]))
    scale = np.sqrt((1**2 + 1**2 + 2**2) / 3)  # of the three steps that were taken by episodes with a reply
    assert found[:, 0].tolist() == pytest.approx([1 / scale, 2 / scale])
    assert found[0, 1].item() == pytest.approx(-1 / scale)
