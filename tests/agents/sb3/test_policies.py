from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.torch_layers import CombinedExtractor

from agents.sb3 import MaskableWordActorCriticPolicy, PMLMVecEnv, WordActorCriticPolicy, WordDQNPolicy
from pmlm_env import PMLMLiteVectorEnv


def _env(n: int = 4, **more: Any) -> PMLMVecEnv:
    env = PMLMVecEnv(PMLMLiteVectorEnv(n, **more))
    env.seed(0)
    return env


def _policy(kind: type, env: PMLMVecEnv, **more: Any) -> Any:
    """A policy with weights of about unit size, so that words differ."""
    torch.manual_seed(0)
    policy = kind(env.observation_space, env.action_space, lambda _: 1e-3, **more)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return policy


def _seen(env: PMLMVecEnv) -> dict[str, torch.Tensor]:
    env.reset()
    observation = env.step(np.arange(env.num_envs))[0]
    return {key: torch.from_numpy(value) for key, value in observation.items()}


def _scores(policy: Any, seen: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A logit or Q-value for each word, and the value of the prompt."""
    with torch.no_grad():
        if isinstance(policy, WordDQNPolicy):
            return policy.q_net(seen), None
        features = policy.extract_features(seen)
        logits = policy.action_net(policy.mlp_extractor.forward_actor(features))
        return logits, policy.predict_values(seen)


@pytest.mark.parametrize("arch", [{}, {"net_arch": [24, 8]}])
@pytest.mark.parametrize("kind", [WordActorCriticPolicy, MaskableWordActorCriticPolicy, WordDQNPolicy])
def test_words_in_another_order_get_the_same_scores_in_that_order(kind: type, arch: dict[str, Any]) -> None:
    env = _env()
    policy, seen = _policy(kind, env, **arch), _seen(env)
    order = torch.randperm(env.action_space.n, generator=torch.Generator().manual_seed(1))
    turned = {key: value if key == "patient" else value[:, order] for key, value in seen.items()}
    (scores, value), (turned_scores, turned_value) = _scores(policy, seen), _scores(policy, turned)
    assert scores.std(dim=1).min() > 0.01
    torch.testing.assert_close(turned_scores, scores[:, order], rtol=1e-4, atol=1e-5)
    if value is not None:
        assert value.std() > 1e-4
        torch.testing.assert_close(turned_value, value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [WordActorCriticPolicy, MaskableWordActorCriticPolicy, WordDQNPolicy])
def test_empty_slots_change_nothing(kind: type) -> None:
    env, wide_env = _env(), _env(max_words=70)
    policy, wide_policy = _policy(kind, env), _policy(kind, wide_env)
    wide_policy.load_state_dict(policy.state_dict())  # works because no weight depends on the number of slots
    (scores, value), (wide_scores, wide_value) = _scores(policy, _seen(env)), _scores(wide_policy, _seen(wide_env))
    torch.testing.assert_close(wide_scores[:, :49], scores, rtol=1e-4, atol=1e-5)
    assert (wide_scores[:, 49:] == wide_scores[0, -1]).all()
    if value is not None:
        torch.testing.assert_close(wide_value, value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [WordActorCriticPolicy, MaskableWordActorCriticPolicy, WordDQNPolicy])
def test_the_optimizer_holds_what_acts_and_nothing_else(kind: type) -> None:
    policy = kind(_env().observation_space, _env().action_space, lambda _: 1e-3)
    acting = policy.q_net if kind is WordDQNPolicy else policy
    held = {id(parameter) for group in policy.optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in acting.parameters()}
    assert sum(parameter.numel() for parameter in acting.parameters()) < 70_000  # a flat head alone: 154,000


def test_a_target_network_is_a_copy_with_a_features_extractor_of_its_own() -> None:
    env = _env()
    policy = WordDQNPolicy(env.observation_space, env.action_space, lambda _: 1e-3)
    seen = _seen(env)
    torch.testing.assert_close(policy.q_net(seen), policy.q_net_target(seen), rtol=0, atol=0)
    assert policy.q_net.features_extractor is not policy.q_net_target.features_extractor


@pytest.mark.parametrize("kind", [WordActorCriticPolicy, MaskableWordActorCriticPolicy])
def test_play_begins_close_to_uniform(kind: type) -> None:
    env = _env()
    policy = kind(env.observation_space, env.action_space, lambda _: 1e-3)
    logits, _ = _scores(policy, _seen(env))
    assert (logits.amax(dim=1) - logits.amin(dim=1)).max() < 0.2


@pytest.mark.parametrize("kind", [WordActorCriticPolicy, MaskableWordActorCriticPolicy, WordDQNPolicy])
def test_features_of_another_shape_are_refused(kind: type) -> None:
    env = _env()
    with pytest.raises(ValueError, match="features_extractor_class is CombinedExtractor: it must be WordFeatures"):
        kind(env.observation_space, env.action_space, lambda _: 1e-3, features_extractor_class=CombinedExtractor)


@pytest.mark.parametrize("observation", ["embeddings", "index"])
@pytest.mark.parametrize(
    ("algorithm", "kind"), [(PPO, WordActorCriticPolicy), (MaskablePPO, MaskableWordActorCriticPolicy)]
)
def test_log_probabilities_from_the_buffer_are_those_that_were_sampled(
    algorithm: type, kind: type, observation: str
) -> None:
    env = _env(observation=observation, n_edits=3)
    settings = {"features_extractor_kwargs": {"task": env.env.task}}
    model = algorithm(kind, env, n_steps=8, batch_size=32, n_epochs=1, policy_kwargs=settings, device="cpu", seed=0)
    model.learn(32)
    model.train = lambda: None  # keeps the second rollout for inspection
    model.learn(32)
    seen = 0
    for batch in model.rollout_buffer.get(16):
        masks = {"action_masks": batch.action_masks} if algorithm is MaskablePPO else {}
        values, log_prob, _ = model.policy.evaluate_actions(batch.observations, batch.actions.long().flatten(), **masks)
        torch.testing.assert_close(log_prob, batch.old_log_prob)
        torch.testing.assert_close(values.flatten(), batch.old_values)
        seen += len(log_prob)
    assert seen == 32


@pytest.mark.parametrize(
    ("algorithm", "kind", "options"),
    [
        (MaskablePPO, MaskableWordActorCriticPolicy, {"n_steps": 8, "batch_size": 16}),
        (A2C, WordActorCriticPolicy, {"n_steps": 8}),
        (DQN, WordDQNPolicy, {"buffer_size": 200, "learning_starts": 8, "target_update_interval": 8}),
    ],
)
def test_both_forms_of_observation_teach_the_same(algorithm: type, kind: type, options: dict[str, Any]) -> None:
    weights = []
    for observation in ("embeddings", "index"):
        env = _env(observation=observation, n_edits=3)
        settings = {"features_extractor_kwargs": {"task": env.env.task}}
        model = algorithm(kind, env, policy_kwargs=settings, device="cpu", seed=0, **options)
        before = model.policy.parameters_to_vector()
        model.learn(96)
        weights.append(model.policy.parameters_to_vector())
        assert not np.allclose(before, weights[-1])
    np.testing.assert_array_equal(*weights)


def test_without_shared_features_actor_and_critic_have_their_own() -> None:
    env = _env()
    policy = MaskableWordActorCriticPolicy(
        env.observation_space, env.action_space, lambda _: 1e-3, share_features_extractor=False
    )
    actions, values, log_prob = policy(_seen(env), action_masks=env.env.action_masks())
    assert actions.shape == log_prob.shape == (4,)
    assert values.shape == (4, 1)
    assert policy.pi_features_extractor is not policy.vf_features_extractor
