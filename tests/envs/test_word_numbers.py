"""WordNumbers: the numbers of words in scalar and vector observations."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from pmlm_env import EpisodeSet, PMLMEnv, PMLMVectorEnv
from pmlm_env.envs.wrappers import VectorWordNumbers, WordNumbers
from tests.standins import make_episodes, make_task

N_WORDS = 12


class Lengths:
    """Numbers a word by its letters, and by its first letter."""

    def __len__(self) -> int:
        return 200

    def ids(self, episodes: EpisodeSet, width: int) -> npt.NDArray[np.int64]:
        table = np.zeros((len(episodes), width, 2), dtype=np.int64)
        for row, episode in enumerate(episodes):
            table[row, : len(episode.words)] = [[len(word), ord(word[0])] for word in episode.words]
        return table


def _scalar(**more: Any) -> WordNumbers:
    return WordNumbers(PMLMEnv(task=make_task(**{"n_edits": 2, "max_words": 15, **more})), Lengths())


def _vector(n: int, mode: AutoresetMode | str, array_type: Any = "numpy", **more: Any) -> VectorWordNumbers:
    task = make_task(**{"n_edits": 2, "max_words": 15, **more})
    return VectorWordNumbers(PMLMVectorEnv(n, mode, array_type, task=task), Lengths())


def _expected(index: int, width: int = 15) -> npt.NDArray[np.int64]:
    return Lengths().ids(make_episodes(), width)[index]


@pytest.mark.parametrize("observation", ["embeddings", "index"])
def test_the_words_of_the_initial_prompt_are_numbered_at_every_step(observation: str) -> None:
    env = _scalar(observation=observation)
    seen, info = env.reset(options={"episode": 3})
    for action in (4, 5):
        np.testing.assert_array_equal(seen["words"], _expected(3))
        assert seen in env.observation_space
        seen, _, done, _, info = env.step(np.int64(action))
    assert done
    np.testing.assert_array_equal(seen["words"], _expected(info["episode_index"]))
    assert not seen["words"][N_WORDS:].any()


def test_the_space_is_that_of_the_env_with_words() -> None:
    env = _scalar()
    space: Any = env.observation_space
    assert set(space) == {"embeddings", "patient", "action_mask", "words"}
    assert space["words"] == gym.spaces.Box(0, 199, (15, 2), np.int64)
    assert {key: space[key] for key in ("embeddings", "patient", "action_mask")} == dict(env.env.observation_space)  # type: ignore[call-overload]


@pytest.mark.parametrize("observation", ["embeddings", "index"])
def test_check_env_has_nothing_to_say_but_that_it_is_wrapped(observation: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version")
        check_env(_scalar(observation=observation), skip_render_check=True)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize("observation", ["embeddings", "index"])
def test_a_vector_env_numbers_words_as_the_wrapped_scalar_envs_do(mode: AutoresetMode, observation: str) -> None:
    ours = _vector(3, mode, observation=observation)
    theirs = SyncVectorEnv([lambda: _scalar(observation=observation)] * 3, autoreset_mode=mode)
    assert ours.observation_space == theirs.observation_space
    assert ours.single_observation_space == theirs.single_observation_space
    np.testing.assert_array_equal(ours.reset(seed=1)[0]["words"], theirs.reset(seed=1)[0]["words"])
    rng, ends = np.random.default_rng(0), 0
    for _ in range(12):
        actions = rng.integers(N_WORDS, size=3)
        mine, other = ours.step(actions), theirs.step(actions)
        assert mine[0] in ours.observation_space
        np.testing.assert_array_equal(mine[0]["words"], other[0]["words"])
        if "final_obs" in other[-1]:
            ends += 1
            for a, b in zip(mine[-1]["final_obs"], other[-1]["final_obs"], strict=True):
                assert a.keys() == b.keys()
                np.testing.assert_array_equal(a["words"], b["words"])
    assert ends > 3 or mode == AutoresetMode.NEXT_STEP


def test_where_only_some_rows_are_reset_the_others_keep_their_numbers() -> None:
    env = _vector(3, "Disabled")
    env.reset(options={"episode": np.array([0, 1, 2])})
    env.step([0, 0, 0])
    seen, _ = env.reset(options={"reset_mask": np.array([False, True, False]), "episode": 5})
    np.testing.assert_array_equal(seen["words"], np.stack([_expected(i) for i in (0, 5, 2)]))
    env.step([1, 1, 1])
    seen = env.step([2, 2, 2])[0]  # rows 0 and 2 have ended and rest
    np.testing.assert_array_equal(seen["words"], np.stack([_expected(i) for i in (0, 5, 2)]))


def test_with_torch_arrays_the_numbers_are_a_tensor_too() -> None:
    env = _vector(2, "SameStep", "torch")
    seen, _ = env.reset(options={"episode": np.array([4, 1])})
    assert isinstance(seen["words"], torch.Tensor)
    assert seen["words"].dtype == torch.int64
    np.testing.assert_array_equal(seen["words"].numpy(), np.stack([_expected(4), _expected(1)]))
    env.step(torch.tensor([0, 0]))
    final = env.step(torch.tensor([1, 1]))[-1]["final_obs"]
    np.testing.assert_array_equal(final[0]["words"].numpy(), _expected(4))


def test_what_it_hands_out_stays_as_it_was() -> None:
    scalar, vector = _scalar(), _vector(2, "SameStep")
    seen, many = scalar.reset(options={"episode": 0})[0], vector.reset(options={"episode": 0})[0]
    seen["words"][:], many["words"][:] = 7, 7
    np.testing.assert_array_equal(scalar.step(np.int64(0))[0]["words"], _expected(0))
    final = [vector.step([slot, slot]) for slot in (0, 1)][-1][-1]["final_obs"]
    final[0]["words"][:] = 7
    np.testing.assert_array_equal(vector.reset(options={"episode": 0})[0]["words"][0], _expected(0))


def test_it_goes_on_gym_make_and_gym_make_vec() -> None:
    scalar = WordNumbers(gym.make("PMLMLite-v0"), Lengths())
    vector = VectorWordNumbers(gym.make_vec("PMLMLite-v0", num_envs=2), Lengths())
    one, many = scalar.reset(options={"episode": 7})[0], vector.reset(options={"episode": 7})[0]
    np.testing.assert_array_equal(one["words"], many["words"][1])


def test_it_pickles_in_the_middle_of_an_episode() -> None:
    for env, action in ((_scalar(), np.int64(1)), (_vector(2, "SameStep"), np.array([1, 1]))):
        env.reset(seed=0)
        twin = pickle.loads(pickle.dumps(env))
        np.testing.assert_array_equal(env.step(action)[0]["words"], twin.step(action)[0]["words"])


def test_other_envs_are_refused() -> None:
    with pytest.raises(ValueError, match="has no EditTask: word numbers are only for PMLM-v0 and PMLMLite-v0"):
        WordNumbers(gym.make("CartPole-v1"), Lengths())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has no EditTask"):
        VectorWordNumbers(SyncVectorEnv([lambda: PMLMEnv(task=make_task())]), Lengths())
    with pytest.raises(
        ValueError, match=r"the env's observation space is a Box, not a Dict: wrap the env in word numbers first"
    ):
        WordNumbers(gym.wrappers.FlattenObservation(PMLMEnv(task=make_task())), Lengths())
