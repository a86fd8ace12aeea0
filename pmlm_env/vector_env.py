"""PMLMVectorEnv: N prompts, one encoder pass a step, one LLM batch for all that end in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from pmlm_env.rendering import render_ansi
from pmlm_env.reward import Outcome
from pmlm_env.task import EditTask

ArrayKind = Literal["numpy", "torch"]
_MODES = {mode.value: mode for mode in AutoresetMode}


class PMLMVectorEnv(gym.vector.VectorEnv):
    """``num_envs`` copies of ``PMLMEnv`` that behave as Gymnasium's ``SyncVectorEnv`` of them would.

    Args:
        num_envs: N.
        autoreset_mode: ``SAME_STEP`` by default: with a reward only at the end, no step is lost. ``NEXT_STEP`` as in
            Gymnasium. With ``DISABLED`` an env whose episode has ended rests, whatever the action, until it is reset.
        array_type: ``"numpy"``, or ``"torch"`` for tensors that never leave the encoder's device (rewards and flags
            too; infos stay numpy).
        render_mode: ``"ansi"`` or None.
        **task: As for ``PMLMEnv``.

    ``reset(options={"episode": i})`` takes one index for all, or one for each env; ``{"reset_mask": bool (N,)}``
    resets only some.
    """

    def __init__(
        self,
        num_envs: int = 1,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        array_type: ArrayKind = "numpy",
        render_mode: str | None = None,
        **task: Any,
    ) -> None:
        """Make the env.

        Raises:
            ValueError: An argument is not one of those allowed.
        """
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}: it must be 1 or more")
        if array_type not in ("numpy", "torch"):
            raise ValueError(f"array_type is {array_type!r}: use 'numpy' or 'torch'")
        if isinstance(autoreset_mode, str):
            if autoreset_mode not in _MODES:
                raise ValueError(f"autoreset_mode is {autoreset_mode!r}: use one of {sorted(_MODES)}")
            autoreset_mode = _MODES[autoreset_mode]
        self.num_envs = num_envs
        self.autoreset_mode = autoreset_mode
        self.array_type = array_type
        self.render_mode = render_mode
        self.metadata = {"render_modes": ["ansi"], "autoreset_mode": autoreset_mode}
        self.task = EditTask(**task)
        self.single_observation_space = self.task.observation_space
        self.single_action_space = self.task.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._batch = self.task.batch(num_envs)
        self._episodes = np.full(num_envs, -1)
        self._terminated = np.zeros(num_envs, dtype=np.bool_)
        self._truncated = np.zeros(num_envs, dtype=np.bool_)
        self._outcomes: list[Outcome | None] = [None] * num_envs
        self._rngs = [np.random.default_rng()] * num_envs
        self._seeded = False
        self._embeddings = torch.zeros(0)

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Which actions are legal, bool (N, max_words)."""
        return self._batch.legal

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode in every env, or in those of ``options["reset_mask"]``."""
        self._seed(seed)
        mask = np.ones(self.num_envs, dtype=np.bool_)
        if options is not None and "reset_mask" in options:
            mask = np.asarray(options["reset_mask"])
            if mask.dtype != np.bool_ or mask.shape != (self.num_envs,) or not mask.any():
                raise ValueError(f"options['reset_mask'] must be bool of shape ({self.num_envs},) with a True in it")
        rows = np.flatnonzero(mask).tolist()
        self._start(rows, options)
        self._embed(rows)
        infos: dict[str, Any] = {}
        for row in rows:
            infos = self._add_info(infos, self._info(row), row)
        return self._observe(), infos

    def step(self, actions: Any) -> tuple[dict[str, Any], Any, Any, Any, dict[str, Any]]:
        """Delete one word in each env, reset those that the autoreset mode resets, encode all, once.

        Raises:
            gymnasium.error.ResetNeeded: ``reset`` has not been called.
        """
        if (self._episodes < 0).any():
            raise gym.error.ResetNeeded("call reset() before step(): an env has no episode under way")
        chosen = actions.cpu().numpy() if isinstance(actions, torch.Tensor) else np.asarray(actions)
        resting = self._terminated | self._truncated
        invalid = self._batch.delete(chosen, ~resting)
        ended = self._batch.done & ~resting
        rewards = np.zeros(self.num_envs)
        finals: dict[int, dict[str, Any]] = {}
        if ended.any():
            rows = np.flatnonzero(ended).tolist()
            outcomes = self.task.judge(self._batch, rows, self._episodes[rows].tolist())
            for row, outcome in zip(rows, outcomes, strict=True):
                self._outcomes[row] = outcome
                rewards[row], self._truncated[row] = outcome.delta, bool(outcome.error)
                finals[row] = self.task.final_info(self._batch, row, outcome)
            self._terminated |= ended & ~self._truncated
        restart = resting if self.autoreset_mode == AutoresetMode.NEXT_STEP else np.zeros_like(resting)
        self._start(np.flatnonzero(restart).tolist(), None)
        flags = (self._array(rewards), self._array(self._terminated.copy()), self._array(self._truncated.copy()))
        infos: dict[str, Any] = {}
        current = []
        for row in range(self.num_envs):
            more = {} if restart[row] else {"invalid_action": bool(invalid[row]), **finals.get(row, {})}
            current.append(self._info(row, **more))
        if self.autoreset_mode == AutoresetMode.SAME_STEP and ended.any():
            rows = np.flatnonzero(ended).tolist()
            self._embed(rows)  # the last states, read out before the next episodes take their rows
            last = self._observe()
            self._start(rows, None)
            for row in rows:
                final = {key: value[row] for key, value in last.items()}
                infos = self._add_info(infos, {"final_obs": final, "final_info": current[row]}, row)
                current[row] = self._info(row)
        self._embed(range(self.num_envs))
        for row, info in enumerate(current):
            infos = self._add_info(infos, info, row)
        return self._observe(), *flags, infos

    def render(self) -> tuple[str, ...] | None:
        """Return each env's prompt as ``PMLMEnv.render`` does."""
        if self.render_mode is None or (self._episodes < 0).any():
            return None
        return tuple(
            render_ansi(self._batch.words(row), self._batch.kept[row], self._outcomes[row])
            for row in range(self.num_envs)
        )

    def _seed(self, seed: int | list[int | None] | None) -> None:
        """Give each row a generator of its own, seeded as ``SyncVectorEnv`` seeds its envs."""
        if isinstance(seed, int):
            seeds: list[int | None] = [seed + row for row in range(self.num_envs)]
        else:
            seeds = [None] * self.num_envs if seed is None else list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(f"there are {len(seeds)} seeds for {self.num_envs} envs")
        for row, value in enumerate(seeds):
            if value is not None or not self._seeded:
                self._rngs[row] = gym.utils.seeding.np_random(value)[0]
        self._seeded = True

    def _start(self, rows: Sequence[int], options: dict[str, Any] | None) -> None:
        for row in rows:
            self._episodes[row] = self.task.draw(self._rngs[row], options, row)
            self._batch.load(row, self.task.episodes[self._episodes[row]])
            self._outcomes[row] = None
            self._terminated[row] = self._truncated[row] = False

    def _embed(self, rows: Sequence[int]) -> None:
        if self.task.observation != "embeddings" or not len(rows):
            return
        fresh = self.task.embed(self._batch, rows)
        if len(rows) == self.num_envs:
            self._embeddings = fresh
        else:
            if not len(self._embeddings):
                self._embeddings = fresh.new_zeros((self.num_envs, *fresh.shape[1:]))
            self._embeddings[list(rows)] = fresh

    def _observe(self) -> dict[str, Any]:
        mask = self._array(self._batch.legal.astype(np.int8))
        if self.task.observation == "index":
            kept = self._array(self._batch.kept.astype(np.int8))
            return {"episode": self._array(self._episodes.copy()), "kept": kept, "action_mask": mask}
        as_torch = self.array_type == "torch"
        return {
            "embeddings": self._embeddings.clone() if as_torch else self._embeddings.cpu().numpy().copy(),
            "patient": self._array(self.task.episodes.vectors[self._episodes]),
            "action_mask": mask,
        }

    def _array(self, values: npt.NDArray[Any]) -> Any:
        if self.array_type == "numpy":
            return values
        device = self._embeddings.device if self.task.observation == "embeddings" else "cpu"
        return torch.from_numpy(values).to(device)

    def _info(self, row: int, **more: Any) -> dict[str, Any]:
        return {"action_mask": self._batch.legal[row].astype(np.int8), "episode": int(self._episodes[row]), **more}
