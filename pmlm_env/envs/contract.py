"""Shared parts of the scalar and the vector env: spaces, render modes, reset options, and the last step's infos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from pmlm_env.core.edits import EditBatch
from pmlm_env.core.outcomes import Outcomes
from pmlm_env.core.task import EditTask
from pmlm_env.registry import did_you_mean

#: Bound on embeddings and patient vectors, far above any real value; Gymnasium's checker wants a finite one.
_BOUND = 1e6

RENDER_MODES = ("ansi", "rgb_array")

#: The names in ``options`` of ``reset``; ``reset_mask`` is for vector envs.
_RESET_OPTIONS = ("episode", "reset_mask")

#: A value of each row that ended; or several such columns by name, which make a dictionary in the infos.
Column: TypeAlias = Sequence[Any] | npt.NDArray[Any] | Mapping[str, npt.NDArray[np.float64]]

#: For each key of the infos: the values of the rows that ended, and which of these rows have the key, bool.
Columns = dict[str, tuple[Column, npt.NDArray[np.bool_]]]


def observation_space(task: EditTask) -> gym.spaces.Dict:
    """Return the observation space of one env."""
    mask = gym.spaces.MultiBinary(task.max_words)
    if task.observation == "index":
        return gym.spaces.Dict(
            episode=gym.spaces.Discrete(len(task.episodes)),
            kept=gym.spaces.MultiBinary(task.max_words),
            action_mask=mask,
        )
    shape = (task.max_words, task.encoder.hidden_size)
    return gym.spaces.Dict(
        embeddings=gym.spaces.Box(-_BOUND, _BOUND, shape, np.float32),
        patient=gym.spaces.Box(-_BOUND, _BOUND, (task.patient_size,), np.float32),
        action_mask=mask,
    )


def action_space(task: EditTask) -> gym.spaces.Discrete:
    """Return the action space of one env."""
    return gym.spaces.Discrete(task.max_words)


def checked_render_mode(mode: str | None) -> str | None:
    """Return ``mode``.

    Raises:
        ValueError: There is no such mode.
    """
    if mode not in (None, *RENDER_MODES):
        raise ValueError(f"render_mode is {mode!r}: use one of {list(RENDER_MODES)}")
    return mode


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse names of reset options that look like misspelt ones; other names may be for a wrapper.

    Raises:
        ValueError: There is one.
    """
    for name in options:
        if name not in _RESET_OPTIONS and (meant := did_you_mean(str(name), _RESET_OPTIONS)):
            raise ValueError(f"there is no reset option {name!r}{meant}: use {' or '.join(_RESET_OPTIONS)}")


def chosen_episodes(options: dict[str, Any] | None, n_episodes: int) -> npt.NDArray[np.int64] | None:
    """Return the episode indices in ``options["episode"]``, in its shape, or None.

    Raises:
        ValueError: An index does not exist, or an option looks like a misspelt one.
    """
    if options is None:
        return None
    check_options(options)
    if "episode" not in options:
        return None
    index = np.asarray(options["episode"])
    if index.dtype.kind not in "iu" or ((index < 0) | (index >= n_episodes)).any():
        raise ValueError(f"options['episode'] is {options['episode']!r}: there are episodes 0 to {n_episodes - 1}")
    return index


def final_columns(batch: EditBatch, rows: npt.NDArray[np.int64], outcomes: Outcomes) -> Columns:
    """Return the infos of the episodes in ``rows``, which have ended."""
    failed, prompts = outcomes.failed, batch.prompts(rows)
    answered, all_rows = ~failed, np.ones(len(failed), dtype=np.bool_)
    columns: Columns = {"edits": (batch.edits(rows), all_rows), "llm_calls": (outcomes.llm_calls, all_rows)}
    if answered.any():
        for name in ("score", "initial_score"):
            columns[name] = (getattr(outcomes, name), answered)
        for name in ("score_sd", "initial_score_sd"):
            if getattr(outcomes, name) is not None:
                columns[name] = (getattr(outcomes, name), answered)
        for name in ("components", "initial_components"):
            if getattr(outcomes, name):
                columns[name] = (getattr(outcomes, name), answered)
        if outcomes.texts is not None:
            columns["prompt"] = (list(prompts), all_rows)
            for name in ("reply", "initial_reply", "reference"):
                columns[name] = (getattr(outcomes.texts, name), answered)
    if failed.any():
        columns["prompt"] = (list(prompts), all_rows)
        columns["llm_error"] = (outcomes.errors, failed)
    return columns


def final_row(columns: Columns, row: int) -> dict[str, Any]:
    """Return the infos of one of the rows that ended."""
    return {
        key: {name: each[row] for name, each in values.items()} if isinstance(values, Mapping) else values[row]
        for key, (values, where) in columns.items()
        if where[row]
    }


def info_of(infos: Mapping[str, Any], row: int) -> dict[str, Any]:
    """Return one env's part of a vector env's infos, also inside dictionaries."""
    return {
        key: info_of(values, row) if isinstance(values, Mapping) else values[row]
        for key, values in infos.items()
        if key[0] != "_" and infos[f"_{key}"][row]
    }


def plain(value: Any) -> Any:
    """Return a numpy number as a Python number, also inside dictionaries."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return value.item() if isinstance(value, np.generic) else value
