from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from agents.sb3 import PMLMVecEnv
from pmlm_env import PMLMEnv, PMLMLiteEnv, PMLMLiteVectorEnv, PMLMVectorEnv
from tests.standins import MarkedWordsReward, make_episodes, make_task


class _Moody(MarkedWordsReward):
    """Fails for the patients with an odd number."""

    def __call__(self, indices, prompts):  # type: ignore[no-untyped-def]
        return replace(super().__call__(indices, prompts), errors=["down" if i % 2 else "" for i in indices])


def _lite(observation: str) -> tuple[PMLMVecEnv, DummyVecEnv]:
    options: dict[str, Any] = {"observation": observation, "n_edits": 4, "texts": True}
    return PMLMVecEnv(PMLMLiteVectorEnv(5, **options)), DummyVecEnv([lambda: PMLMLiteEnv(**options)] * 5)


def _moody(observation: str) -> tuple[PMLMVecEnv, DummyVecEnv]:
    episodes = make_episodes()
    task = make_task(episodes, reward=_Moody(episodes), observation=observation, n_edits=3)  # type: ignore[arg-type]
    return PMLMVecEnv(PMLMVectorEnv(5, task=task)), DummyVecEnv([lambda: PMLMEnv(task=task)] * 5)


def _assert_same(ours: Any, theirs: Any, where: str) -> None:
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs), where
        for key in theirs:
            _assert_same(ours[key], theirs[key], f"{where}/{key}")
    elif isinstance(theirs, list):
        for row, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            _assert_same(a, b, f"{where}[{row}]")
    elif isinstance(theirs, np.ndarray):
        assert ours.dtype == theirs.dtype, where
        np.testing.assert_array_equal(ours, theirs, err_msg=where)
    else:
        assert type(ours) is type(theirs), where
        assert ours == theirs, where


@pytest.mark.parametrize("observation", ["embeddings", "index"])
@pytest.mark.parametrize("make", [_lite, _moody])
def test_step_by_step_it_is_a_dummy_vec_env_of_scalar_envs(make: Callable, observation: str) -> None:
    ours, theirs = make(observation)
    assert (ours.num_envs, ours.observation_space, ours.action_space) == (
        5,
        theirs.observation_space,
        theirs.action_space,
    )
    for env in (ours, theirs):
        env.seed(3)
    _assert_same(ours.reset(), theirs.reset(), "reset")
    rng = np.random.default_rng(0)
    n_done = n_truncated = 0
    for step in range(60):
        _assert_same(ours.reset_infos, theirs.reset_infos, f"step {step} reset_infos")
        _assert_same(get_action_masks(ours), get_action_masks(theirs), f"step {step} masks")
        actions = rng.integers(ours.action_space.n, size=5)
        (*mine, my_infos), (*other, infos) = ours.step(actions), theirs.step(actions)
        for part, a, b in zip(("observation", "reward", "done"), mine, other, strict=True):
            _assert_same(a, b, f"step {step} {part}")
        _assert_same(my_infos, infos, f"step {step} infos")
        n_done += int(other[2].sum())
        n_truncated += sum(info["TimeLimit.truncated"] for info in infos)
        if step == 30:  # reset with new seeds in the middle of episodes
            for env in (ours, theirs):
                env.seed(11)
            _assert_same(ours.reset(), theirs.reset(), "second reset")
    assert n_done > 60
    assert (n_truncated > 20) == (make is _moody)


def test_contrib_finds_the_masks_through_a_monitor_too() -> None:
    env = VecMonitor(PMLMVecEnv(PMLMLiteVectorEnv(3, protect=("instruction",))))
    env.reset()
    assert is_masking_supported(env)
    masks = get_action_masks(env)
    assert masks.shape == (3, env.action_space.n)
    assert masks.dtype == np.bool_
    np.testing.assert_array_equal(env.env_method("action_masks", indices=1)[0], masks[1])
    np.testing.assert_array_equal(env.get_attr("action_masks", indices=[2])[0](), masks[2])
    assert env.env_is_wrapped(Monitor) == [False] * 3


