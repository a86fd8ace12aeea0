"""What Gymnasium asks of every env, of both specs alike."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

import pmlm_env

SPECS = [pytest.param("PMLM-v0", marks=pytest.mark.real), "PMLMLite-v0"]
FORMS = ["embeddings", "index"]


def _make(name: str, **options: Any) -> gym.Env:
    if name == "PMLM-v0":
        options["max_new_tokens"] = 8  # enough to tell replies apart
    return gym.make(name, **options)


def _play(env: gym.Env, seed: int, episodes: int = 2) -> list[Any]:
    """All that comes out of some random episodes."""
    rng = np.random.default_rng(seed)
    trace: list[Any] = [env.reset(seed=seed)]
    for _ in range(episodes):
        done = False
        while not done:
            trace.append(env.step(np.int64(rng.choice(np.flatnonzero(trace[-1][-1]["action_mask"])))))
            done = trace[-1][2] or trace[-1][3]
        trace.append(env.reset())
    return trace


def _same(a: Any, b: Any) -> None:
    if isinstance(a, (dict, list, tuple)):
        assert len(a) == len(b)
        assert not isinstance(a, dict) or a.keys() == b.keys()
        for key in a if isinstance(a, dict) else range(len(a)):
            if key != "llm_calls":  # replies are kept: who asks second makes no call
                _same(a[key], b[key])
    elif isinstance(a, float):  # a text's BERTScore depends in its last digit on what it is batched with
        assert a == pytest.approx(b, abs=1e-6)
    else:
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("observation", FORMS)
@pytest.mark.parametrize("name", SPECS)
def test_check_env_and_the_passive_checker_have_nothing_to_say(name: str, observation: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(_make(name, n_edits=2, observation=observation).unwrapped)
        _play(_make(name, n_edits=2, observation=observation), seed=0)


@pytest.mark.parametrize("name", SPECS)
def test_the_spec_survives_json_with_its_arguments(name: str) -> None:
    spec = _make(name, n_edits=3, protect=("instruction", "digits"), observation="index").spec
    assert spec is not None
    env = gym.make(EnvSpec.from_json(spec.to_json()))
    assert len(_play(env, seed=0, episodes=1)) == 1 + 3 + 1
    assert not env.unwrapped._batch.legal[0, -1]


@pytest.mark.parametrize("observation", FORMS)
@pytest.mark.parametrize("name", SPECS)
def test_two_envs_with_one_seed_say_the_same_for_whole_episodes(name: str, observation: str) -> None:
    one, other = (_make(name, n_edits=3, observation=observation) for _ in range(2))
    _same(_play(one, seed=5), _play(other, seed=5))


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
@pytest.mark.parametrize("name", SPECS)
def test_a_copy_made_in_the_middle_of_an_episode_goes_on_alike_and_alone(name: str, clone: Any) -> None:
    env = _make(name, n_edits=3)
    env.reset(seed=2)
    env.step(np.int64(1))
    twin = clone(env)
    before = twin.unwrapped.action_masks()
    first = env.step(np.int64(4))
    np.testing.assert_array_equal(twin.unwrapped.action_masks(), before)
    second = twin.step(np.int64(4))
    np.testing.assert_allclose(first[0]["embeddings"], second[0]["embeddings"], atol=1e-6)
    assert first[1:4] == second[1:4]
    assert env.step(np.int64(7))[-1]["edits"] == twin.step(np.int64(7))[-1]["edits"]


@pytest.mark.parametrize("name", SPECS)
def test_observations_and_infos_lie_in_their_spaces_to_the_very_end(name: str) -> None:
    env = _make(name, n_edits=2)
    for observation, *_, info in _play(env, seed=1):
        assert observation in env.observation_space
        assert info["action_mask"].dtype == np.int8
        np.testing.assert_array_equal(info["action_mask"], observation["action_mask"])


@pytest.mark.parametrize("name", SPECS)
def test_a_budget_of_none_keeps_all_and_changes_nothing(name: str) -> None:
    env = _make(name, n_edits=0)
    _, info = env.reset(seed=0)
    assert info["action_mask"].any()
    _, reward, terminated, truncated, info = env.step(np.int64(0))
    assert reward == pytest.approx(0.0, abs=1e-6)
    assert (terminated, truncated) == (True, False)
    assert info["invalid_action"]
    assert info["edits"] == ()


@pytest.mark.parametrize("mode", ["ansi", "rgb_array"])
def test_every_frame_of_an_episode_can_be_shown(mode: str) -> None:
    env = gym.make("PMLMLite-v0", n_edits=2, render_mode=mode)
    env.reset(seed=0)
    frames = [env.render()]
    for slot in (3, 5):
        env.step(np.int64(slot))
        frames.append(env.render())
    if mode == "ansi":
        assert [frame.count("\x1b[9;31m") for frame in frames] == [0, 1, 2]
        assert "Score " in frames[-1]
        assert "Score " not in frames[1]
    else:
        assert {frame.shape for frame in frames} == {frames[0].shape}
        assert len({frame.tobytes() for frame in frames}) == 3


@pytest.mark.parametrize("wrong", [-1, 10**6, 1.5, [0, 1], "first"])
def test_an_episode_that_is_not_there_is_refused(wrong: Any) -> None:
    env = gym.make("PMLMLite-v0")
    with pytest.raises(ValueError, match=r"options\['episode'\]"):
        env.reset(options={"episode": wrong})


def test_a_misspelt_reset_option_is_refused_and_one_for_a_wrapper_is_not() -> None:
    env, vector = gym.make("PMLMLite-v0"), gym.make_vec("PMLMLite-v0", 2)
    for each in (env, vector):
        with pytest.raises(ValueError, match=r"there is no reset option 'episodes' \(did you mean episode\?\)"):
            each.reset(options={"episodes": 3})
        each.reset(options={"episode": 3, "difficulty": "hard"})


@pytest.mark.parametrize("wrong", [1.5, [1, 2], None])
def test_an_action_that_is_no_slot_is_refused_and_costs_nothing(wrong: Any) -> None:
    env = gym.make("PMLMLite-v0", disable_env_checker=True)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="actions must be 1 whole numbers"):
        env.step(wrong)
    assert env.unwrapped._batch.steps[0] == 0


def test_unmasked_sampling_as_the_checkers_do_never_raises() -> None:
    env = gym.make("PMLMLite-v0")
    env.action_space.seed(0)
    invalid = 0
    for episode in range(5):
        env.reset(seed=episode)
        done = False
        while not done:
            *_, done, _, info = env.step(env.action_space.sample())
            invalid += info["invalid_action"]
    assert invalid


def test_render_before_reset_says_what_to_do() -> None:
    env = gym.make("PMLMLite-v0", render_mode="ansi").unwrapped
    with pytest.raises(gym.error.ResetNeeded):
        env.render()
    with pytest.raises(ValueError, match="render_mode is 'human'"):
        pmlm_env.PMLMEnv(render_mode="human")


def test_videos_can_be_recorded_from_it() -> None:
    env = gym.wrappers.RenderCollection(gym.make("PMLMLite-v0", render_mode="rgb_array", n_edits=3))
    env.reset(seed=0)
    for slot in range(3):
        env.step(np.int64(slot))
    frames = env.render()
    assert len(frames) == 1 + 3
    assert len({frame.shape for frame in frames}) == 1


def test_gymnasiums_statistics_of_episodes_go_with_it() -> None:
    env = gym.wrappers.RecordEpisodeStatistics(gym.make("PMLMLite-v0", n_edits=2))
    trace = _play(env, seed=0, episodes=1)
    assert trace[-2][-1]["episode"]["r"] == pytest.approx(trace[-2][1])
    vector = gym.wrappers.vector.RecordEpisodeStatistics(gym.make_vec("PMLMLite-v0", num_envs=2, n_edits=2))
    vector.reset(seed=0)
    for slot in (0, 1):
        *_, infos = vector.step(np.array([slot, slot]))
    assert infos["episode"]["l"].tolist() == [2, 2]
