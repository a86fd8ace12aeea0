"""PMLMVectorEnv: N prompts, with one encoder batch per step and one LLM batch for all episodes that end in a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from pmlm_env.core.task import EditTask
from pmlm_env.envs.contract import (
    RENDER_MODES,
    Columns,
    action_space,
    checked_render_mode,
    chosen_episodes,
    final_columns,
    final_row,
    observation_space,
)
from pmlm_env.envs.options import PMLMOptions, task_from
from pmlm_env.envs.rendering import render_ansi, render_rgb

ArrayKind = Literal["numpy", "torch"]
_MODES = {mode.value: mode for mode in AutoresetMode}
_Rows = npt.NDArray[np.int64]


class PMLMVectorEnv(gym.vector.VectorEnv):
    """``num_envs`` copies of ``PMLMEnv`` that behave like Gymnasium's ``SyncVectorEnv`` of them.

    Args:
        num_envs: N.
        autoreset_mode: ``SAME_STEP`` by default, so that no step is lost between episodes. ``NEXT_STEP`` is
            Gymnasium's. With ``DISABLED``, an env whose episode has ended ignores actions until it is reset.
        array_type: ``"numpy"``, or ``"torch"`` for observations, rewards and flags as tensors on the encoder's
            device; infos are always numpy.
        render_mode: ``"ansi"``, ``"rgb_array"`` or None.
        task: A task, as for ``PMLMEnv``.
        **options: The arguments of ``PMLMEnv``, instead of ``task``.

    ``reset(options={"episode": i})`` takes one index for all envs or one for each; ``{"reset_mask": bool (N,)}``
    resets only some of them.
    """

    def __init__(
        self,
        num_envs: int = 1,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        array_type: ArrayKind = "numpy",
        render_mode: str | None = None,
        *,
        task: EditTask | None = None,
        **options: Any,
    ) -> None:
        """Make the env.

        Raises:
            ValueError: An argument is not allowed.
        """
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}: it must be 1 or more")
        if array_type not in ("numpy", "torch"):
            raise ValueError(f"array_type is {array_type!r}: use 'numpy' or 'torch'")
        if isinstance(autoreset_mode, str):
            if autoreset_mode not in _MODES:
                raise ValueError(f"autoreset_mode is {autoreset_mode!r}: use one of {sorted(_MODES)}")
            autoreset_mode = _MODES[autoreset_mode]
        self.metadata = {
            "render_modes": list(RENDER_MODES),
            "render_fps": 2,
            "autoreset_mode": autoreset_mode,
        }
        self.num_envs = num_envs
        self.autoreset_mode = autoreset_mode
        self.array_type = array_type
        self.render_mode = checked_render_mode(render_mode)
        self.task = task_from(PMLMOptions, task, options)
        everyone = range(num_envs)
        if autoreset_mode == AutoresetMode.SAME_STEP and everyone[self.task.observed] != everyone:
            raise ValueError(
                "autoreset_mode SAME_STEP needs observations of all prompts, and the task's `observed` leaves some "
                "out: use NEXT_STEP or DISABLED"
            )
        self.single_observation_space = observation_space(self.task)
        self.single_action_space = action_space(self.task)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._batch = self.task.batch(num_envs)
        self._draws = _Draws(num_envs, len(self.task.episodes))
        self._everyone = np.arange(num_envs)
        self._ready = False  # whether every row holds an episode
        self._terminated = np.zeros(num_envs, dtype=np.bool_)
        self._truncated = np.zeros(num_envs, dtype=np.bool_)
        self._finals: list[dict[str, Any] | None] = [None] * num_envs

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Return which actions are legal, bool (N, max_words)."""
        return self._batch.legal.copy()

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode in every env, or in those of ``options["reset_mask"]``."""
        rows = self._everyone
        if options is not None and "reset_mask" in options:
            mask = np.asarray(options["reset_mask"])
            if mask.dtype != np.bool_ or mask.shape != (self.num_envs,) or not mask.any():
                raise ValueError(f"options['reset_mask'] must be bool of shape ({self.num_envs},) with a True in it")
            rows = np.flatnonzero(mask)
        chosen = chosen_episodes(options, len(self.task.episodes))
        if chosen is not None and chosen.shape not in ((), (self.num_envs,)):
            raise ValueError(
                f"options['episode'] must be one index, or {self.num_envs} of them, not shape {chosen.shape}"
            )
        self._draws.seed(seed, rows)
        self._start(rows, None if chosen is None else np.broadcast_to(chosen, self.num_envs)[rows])
        self._ready = self._ready or bool((self._batch.episodes >= 0).all())
        if not self._ready:
            raise gym.error.ResetNeeded("the first reset() must include every env: leave out options['reset_mask']")
        return self._observe(), self._infos(rows)

    def step(self, actions: Any) -> tuple[dict[str, Any], Any, Any, Any, dict[str, Any]]:
        """Take one step in each env, and reset envs as the autoreset mode says.

        Raises:
            gymnasium.error.ResetNeeded: ``reset`` has not been called.
        """
        if not self._ready:
            raise gym.error.ResetNeeded("call reset() before step(): no episode is under way")
        chosen = actions.cpu().numpy() if hasattr(actions, "cpu") else actions  # a tensor
        resting = self._terminated | self._truncated
        awake = ~resting if np.count_nonzero(resting) else None
        invalid = self._batch.apply(chosen, awake)
        ended = self._batch.done
        if awake is not None:
            ended &= awake
        rewards = np.zeros(self.num_envs)
        final: dict[str, Any] = {}
        rows = ended.nonzero()[0]
        if len(rows):
            rewards[rows], final = self._finish(rows)
        if awake is not None and self.autoreset_mode == AutoresetMode.NEXT_STEP:
            self._start(resting.nonzero()[0])
        flags = self._array(rewards), self._array(self._terminated.copy()), self._array(self._truncated.copy())
        if len(rows) and self.autoreset_mode == AutoresetMode.SAME_STEP:
            infos: dict[str, Any] = {"final_info": {**self._infos(rows, invalid), **final}}
            infos["final_obs"] = np.full(self.num_envs, None, dtype=object)
            last = self._observe(rows)
            for row, values in zip(rows.tolist(), zip(*last.values(), strict=True), strict=True):
                infos["final_obs"][row] = dict(zip(last, values, strict=True))
            infos["_final_info"], infos["_final_obs"] = ended, ended.copy()
            self._start(rows)
            infos |= self._infos(self._everyone, invalid, ~ended)
        else:
            infos = self._infos(self._everyone, invalid, awake) | final
        return self._observe(), *flags, infos

    def render(self) -> tuple[Any, ...] | None:
        """Return what ``PMLMEnv.render`` returns, for each env."""
        if self.render_mode is None:
            return None
        if not self._ready:
            raise gym.error.ResetNeeded("call reset() before render(): there are no prompts yet")
        draw = render_ansi if self.render_mode == "ansi" else render_rgb
        states = zip(self._batch.episodes.tolist(), self._batch.kept, self._finals, strict=True)
        return tuple(draw(self.task.episodes[index].initial.words, kept, final) for index, kept, final in states)

    def _start(self, rows: _Rows, episodes: _Rows | None = None) -> None:
        """Load the given episodes, or random ones, into ``rows``."""
        self._batch.load(rows, self._draws.next(rows) if episodes is None else episodes)
        self._terminated[rows] = self._truncated[rows] = False
        if self.render_mode is not None:
            for row in rows.tolist():
                self._finals[row] = None

    def _finish(self, rows: _Rows) -> tuple[npt.NDArray[np.float64], dict[str, Any]]:
        """Score the prompts in ``rows``, whose episodes end; return their rewards and infos."""
        outcomes = self.task.judge(self._batch, rows)
        columns = final_columns(self._batch, rows, outcomes)
        self._truncated[rows] = outcomes.failed
        self._terminated[rows] = ~outcomes.failed
        if self.render_mode is not None:
            for i, row in enumerate(rows.tolist()):
                self._finals[row] = final_row(columns, i)
        return outcomes.delta, self._spread(columns, rows)

    def _spread(self, columns: Columns, rows: _Rows) -> dict[str, Any]:
        """Return the infos of ``rows`` in the form of Gymnasium's vector envs: arrays, and who has them."""
        infos: dict[str, Any] = {}
        for key, (values, where) in columns.items():
            present = np.zeros(self.num_envs, dtype=np.bool_)
            present[rows] = where
            if isinstance(values, Mapping):
                inside: Columns = {name: (each, where) for name, each in values.items()}
                infos[key] = self._spread(inside, rows)
            elif isinstance(values, np.ndarray):
                infos[key] = np.zeros(self.num_envs, dtype=values.dtype)
                infos[key][present] = values[where]
            else:
                infos[key] = np.full(self.num_envs, None, dtype=object)
                for row, value, has in zip(rows.tolist(), values, where.tolist(), strict=True):
                    if has:
                        infos[key][row] = value
            infos[f"_{key}"] = present
        return infos

    def _observe(self, rows: _Rows | None = None) -> dict[str, Any]:
        """Observe ``rows``, or every env."""
        states = self._batch.episodes, self._batch.kept, self._batch.legal
        if rows is not None and len(rows) < self.num_envs:
            states = tuple(state[rows] for state in states)  # type: ignore[assignment]
        return {key: self._array(value) for key, value in self.task.observe(*states).items()}

    def _infos(
        self, rows: _Rows, invalid: npt.NDArray[np.bool_] | None = None, acted: npt.NDArray[np.bool_] | None = None
    ) -> dict[str, Any]:
        """Return the infos of ``rows``; for those that ``acted`` (default: all), also if the action was invalid."""
        mask, episodes = self._batch.legal.astype(np.int8), self._batch.episodes.copy()
        present = self._everyone >= 0
        if len(rows) < self.num_envs:
            present[:] = False
            present[rows] = True
            mask[~present], episodes[~present] = 0, 0
        infos = {"action_mask": mask, "_action_mask": present}
        infos |= {"episode_index": episodes, "_episode_index": present.copy()}
        if invalid is not None:
            acted = present.copy() if acted is None else acted.copy()
            if np.count_nonzero(acted):
                infos |= {"invalid_action": invalid & acted, "_invalid_action": acted}
        return infos

    def _array(self, values: Any) -> Any:
        """Convert an array or tensor to ``array_type``."""
        if self.array_type == "numpy":
            return values.cpu().numpy() if hasattr(values, "cpu") else values
        import torch  # here, so that importing this module does not load it

        values = torch.as_tensor(values, device=self.task.encoder.device)
        return values.float() if values.dtype == torch.float64 else values  # torch libraries expect float32 rewards


