from __future__ import annotations

import pickle
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

import pmlm_env  # noqa: F401  registers the envs
from pmlm_env.envs.wrappers import RLlibObservation


def _env(**task: Any) -> gym.Env:
    return gym.make("PMLMLite-v0", **task)


def test_its_space_contains_every_observation_of_an_episode() -> None:
    env = RLlibObservation(_env(n_edits=3))
    observation, info = env.reset(seed=0)
    done = False
    while not done:
        assert observation in env.observation_space
        observation, _, done, _, info = env.step(np.int64(np.flatnonzero(info["action_mask"])[0]))
    assert observation in env.observation_space


def test_the_flat_vector_is_the_embeddings_and_then_the_patient() -> None:
    plain, wrapped = _env(), RLlibObservation(_env())
    (parts, _), (whole, _) = plain.reset(seed=4), wrapped.reset(seed=4)
    for slot in (2, 0, 30):
        n_words, hidden = parts["embeddings"].shape
        vector = whole["observations"]
        assert vector.dtype == np.float32
        np.testing.assert_array_equal(vector[: n_words * hidden].reshape(n_words, hidden), parts["embeddings"])
        np.testing.assert_array_equal(vector[n_words * hidden :], parts["patient"])
        parts, whole = plain.step(np.int64(slot))[0], wrapped.step(np.int64(slot))[0]


def test_its_bounds_are_those_of_the_parts() -> None:
    plain, wrapped = _env().observation_space, RLlibObservation(_env()).observation_space
    assert isinstance(plain, gym.spaces.Dict)
    assert isinstance(wrapped, gym.spaces.Dict)
    for bound in ("low", "high"):
        parts = [getattr(plain[key], bound).ravel() for key in ("embeddings", "patient")]
        np.testing.assert_array_equal(getattr(wrapped["observations"], bound), np.concatenate(parts))


def test_the_mask_is_that_of_the_info() -> None:
    env = RLlibObservation(_env(protect=("instruction",)))
    observation, info = env.reset(seed=0)
    for _ in range(5):
        np.testing.assert_array_equal(observation["action_mask"], info["action_mask"])
        slot = np.flatnonzero(observation["action_mask"])[-1]
        observation, _, _, _, info = env.step(np.int64(slot))
        assert observation["action_mask"][slot] == 0


def test_an_observation_stays_as_it_was() -> None:
    env = RLlibObservation(_env())
    observation, _ = env.reset(seed=0)
    before = {key: value.copy() for key, value in observation.items()}
    env.step(np.int64(0))
    for key, value in before.items():
        np.testing.assert_array_equal(observation[key], value)


def test_check_env_has_nothing_to_say_but_that_it_is_wrapped() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version")
        check_env(RLlibObservation(_env()))


def test_its_spec_makes_it_again_also_from_json() -> None:
    env = RLlibObservation(_env(n_edits=4, protect=["peer"]))
    assert env.spec is not None
    specs = {"spec": env.spec, "json": EnvSpec.from_json(env.spec.to_json())}
    for name, spec in specs.items():
        twin = gym.make(spec)
        assert isinstance(twin, RLlibObservation), name
        assert twin.spec == env.spec, name
        (mine, _), (other, _) = env.reset(seed=2), twin.reset(seed=2)
        for key, value in mine.items():
            np.testing.assert_array_equal(value, other[key])


def test_it_pickles_in_the_middle_of_an_episode() -> None:
    env = RLlibObservation(_env())
    env.reset(seed=0)
    env.step(np.int64(1))
    twin = pickle.loads(pickle.dumps(env))
    mine, other = env.step(np.int64(2)), twin.step(np.int64(2))
    np.testing.assert_array_equal(mine[0]["observations"], other[0]["observations"])


def test_the_index_form_is_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"observes .*'kept'.* make the env with observation='embeddings'"):
        RLlibObservation(_env(observation="index"))
    with pytest.raises(ValueError, match="observes Box"):
        RLlibObservation(gym.make("CartPole-v1"))  # type: ignore[arg-type]
