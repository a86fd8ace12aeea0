from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from pmlm_env import EditTask, EpisodeSet, PMLMEnv, PMLMVectorEnv
from tests.standins import MarkedWordsReward, make_episodes, make_task


class _Moody(MarkedWordsReward):
    """Fails for the patients with an odd number, and has components."""

    def __call__(self, indices, prompts):  # type: ignore[no-untyped-def]
        return replace(
            super().__call__(indices, prompts),
            errors=["down" if i % 2 else "" for i in indices],
            components={"a": np.array(indices) + 0.5, "b": np.array([float(len(prompt)) for prompt in prompts])},
            initial_components={"a": np.array(indices) + 1.5, "b": np.zeros(len(prompts))},
        )


def _task(**more: Any) -> EditTask:
    return make_task(**{"reward": _Moody(make_episodes()), "n_edits": 3, **more})


def _assert_same(ours: Any, theirs: Any, where: str = "") -> None:
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs), where
        for key in theirs:
            _assert_same(ours[key], theirs[key], f"{where}/{key}")
    elif isinstance(theirs, np.ndarray) and theirs.dtype == object:
        assert ours.shape == theirs.shape, where
        for row, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            _assert_same(a, b, f"{where}[{row}]")
    elif isinstance(theirs, np.ndarray):
        np.testing.assert_array_equal(ours, theirs, err_msg=where)
        assert ours.dtype == theirs.dtype, where
    else:
        assert ours == theirs, where


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize("observation", ["embeddings", "index"])
def test_step_by_step_it_is_gymnasiums_sync_vector_env(mode: AutoresetMode, observation: str) -> None:
    ours = PMLMVectorEnv(4, autoreset_mode=mode, task=_task(observation=observation))
    theirs = SyncVectorEnv([lambda: PMLMEnv(task=_task(observation=observation))] * 4, autoreset_mode=mode)
    assert ours.single_observation_space == theirs.single_observation_space
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    for a, b in zip(ours.reset(seed=3), theirs.reset(seed=3), strict=True):
        _assert_same(a, b, "reset")
    rng = np.random.default_rng(0)
    ends = 0
    for step in range(25):
        actions = rng.integers(12, size=4)
        mine, other = ours.step(actions), theirs.step(actions)
        for part, a, b in zip(("observation", "reward", "terminated", "truncated", "info"), mine, other, strict=True):
            _assert_same(a, b, f"step {step} {part}")
        ends += int((other[2] | other[3]).sum())
    assert ends > 20


def test_patients_are_drawn_as_by_scalar_envs_however_long_it_runs() -> None:
    task = _task(n_edits=1, observation="index")
    ours = PMLMVectorEnv(3, task=task)
    theirs = SyncVectorEnv([lambda: PMLMEnv(task=task)] * 3, autoreset_mode=AutoresetMode.SAME_STEP)
    drawn = []
    for env in (ours, theirs):
        env.reset(seed=9)
        drawn.append([env.step(np.zeros(3, dtype=np.int64))[-1]["episode_index"].tolist() for _ in range(100)])
    assert drawn[0] == drawn[1]


def test_only_the_rows_that_are_reset_are_seeded() -> None:
    task = _task(observation="index")
    ours = PMLMVectorEnv(3, autoreset_mode="Disabled", task=task)
    theirs = SyncVectorEnv([lambda: PMLMEnv(task=task)] * 3, autoreset_mode=AutoresetMode.DISABLED)
    for env in (ours, theirs):
        env.reset(seed=0)
        env.reset(seed=[7, None, 8], options={"reset_mask": np.array([False, True, True])})
    for _ in range(5):
        _assert_same(ours.reset()[1], theirs.reset()[1])


def test_the_first_reset_must_include_every_env() -> None:
    env = PMLMVectorEnv(2, task=_task())
    with pytest.raises(gym.error.ResetNeeded, match="must include every env"):
        env.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\) before step"):
        env.step([0, 0])


@pytest.mark.parametrize("mode", ["ansi", "rgb_array"])
def test_it_renders_each_env_as_the_scalar_env_does(mode: str) -> None:
    task = make_task(n_edits=2)
    ours = PMLMVectorEnv(2, autoreset_mode="Disabled", render_mode=mode, task=task)
    envs = [PMLMEnv(mode, task=task) for _ in range(2)]
    ours.reset(options={"episode": np.array([1, 3])})
    for env, index in zip(envs, (1, 3), strict=True):
        env.reset(options={"episode": index})
    for slot in (4, 5):
        ours.step([slot, slot])
        for env in envs:
            env.step(np.int64(slot))
        frames = ours.render()
        assert frames is not None
        for frame, env in zip(frames, envs, strict=True):
            np.testing.assert_array_equal(frame, env.render())


