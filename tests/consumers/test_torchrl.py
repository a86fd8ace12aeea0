"""TorchRL takes the envs as they are: no wrapper of ours, its own transforms where a policy wants another form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import pmlm_env  # noqa: F401  registers the envs

pytest.importorskip("torchrl")

from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModule
from torchrl.envs import (
    ActionMask,
    CatTensors,
    DTypeCastTransform,
    FlattenObservation,
    GymWrapper,
    TransformedEnv,
    check_env_specs,
)
from torchrl.modules import MaskedCategorical, ProbabilisticActor

#: More edits than a prompt has words: the mask is needed at every step, and prompts of different lengths end apart.
_ALL_WORDS = 60


class _Watch(gym.Wrapper):
    """Keeps every step's info."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.infos: list[dict[str, Any]] = []

    def step(self, action: Any) -> Any:
        result = self.env.step(action)
        self.infos.append(result[4])
        return result

    @property
    def n_invalid(self) -> int:
        return sum(info["invalid_action"] for info in self.infos)


def _scalar(transforms: Sequence[Any] = (), **task: Any) -> tuple[TransformedEnv, _Watch]:
    watch = _Watch(gym.make("PMLMLite-v0", **task))
    env = TransformedEnv(GymWrapper(watch, categorical_action_encoding=True))
    for transform in transforms:
        env.append_transform(transform)
    return env, watch


def _vector(mode: str = "Disabled", **task: Any) -> Any:
    env = gym.make_vec("PMLMLite-v0", num_envs=3, autoreset_mode=mode, **task)
    return GymWrapper(env, categorical_action_encoding=True)


def _bool_mask() -> Any:
    return DTypeCastTransform(torch.int8, torch.bool, in_keys=["action_mask"])


@pytest.mark.parametrize("observation", ["embeddings", "index"])
@pytest.mark.parametrize("categorical", [True, False])
def test_its_specs_say_what_the_env_does(observation: str, categorical: bool) -> None:
    env = GymWrapper(gym.make("PMLMLite-v0", observation=observation), categorical_action_encoding=categorical)
    check_env_specs(env, seed=0)
    assert env.action_spec.space.n == env.observation_spec["action_mask"].shape[-1]


@pytest.mark.parametrize("observation", ["embeddings", "index"])
def test_with_its_action_mask_no_random_action_is_invalid(observation: str) -> None:
    torch.manual_seed(0)
    masked, watch = _scalar([ActionMask()], observation=observation, n_edits=_ALL_WORDS)
    check_env_specs(masked, seed=0)
    watch.infos.clear()
    data = masked.rollout(200, break_when_any_done=False)
    assert int(data["next", "done"].sum()) >= 4
    assert len(watch.infos) == 200
    assert watch.n_invalid == 0
    unmasked, watch = _scalar(observation=observation, n_edits=_ALL_WORDS)
    unmasked.rollout(200, break_when_any_done=False)
    assert watch.n_invalid > 20


def test_the_reward_arrives_at_the_last_step_alone() -> None:
    torch.manual_seed(0)
    env, watch = _scalar([ActionMask()])
    data = env.rollout(50, break_when_any_done=False)
    rewards, done = data["next", "reward"].squeeze(-1), data["next", "done"].squeeze(-1)
    assert done.nonzero().squeeze(-1).tolist() == [9, 19, 29, 39, 49]
    assert rewards[~done].tolist() == [0.0] * 45
    ends = [info for info in watch.infos if "score" in info]
    np.testing.assert_allclose(rewards[done], [info["score"] - info["initial_score"] for info in ends], atol=1e-6)
    assert rewards[done].any()
    assert torch.equal(data["next", "terminated"], data["next", "done"])


def _policy(n_words: int, n_inputs: int) -> ProbabilisticTensorDictSequential:
    logits = TensorDictModule(torch.nn.Linear(n_inputs, n_words), in_keys=["observation"], out_keys=["logits"])
    return ProbabilisticActor(
        logits, in_keys={"logits": "logits", "mask": "action_mask"}, distribution_class=MaskedCategorical
    )


def test_a_masked_policy_takes_the_mask_once_it_is_cast_to_bool() -> None:
    torch.manual_seed(0)
    flat = [FlattenObservation(-2, -1, in_keys=["embeddings"]), CatTensors(["embeddings", "patient"], "observation")]
    env, watch = _scalar([*flat, _bool_mask()], n_edits=_ALL_WORDS)
    check_env_specs(env, seed=0)
    watch.infos.clear()
    n_words, n_inputs = env.action_spec.space.n, env.observation_spec["observation"].shape[-1]
    env.rollout(200, _policy(n_words, n_inputs), break_when_any_done=False)
    assert len(watch.infos) == 200
    assert watch.n_invalid == 0


@pytest.mark.parametrize("observation", ["embeddings", "index"])
def test_the_native_vector_env_plays_what_scalar_envs_would(observation: str) -> None:
    torch.manual_seed(0)
    task: dict[str, Any] = {"observation": observation, "n_edits": _ALL_WORDS}
    check_env_specs(_vector(**task), seed=0)
    env = TransformedEnv(_vector(**task), ActionMask())
    env.set_seed(5)
    data = env.rollout(120, break_when_any_done=False)
    assert data["next", "done"].any(1).squeeze(-1).tolist() == [True] * 3
    ends = data["next", "done"].squeeze(-1)
    assert not torch.equal(ends.any(0), ends.all(0)), "rows ended together: the test shows less than it should"
    for row in range(3):
        alone = gym.make("PMLMLite-v0", **task)
        alone.reset(seed=5 + row)  # TorchRL resets once to seed
        seen, _ = alone.reset()
        for step in data[row].unbind(0):
            for key, value in seen.items():
                np.testing.assert_array_equal(step[key], value)
            seen, reward, terminated, _, info = alone.step(step["action"].item())
            assert not info["invalid_action"]
            assert step["next", "reward"].item() == pytest.approx(reward)
            assert step["next", "done"].item() == step["next", "terminated"].item() == terminated
            for key, value in seen.items():
                np.testing.assert_array_equal(step["next", key], value)
            if terminated:
                seen, _ = alone.reset()


def test_it_refuses_the_next_step_mode() -> None:
    with pytest.raises(RuntimeError, match="SAME_STEP or DISABLED"):
        _vector("NextStep")


@pytest.mark.parametrize("how", [{}, {"vectorization_mode": "sync", "vector_kwargs": {"autoreset_mode": "SameStep"}}])
def test_in_the_same_step_mode_it_loses_the_last_observation(how: dict[str, Any]) -> None:
    """TorchRL 0.14 seeks each key in final_info, never in a dict of final_obs, be the vector env Gymnasium's or ours.

    When this fails, pmlm_env/envs/wrappers.py may recommend SAME_STEP.
    """
    torch.manual_seed(0)
    env = GymWrapper(gym.make_vec("PMLMLite-v0", num_envs=2, **how), categorical_action_encoding=True)
    data = env.append_transform(ActionMask()).rollout(10, break_when_any_done=False)
    assert data["next", "done"][:, -1].all()
    assert data["next", "patient"][:, -2].any()
    assert not data["next", "patient"][:, -1].any()