def test_under_a_monitor_the_return_is_what_the_episode_brought() -> None:
    env = VecMonitor(PMLMVecEnv(PMLMLiteVectorEnv(4, n_edits=2)))
    env.seed(0)
    env.reset()
    rng = np.random.default_rng(0)
    returns = []
    for _ in range(20):
        *_, infos = env.step(rng.integers(env.action_space.n, size=4))
        for info in infos:
            assert isinstance(info["episode_index"], int)
            if "score" in info:
                assert info["episode"]["r"] == pytest.approx(info["score"] - info["initial_score"], abs=1e-6)
                assert info["episode"]["l"] == 2
                returns.append(info["episode"]["r"])
    assert len(returns) == 40
    assert np.std(returns) > 0


def test_options_pick_episodes_for_one_reset() -> None:
    env = PMLMVecEnv(PMLMLiteVectorEnv(3, observation="index"))
    env.set_options({"episode": 7})
    assert env.reset()["episode"].tolist() == [7, 7, 7]
    env.set_options([{"episode": 4}, {"episode": 0}, {"episode": 9}])
    assert env.reset()["episode"].tolist() == [4, 0, 9]
    assert env.reset()["episode"].tolist() != [4, 0, 9]
    env.set_options({"episode_index": 7})
    with pytest.raises(ValueError, match="there is no reset option 'episode_index'"):
        env.reset()
    env.set_options([{"episode": 4}, {}, {}])
    with pytest.raises(ValueError, match="set for 1 envs of 3"):
        env.reset()


def test_attributes_are_those_of_single_envs() -> None:
    env = PMLMVecEnv(PMLMLiteVectorEnv(2))
    assert env.get_attr("observation_space") == [env.observation_space] * 2
    assert env.get_attr("task")[1] is env.env.task
    assert not env.has_attr("no_such_thing")
    env.set_attr("nickname", "x")
    assert env.get_attr("nickname", indices=0) == ["x"]
    with pytest.raises(ValueError, match="cannot be set for some envs alone"):
        env.set_attr("nickname", "y", indices=[0])
    with pytest.raises(AttributeError, match="not 'step'"):
        env.env_method("step", 0)


def test_pictures_of_long_and_short_prompts_are_tiled() -> None:
    env = PMLMVecEnv(PMLMLiteVectorEnv(4, render_mode="rgb_array"))
    lengths = [len(episode.prompt) for episode in env.env.task.episodes]
    shortest, longest = int(np.argmin(lengths)), int(np.argmax(lengths))
    env.set_options([{"episode": shortest}, {"episode": longest}, {"episode": shortest}, {"episode": longest}])
    env.reset()
    pages = env.env.render()
    heights = {len(page) for page in pages}
    assert len(heights) == 2
    pictures = env.get_images()
    np.testing.assert_array_equal(pictures[0][: len(pages[0])], pages[0])
    assert (pictures[0][len(pages[0]) :] == 255).all()
    assert env.render().shape == (2 * max(heights), 2 * 960, 3)
    assert PMLMVecEnv(PMLMLiteVectorEnv(2)).get_images() == [None, None]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(PMLMLiteVectorEnv, 2, autoreset_mode="NextStep"), "autoreset_mode is 'NextStep'.* 'SameStep'"),
        (partial(PMLMLiteVectorEnv, 2, autoreset_mode="Disabled"), "autoreset_mode is 'Disabled'"),
        (partial(PMLMLiteVectorEnv, 2, array_type="torch"), "array_type is 'torch'.* 'numpy'"),
        (PMLMLiteEnv, "takes a PMLMVectorEnv"),
        (lambda: gym.wrappers.vector.ClipReward(PMLMLiteVectorEnv(2), 0, 1), "without wrappers"),
    ],
)
def test_an_env_that_does_not_fit_is_refused(make: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PMLMVecEnv(make())


@pytest.mark.parametrize(("observation", "expected"), [("embeddings", 1), ("index", 0)])
def test_sb3s_checker_only_says_that_embeddings_need_a_policy_of_their_own(observation: str, expected: int) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(PMLMLiteEnv(observation=observation))
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == expected
    assert all("use a custom policy" in message for message in messages)