def test_some_rows_can_be_reset_alone() -> None:
    task = _task()
    ours = PMLMVectorEnv(3, autoreset_mode="Disabled", task=task)
    theirs = SyncVectorEnv([lambda: PMLMEnv(task=task)] * 3, autoreset_mode=AutoresetMode.DISABLED)
    for env in (ours, theirs):
        env.reset(seed=0)
        env.step(np.array([0, 1, 2]))
    mask = np.array([False, True, False])
    a, b = (env.reset(options={"reset_mask": mask.copy(), "episode": 4}) for env in (ours, theirs))
    _assert_same(a[0], b[0])
    _assert_same(a[1], b[1])


def test_without_autoreset_an_env_that_has_ended_rests() -> None:
    env = PMLMVectorEnv(2, autoreset_mode="Disabled", task=_task())
    env.reset(options={"episode": np.array([0, 2])})
    for slot in range(3):
        _, rewards, terminated, _, _ = env.step([slot, slot])
    assert terminated.all()
    observation, rewards, terminated, _, infos = env.step([7, 8])
    assert rewards.tolist() == [0.0, 0.0]
    assert terminated.all()
    assert "score" not in infos
    assert observation["action_mask"].sum(axis=1).tolist() == [9, 9]


def test_all_prompts_that_end_in_a_step_are_judged_together() -> None:
    task = _task()
    env = PMLMVectorEnv(5, task=task)
    env.reset(seed=0)
    for slot in range(3):
        env.step([slot] * 5)
    assert [len(prompts) for prompts in task.reward.asked] == [5]


def test_what_it_hands_out_stays_as_it_was() -> None:
    env = PMLMVectorEnv(2, task=_task())
    observation, info = env.reset(seed=0)
    before = {key: value.copy() for key, value in observation.items()}
    mask = info["action_mask"].copy()
    for slot in range(4):
        env.step([slot, slot])
    _assert_same(observation, before)
    np.testing.assert_array_equal(info["action_mask"], mask)


def test_torch_tensors_hold_the_same_numbers() -> None:
    as_numpy, as_torch = (PMLMVectorEnv(3, array_type=kind, task=_task()) for kind in ("numpy", "torch"))
    (a, _), (b, _) = as_numpy.reset(seed=1), as_torch.reset(seed=1)
    for _ in range(4):
        for key in a:
            assert isinstance(b[key], torch.Tensor)
            np.testing.assert_array_equal(a[key], b[key].numpy())
        slots = np.array([np.flatnonzero(row)[0] for row in a["action_mask"]])
        (a, reward_a, *_), (b, reward_b, terminated, *_) = as_numpy.step(slots), as_torch.step(torch.from_numpy(slots))
        np.testing.assert_allclose(reward_a, reward_b.numpy())
        assert reward_b.dtype == torch.float32
        assert terminated.dtype == torch.bool


def test_the_registered_spec_makes_the_native_env_and_serialises() -> None:
    spec = gym.spec("PMLM-v0")
    assert spec.nondeterministic
    assert gym.envs.registration.EnvSpec.from_json(spec.to_json()) == spec
    assert spec.vector_entry_point == "pmlm_env.envs.prompt_edit_vector:PMLMVectorEnv"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_envs": 0}, "num_envs is 0"),
        ({"autoreset_mode": "sometimes"}, "autoreset_mode is 'sometimes'"),
        ({"array_type": "jax"}, "array_type is 'jax'"),
        ({"render_mode": "human"}, "render_mode is 'human'"),
    ],
)
def test_a_wrong_argument_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PMLMVectorEnv(**{"num_envs": 1, "task": _task(), **wrong})


def test_a_share_of_the_prompts_is_observed_unless_last_observations_are_needed() -> None:
    task = replace(make_task(n_edits=1), observed=slice(1, None, 2))
    with pytest.raises(ValueError, match=r"SAME_STEP needs observations of all prompts, .*: use NEXT_STEP or DISABLED"):
        PMLMVectorEnv(4, task=task)
    envs = PMLMVectorEnv(4, AutoresetMode.NEXT_STEP, task=task)
    envs.reset(seed=0)
    for _ in range(3):
        observation, *_ = envs.step(envs.action_masks().argmax(axis=1))
        assert {len(values) for values in observation.values()} == {2}
    assert PMLMVectorEnv(4, task=replace(task, observed=slice(0, 4))).num_envs == 4


def test_a_mask_of_the_wrong_form_is_refused() -> None:
    env = PMLMVectorEnv(2, task=_task())
    env.reset()
    with pytest.raises(ValueError, match="reset_mask"):
        env.reset(options={"reset_mask": np.array([True])})


def test_an_episode_set_of_one_serves_any_number_of_rows() -> None:
    env = PMLMVectorEnv(4, task=_task(episodes=EpisodeSet(make_episodes(1))))
    _, info = env.reset(seed=0)
    assert info["episode_index"].tolist() == [0] * 4
