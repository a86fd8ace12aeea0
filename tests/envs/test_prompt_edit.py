from __future__ import annotations

import pickle
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from pmlm_env import PMLMEnv
from pmlm_env.core.outcomes import Outcomes
from tests.standins import MarkedWordsReward, make_episodes, make_task


def _env(**more: Any) -> PMLMEnv:
    return PMLMEnv(more.pop("render_mode", None), task=make_task(**{"n_edits": 3, **more}))


@pytest.mark.parametrize("observation", ["embeddings", "index"])
def test_check_env_has_nothing_to_say(observation: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(_env(observation=observation), skip_render_check=True)


def test_reward_comes_at_the_last_step_alone() -> None:
    env = _env()
    _, info = env.reset(seed=0)
    marked = [slot for slot, word in enumerate(env.task.episodes[info["episode_index"]].words) if "*" in word]
    rewards = []
    for slot in marked:
        _, reward, terminated, truncated, info = env.step(np.int64(slot))
        rewards.append(reward)
    assert rewards[:2] == [0.0, 0.0]
    assert rewards[2] == pytest.approx(0.3)
    assert terminated
    assert not truncated
    assert [edit.slot for edit in info["edits"]] == marked


def test_the_last_info_tells_the_whole_story() -> None:
    env = _env()
    env.reset(seed=0)
    for slot in range(3):
        info = env.step(np.int64(slot))[-1]
    assert set(info) == {
        "action_mask", "episode_index", "invalid_action", "prompt", "reply", "initial_reply", "reference", "score",
        "initial_score", "edits", "llm_calls",
    }  # fmt: skip
    assert info["prompt"].split() == list(env.task.episodes[info["episode_index"]].words[3:])


def test_embeddings_are_zero_exactly_where_no_word_is_left() -> None:
    env = _env()
    env.reset(seed=1)
    observation = env.step(np.int64(5))[0]
    there = observation["embeddings"].any(axis=1)
    assert there.tolist() == [slot != 5 for slot in range(12)]


def test_the_mask_in_every_form_says_the_same() -> None:
    env = _env(protect=("peer",))
    observation, info = env.reset(seed=1)
    for slot in (0, 4):
        np.testing.assert_array_equal(observation["action_mask"], info["action_mask"])
        np.testing.assert_array_equal(observation["action_mask"].astype(bool), env.action_masks())
        assert info["action_mask"].dtype == np.int8
        observation, *_, info = env.step(np.int64(slot))
    assert info["action_mask"].tolist() == [0, 1, 1, 1, 0, 1, 0, 0, 0, 1, 1, 1]
    assert env.action_space.sample(info["action_mask"]) in (1, 2, 3, 5, 9, 10, 11)


def test_an_illegal_action_changes_nothing_and_uses_up_a_step() -> None:
    env = _env()
    env.reset(seed=0)
    env.step(np.int64(3))
    _, _, terminated, _, info = env.step(np.int64(3))
    assert info["invalid_action"]
    assert not terminated
    assert info["action_mask"].sum() == 11
    assert env.step(np.int64(0))[2]


def test_reset_never_asks_the_llm() -> None:
    episodes = make_episodes()
    reward = MarkedWordsReward(episodes)
    env = _env(episodes=episodes, reward=reward)
    for seed in range(5):
        env.reset(seed=seed)
        env.step(np.int64(0))
    assert reward.asked == []


def test_the_option_picks_the_episode() -> None:
    env = _env()
    assert [env.reset(options={"episode": i})[1]["episode_index"] for i in (4, 0, 5)] == [4, 0, 5]
    with pytest.raises(ValueError, match="there are episodes 0 to 5"):
        env.reset(options={"episode": 6})


def test_the_same_seed_draws_the_same_patients() -> None:
    drawn = []
    for _ in range(2):
        env = _env()
        first = env.reset(seed=7)[1]["episode_index"]
        drawn.append([first, *(env.reset()[1]["episode_index"] for _ in range(20))])
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) > 3


def test_a_step_without_an_episode_is_an_error() -> None:
    env = _env(n_edits=1)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.int64(0))
    env.reset()
    env.step(np.int64(0))
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.int64(1))


class _Down(MarkedWordsReward):
    def __call__(self, indices, prompts):  # type: ignore[no-untyped-def]
        outcomes = Outcomes.of_failures(["the endpoint is down"] * len(prompts))
        outcomes.llm_calls[:] = 3
        return outcomes


def test_an_llm_failure_truncates_and_is_never_scored() -> None:
    env = _env(n_edits=1, reward=_Down(make_episodes()))
    env.reset()
    _, reward, terminated, truncated, info = env.step(np.int64(0))
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert info["llm_error"] == "the endpoint is down"
    assert info["llm_calls"] == 3  # what was paid is counted
    assert "score" not in info


def test_no_prompt_is_cut() -> None:
    with pytest.raises(ValueError, match="max_words is 11, but the prompt of patient P0 has 12 words"):
        _env(max_words=11)


def test_it_pickles_in_the_middle_of_an_episode() -> None:
    env = _env()
    env.reset(seed=0)
    env.step(np.int64(1))
    twin = pickle.loads(pickle.dumps(env))
    for slot in (2, 3):
        mine, theirs = env.step(np.int64(slot)), twin.step(np.int64(slot))
        np.testing.assert_array_equal(mine[0]["embeddings"], theirs[0]["embeddings"])
        assert mine[1:4] == theirs[1:4]


def test_ansi_strikes_out_what_is_deleted_and_tells_the_score() -> None:
    env = _env(render_mode="ansi", n_edits=1)
    _, info = env.reset(seed=0)
    word = env.task.episodes[info["episode_index"]].words[2]
    env.step(np.int64(2))
    shown = env.render()
    assert shown is not None
    assert f"\x1b[9;31m{word}\x1b[0m" in shown
    assert "Score 0.0000 -> " in shown
