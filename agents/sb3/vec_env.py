"""PMLMVecEnv: adapter from the native vector env to Stable-Baselines3."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from pmlm_env.envs.contract import check_options, info_of, plain
from pmlm_env.envs.prompt_edit_vector import PMLMVectorEnv

#: Attributes whose names differ between a single env and the vector env.
_OF_ONE_ENV = {"observation_space": "single_observation_space", "action_space": "single_action_space"}


class PMLMVecEnv(VecEnv):
    """A ``PMLMVectorEnv`` as a ``VecEnv``: one encoder pass and one LLM batch per step for all envs.

    It behaves like a ``DummyVecEnv`` of the same number of ``PMLMEnv``, including masks: ``MaskablePPO`` gets them by
    ``env_method("action_masks")``.

    An episode without a reply from the LLM ends with reward 0 and ``info["TimeLimit.truncated"]``. On-policy algorithms
    then add gamma * V(terminal observation) to the reward, and DQN bootstraps in the same way. The critic's estimate
    replaces the missing score, so the advantage is about 0 and almost nothing is learned from the episode.
    Stable-Baselines3 offers no better way. A ``VecMonitor`` still counts such an episode with return 0; its
    ``info["llm_error"]`` identifies it.

    Args:
        env: ``gym.make_vec("PMLM-v0", num_envs=N)``, or a ``PMLMVectorEnv``; with ``array_type="numpy"`` and autoreset
            ``SAME_STEP`` (the defaults).

    Raises:
        ValueError: ``env`` is another kind of env, or its settings differ from these.
    """

    def __init__(self, env: gym.vector.VectorEnv) -> None:
        """Check the env and copy its spaces."""
        native = env.unwrapped
        if not isinstance(native, PMLMVectorEnv) or env is not native:
            raise ValueError(f"env is {env}: PMLMVecEnv takes a PMLMVectorEnv, without wrappers")
        if native.autoreset_mode != AutoresetMode.SAME_STEP:
            raise ValueError(
                f"autoreset_mode is {native.autoreset_mode.value!r}: Stable-Baselines3 resets in the same step, "
                "so make the env with 'SameStep'"
            )
        if native.array_type != "numpy":
            raise ValueError(
                f"array_type is {native.array_type!r}: Stable-Baselines3's buffers take numpy arrays, "
                "so make the env with 'numpy'"
            )
        self.env = native
        self._actions: npt.NDArray[np.int64] | None = None
        super().__init__(native.num_envs, native.single_observation_space, native.single_action_space)
        self.metadata = native.metadata

    def reset(self) -> VecEnvObs:
        """Start an episode in every env, with the seeds and options set for it, which are used only once."""
        observation, infos = self.env.reset(seed=list(self._seeds), options=self._episode_option())
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [self._row(infos, row) for row in range(self.num_envs)]
        return observation

    def step_async(self, actions: npt.NDArray[np.int64]) -> None:
        """Store the slot to delete in each env, int64 (N,)."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Delete the words in the stored slots.

        Returns:
            Observations (N, ...), rewards float32 (N,), dones bool (N,), and an info for each env. If an episode is
            done, the observation is the first of the next episode, and the info is that of the finished episode, with
            its final observation as ``terminal_observation``; the first info of the next episode is in
            ``reset_infos``.
        """
        observation, rewards, terminated, truncated, both = self.env.step(self._actions)
        dones = terminated | truncated
        infos = []
        for row, done in enumerate(dones.tolist()):
            info = self._row(both["final_info"] if done else both, row)
            info["TimeLimit.truncated"] = bool(truncated[row])
            if done:
                info["terminal_observation"] = both["final_obs"][row]
                self.reset_infos[row] = self._row(both, row)
            infos.append(info)
        return observation, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        """Close the env."""
        self.env.close()

    def get_images(self) -> Sequence[npt.NDArray[np.uint8] | None]:
        """Return an image of each env's prompt, all of the same size; Nones without ``render_mode="rgb_array"``."""
        if self.render_mode != "rgb_array":
            return [None] * self.num_envs
        pictures = self.env.render() or ()
        height = max(len(picture) for picture in pictures)  # pages differ in height, tiles must not
        return [np.pad(page, ((0, height - len(page)), (0, 0), (0, 0)), mode="edge") for page in pictures]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of each env; most attributes are shared.

        Raises:
            AttributeError: There is no attribute of that name.
        """
        rows = list(self._get_indices(indices))
        if attr_name == "action_masks":
            return [self._mask_of(row) for row in rows]
        value = getattr(self.env, _OF_ONE_ENV.get(attr_name, attr_name))
        return [value] * len(rows)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the vector env.

        Raises:
            ValueError: ``indices`` does not cover all envs; they are a single object.
        """
        if set(self._get_indices(indices)) != set(range(self.num_envs)):
            raise ValueError(f"{attr_name!r} cannot be set for some envs alone: all {self.num_envs} share it")
        setattr(self.env, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> Any:
        """Call ``action_masks`` or ``render`` on each env.

        Returns:
            A list of masks, bool (max_words,), or of the results of ``render``.

        Raises:
            AttributeError: The method is a different one; envs cannot step or reset separately.
        """
        if method_name not in ("action_masks", "render"):
            raise AttributeError(f"PMLMVecEnv calls 'action_masks' and 'render' of single envs, not {method_name!r}")
        results = getattr(self.env, method_name)(*method_args, **method_kwargs)
        return [None if results is None else results[row] for row in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Return False for every env: single envs are never wrapped."""
        return [False for _ in self._get_indices(indices)]

    def _mask_of(self, row: int) -> Callable[[], npt.NDArray[np.bool_]]:
        return lambda: self.env.action_masks()[row]

    def _episode_option(self) -> dict[str, Any] | None:
        """Combine the options of all envs.

        Raises:
            ValueError: ``episode`` is set for some envs but not for all, or is misspelt.
        """
        for options in self._options:
            check_options(options)
        chosen = [options["episode"] for options in self._options if "episode" in options]
        if not chosen:
            return None
        if len(chosen) != self.num_envs:
            raise ValueError(f"options['episode'] is set for {len(chosen)} envs of {self.num_envs}: set it for all")
        return {"episode": np.array([np.asarray(index).item() for index in chosen])}

    @staticmethod
    def _row(infos: dict[str, Any], row: int) -> dict[str, Any]:
        """Return one env's part of a vector env's infos, with the types that a single env uses."""
        own = {key: value for key, value in infos.items() if key.lstrip("_") not in ("final_info", "final_obs")}
        return plain(info_of(own, row))
