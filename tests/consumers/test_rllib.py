"""RLlib's masked PPO takes the envs through ``RLlibObservation``.

RLlib pins gymnasium 1.2.2, so this runs in an environment of its own: ``make test-oldest``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import gymnasium as gym
import pytest

import pmlm_env  # noqa: F401  registers the envs
from pmlm_env.envs.wrappers import RLlibObservation

ray = pytest.importorskip("ray")
pytest.importorskip("ray.rllib.algorithms.ppo", reason="RLlib needs an environment of its own: make test-oldest")

from ray.rllib.algorithms.ppo import PPO, PPOConfig  # noqa: E402
from ray.rllib.core.rl_module.rl_module import RLModuleSpec  # noqa: E402
from ray.rllib.examples.rl_modules.classes.action_masking_rlm import ActionMaskingTorchRLModule  # noqa: E402
from ray.tune.registry import register_env  # noqa: E402

#: Of a prompt's 34 to 49 words: without a mask hardly an episode would be without an invalid action.
_N_EDITS = 20
_BATCH = 200


class _Watch(gym.Wrapper):
    """Keeps every step's info; the env runs in this process, so the test can see them."""

    infos: ClassVar[list[dict[str, Any]]] = []

    def step(self, action: Any) -> Any:
        result = self.env.step(action)
        self.infos.append(result[4])
        return result

    @classmethod
    def n_invalid(cls) -> int:
        return sum(info["invalid_action"] for info in cls.infos)


def _make_env(config: dict[str, Any]) -> gym.Env:
    return RLlibObservation(_Watch(gym.make("PMLMLite-v0", n_edits=_N_EDITS, **config)))


@pytest.fixture(scope="module", autouse=True)
def _ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    logs = str(tmp_path_factory.mktemp("rllib"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", logs)  # else ~/ray_results
        ray.init(include_dashboard=False, num_cpus=1, log_to_driver=False, object_store_memory=100 * 2**20)
        register_env("masked-lite", _make_env)
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def ppo() -> Iterator[PPO]:
    config = (
        PPOConfig()
        .environment("masked-lite", env_config={"protect": ["instruction"]})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2)
        .learners(num_learners=0)
        .training(train_batch_size_per_learner=_BATCH, minibatch_size=100, num_epochs=2)
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=ActionMaskingTorchRLModule, model_config={"fcnet_hiddens": [32], "vf_share_layers": True}
            )
        )
        .debugging(seed=0)
    )
    algorithm = config.build_algo()
    yield algorithm
    algorithm.stop()


@pytest.fixture(autouse=True)
def _nothing_seen_yet() -> None:
    _Watch.infos.clear()


def test_an_iteration_of_masked_ppo_finishes_episodes_and_makes_no_invalid_action(ppo: PPO) -> None:
    before = {name: weight.copy() for name, weight in ppo.get_module().get_state(inference_only=True).items()}
    result = ppo.train()
    runners, learner = result["env_runners"], result["learners"]["default_policy"]
    assert runners["num_episodes"] >= 8
    assert runners["episode_len_mean"] == _N_EDITS
    assert math.isfinite(runners["episode_return_mean"])
    assert math.isfinite(learner["total_loss"])
    assert math.isfinite(learner["entropy"])
    after = ppo.get_module().get_state(inference_only=True)
    assert any((after[name] != weight).any() for name, weight in before.items())
    assert len(_Watch.infos) >= _BATCH
    assert _Watch.n_invalid() == 0


def test_its_greedy_actions_are_masked_too_and_random_ones_are_not(ppo: PPO) -> None:
    runner = ppo.env_runner
    assert runner is not None
    episodes = runner.sample(num_episodes=2, explore=False)
    assert len(episodes) == 2
    assert len(_Watch.infos) >= 2 * _N_EDITS
    assert _Watch.n_invalid() == 0
    runner.sample(num_episodes=2, random_actions=True)
    assert _Watch.n_invalid() > 0
