"""Wrappers: observations in the form that other libraries need, and word numbers.

Every env of this package returns the legal actions in ``info["action_mask"]`` (int8, Gymnasium), in the observation's
``action_mask`` (int8) and from ``action_masks()`` (bool, sb3-contrib). In addition:

- RLlib needs ``RLlibObservation``, below.
- TorchRL needs no wrapper. ``GymWrapper(env, categorical_action_encoding=True)`` takes scalar and vector envs, and
  ``ActionMask()`` keeps random actions legal. A policy's ``MaskedCategorical`` needs a mask of dtype bool: append
  ``DTypeCastTransform(torch.int8, torch.bool, in_keys=["action_mask"])`` first. Make vector envs with
  ``autoreset_mode="Disabled"``; TorchRL then resets each row itself. It refuses ``NEXT_STEP``, and with ``SAME_STEP``
  TorchRL 0.14 loses the last observation of each episode and fails if rows delete different numbers of words.
- Tianshou's DQN family reads ``obs.obs`` and ``obs.mask``: make both with Gymnasium's ``TransformObservation``.
"""

from __future__ import annotations

from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector.utils import batch_space

from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.task import EditTask
from pmlm_env.envs.prompt_edit_vector import PMLMVectorEnv


class RLlibObservation(
    gym.ObservationWrapper[dict[str, Any], np.int64, dict[str, Any]], gym.utils.RecordConstructorArgs
):
    """Observations in the form of RLlib's ``ActionMaskingTorchRLModule``: a flat vector and a mask.

    Register the env with ``ray.tune.register_env("pmlm", lambda config: RLlibObservation(gym.make("PMLM-v0",
    **config)))``.

    | key | shape, dtype | meaning |
    |---|---|---|
    | ``observations`` | (max_words * hidden + size,), float32 | ``embeddings``, slot after slot, then ``patient`` |
    | ``action_mask`` | (max_words,), float32 | 1 where a deletion is legal; RLlib takes its logarithm |

    Args:
        env: ``PMLM-v0`` or ``PMLMLite-v0`` with ``observation="embeddings"``.

    Raises:
        ValueError: The observations hold no embeddings.
    """

    def __init__(self, env: gym.Env[dict[str, Any], np.int64]) -> None:
        """Wrap ``env``."""
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)
        inner = env.observation_space
        if not isinstance(inner, gym.spaces.Dict) or set(inner) != {"embeddings", "patient", "action_mask"}:
            found = sorted(inner) if isinstance(inner, gym.spaces.Dict) else type(inner).__name__
            raise ValueError(
                f"RLlibObservation flattens embeddings, but {env} observes {found}: "
                "make the env with observation='embeddings', and use no other wrapper that changes observations"
            )
        flat = gym.spaces.flatten_space(gym.spaces.Tuple([inner["embeddings"], inner["patient"]]))
        mask = gym.spaces.Box(0, 1, inner["action_mask"].shape, np.float32)
        self.observation_space = gym.spaces.Dict(observations=flat, action_mask=mask)

    def observation(self, observation: dict[str, Any]) -> dict[str, npt.NDArray[np.float32]]:
        """Flatten one observation into new arrays."""
        return {
            "observations": np.concatenate([observation["embeddings"].ravel(), observation["patient"]]),
            "action_mask": observation["action_mask"].astype(np.float32),
        }


class Numbering(Protocol):
    """Numbers for the words of prompts; ``agents.policies.lexicon.Lexicon`` is one."""

    def __len__(self) -> int:
        """Return how many numbers there are, including 0."""
        ...

    def ids(self, episodes: EpisodeSet, width: int) -> npt.NDArray[np.int64]:
        """Return a number for each form of each word of every prompt, int (N, width, n_forms); 0 = none."""
        ...


