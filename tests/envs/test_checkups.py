"""``patient="checkups"``: observations with the patient's check-ups in place of their vector."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv

from pmlm_env import EditTask
from pmlm_env.envs.wrappers import RLlibObservation
from tests.standins import FORM, make_episodes, make_task, with_checkups

EPISODES = with_checkups(make_episodes(4))
EVERYBODY = EPISODES.padded_checkups(range(4))


def _task(**options: Any) -> EditTask:
    task = make_task(EPISODES, n_edits=2)
    return EditTask(EPISODES, task.encoder, task.reward, task.rules, patient="checkups", **options)


def _make() -> gym.Env[Any, Any]:
    return gym.make("PMLM-v0", task=_task())


def test_gymnasiums_checker_has_nothing_to_say() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(_make().unwrapped)


def test_the_observation_has_the_padded_check_ups_of_the_episodes_patient_at_every_step() -> None:
    env = _make()
    assert env.observation_space["patient"].shape == (FORM.size,)
    for index in range(4):
        observation, info = env.reset(options={"episode": index})
        for _ in range(2):
            assert observation["patient"].dtype == np.float32
            np.testing.assert_array_equal(observation["patient"], EVERYBODY[index])
            observation, *_, info = env.step(np.flatnonzero(info["action_mask"])[0])


def test_rllibs_flat_observation_ends_in_them() -> None:
    env = RLlibObservation(_make())
    observation, _ = env.reset(options={"episode": 1})
    np.testing.assert_array_equal(observation["observations"][-FORM.size :], EVERYBODY[1])


@pytest.mark.parametrize("array_type", ["numpy", "torch"])
def test_the_vector_env_observes_what_single_envs_do(array_type: Any) -> None:
    env = gym.make_vec("PMLM-v0", num_envs=3, task=_task(), array_type=array_type)
    single = SyncVectorEnv([_make] * 3)
    assert env.observation_space == single.observation_space
    observation, _ = env.reset(seed=5)
    np.testing.assert_array_equal(torch.as_tensor(observation["patient"]), single.reset(seed=5)[0]["patient"])


def test_episodes_without_check_ups_are_refused_when_the_env_is_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lack their patients' check-ups: prepare them again with `pmlm prepare`"):
        EditTask(make_episodes(), make_task().encoder, make_task().reward, patient="checkups")


def test_they_have_no_effect_on_observations_without_a_patient() -> None:
    with pytest.raises(ValueError, match="patient has no effect with observation='index': leave it out"):
        _task(observation="index")


def test_another_form_is_refused() -> None:
    with pytest.raises(ValueError, match=r"patient is 'labs': give one of 'vector', 'checkups'"):
        gym.make("PMLM-v0", patient="labs")
    with pytest.raises(ValueError, match=r"PMLMLite-v0 has no argument patient: "):
        gym.make("PMLMLite-v0", patient="checkups")


@pytest.mark.real
def test_the_simulated_episodes_have_check_ups() -> None:
    env = gym.make("PMLM-v0", patient="checkups", llm="responder", device="cpu")
    observation, _ = env.reset(seed=0)
    assert observation["patient"].shape == (2 * 45 * 35,)
    assert observation in env.observation_space
    assert set(np.unique(observation["patient"][45 * 35 :])) <= {-1.0, 0.0, 1.0}