class _Draws:
    """A stream of random episodes for each row, drawn in blocks: the same as single draws, but many times faster."""

    _BLOCK = 32

    def __init__(self, n_rows: int, n_episodes: int) -> None:
        self._n_episodes = n_episodes
        self._rngs = [gym.utils.seeding.np_random()[0] for _ in range(n_rows)]
        self._block = np.zeros((n_rows, self._BLOCK), dtype=np.int64)
        self._used = np.full(n_rows, self._BLOCK)

    def seed(self, seed: int | Sequence[int | None] | None, rows: _Rows) -> None:
        """Seed ``rows`` like ``SyncVectorEnv`` seeds its envs; None leaves a stream unchanged."""
        n = len(self._rngs)
        seeds = [None] * n if seed is None else range(seed, seed + n) if isinstance(seed, int) else list(seed)
        if len(seeds) != n:
            raise ValueError(f"there are {len(seeds)} seeds for {n} envs")
        for row in rows.tolist():
            if seeds[row] is not None:
                self._rngs[row] = gym.utils.seeding.np_random(seeds[row])[0]
                self._used[row] = self._BLOCK

    def next(self, rows: _Rows) -> _Rows:
        """Draw an episode for each of ``rows``."""
        for row in rows[self._used[rows] == self._BLOCK].tolist():
            self._block[row] = self._rngs[row].integers(self._n_episodes, size=self._BLOCK)
            self._used[row] = 0
        drawn = self._block[rows, self._used[rows]]
        self._used[rows] += 1
        return drawn