class WordNumbers(gym.Wrapper[dict[str, Any], np.int64, dict[str, Any], np.int64], gym.utils.RecordConstructorArgs):
    """Adds the numbers of the initial prompt's words to the observation; deletions do not change them.

    | key | shape, dtype | meaning |
    |---|---|---|
    | ``words`` | (max_words, n_forms), int64 | the number of each form of each word; 0 = none |

    ``WordNumbers(gym.make("PMLM-v0"), Lexicon.of(episodes))``; for vector envs see ``VectorWordNumbers``.

    Args:
        env: ``PMLM-v0`` or ``PMLMLite-v0``, with either kind of observation.
        numbering: The numbers.

    Raises:
        ValueError: ``env`` is another env, or a wrapper has changed its observation to something other than a ``Dict``.
    """

    def __init__(self, env: gym.Env[dict[str, Any], np.int64], numbering: Numbering) -> None:
        """Wrap ``env``."""
        gym.utils.RecordConstructorArgs.__init__(self, numbering=numbering)
        gym.Wrapper.__init__(self, env)
        self._table = _table(getattr(env.unwrapped, "task", None), numbering, env)
        self.observation_space = _with_words(env.observation_space, self._table, numbering)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._numbered(observation, info), info

    def step(self, action: np.int64) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        """Take one step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._numbered(observation, info), reward, terminated, truncated, info

    def _numbered(self, observation: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
        return {**observation, "words": self._table[info["episode_index"]].copy()}


class VectorWordNumbers(gym.vector.VectorWrapper):
    """``WordNumbers`` for ``gym.make_vec("PMLM-v0", num_envs=N)``, for every autoreset mode and array type.

    Args:
        env: A ``PMLMVectorEnv``, wrapped or not.
        numbering: The numbers.

    Raises:
        ValueError: ``env`` is another. Wrap each env of a ``SyncVectorEnv`` in ``WordNumbers`` instead.
    """

    def __init__(self, env: gym.vector.VectorEnv, numbering: Numbering) -> None:
        """Wrap ``env``."""
        super().__init__(env)
        native = env.unwrapped
        task = native.task if isinstance(native, PMLMVectorEnv) else None
        table = _table(task, numbering, env)
        self.single_observation_space = _with_words(env.single_observation_space, table, numbering)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self._episodes = np.zeros(self.num_envs, dtype=np.int64)
        self._table: Any = table
        self._observed = slice(None) if task is None else task.observed
        if isinstance(native, PMLMVectorEnv) and native.array_type == "torch":
            import torch

            self._table = torch.as_tensor(table, device=native.task.encoder.device)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode in every env, or in those of ``options["reset_mask"]``."""
        observation, infos = self.env.reset(seed=seed, options=options)
        return self._numbered(observation, infos), infos

    def step(self, actions: Any) -> tuple[dict[str, Any], Any, Any, Any, dict[str, Any]]:
        """Take one step in each env."""
        observation, rewards, terminated, truncated, infos = self.env.step(actions)
        if "final_obs" in infos:
            rows = infos["_final_obs"].nonzero()[0]
            for row, words in zip(rows.tolist(), self._table[self._episodes[rows]], strict=True):
                infos["final_obs"][row]["words"] = words
        return self._numbered(observation, infos), rewards, terminated, truncated, infos

    def _numbered(self, observation: dict[str, Any], infos: dict[str, Any]) -> dict[str, Any]:
        # After a partial reset, infos cover only some rows; the other rows continue their episodes.
        self._episodes = np.where(infos["_episode_index"], infos["episode_index"], self._episodes)
        return {**observation, "words": self._table[self._episodes[self._observed]]}


def _table(task: Any, numbering: Numbering, env: object) -> npt.NDArray[np.int64]:
    """Return the numbers of all words of a task's prompts, int64 (number of episodes, W, n_forms)."""
    if not isinstance(task, EditTask):
        raise ValueError(f"{env} has no EditTask: word numbers are only for PMLM-v0 and PMLMLite-v0")
    return np.asarray(numbering.ids(task.episodes, task.max_words), dtype=np.int64)


def _with_words(space: gym.Space[Any], table: npt.NDArray[np.int64], numbering: Numbering) -> gym.spaces.Dict:
    if not isinstance(space, gym.spaces.Dict):
        raise ValueError(
            f"the env's observation space is a {type(space).__name__}, not a Dict: wrap the env in word numbers first, "
            "then in wrappers that change observations"
        )
    # At least 1, because Gymnasium's checker warns about a space with a single value.
    words = gym.spaces.Box(0, max(1, len(numbering) - 1), table.shape[1:], np.int64)
    return gym.spaces.Dict({**space.spaces, "words": words})
