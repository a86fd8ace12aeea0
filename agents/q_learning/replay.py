"""Replay buffer: episodes stored as deleted slots; prompts are embedded again when episodes are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pmlm_env.core.task import EditTask

_Index = npt.NDArray[np.int64]


class Replay:
    """All episodes so far. Each is stored as its prompt, the deleted slots in order and the reward: some hundred bytes.

    Illegal deletions, which change nothing, are not stored.

    Args:
        task: The env's task; it embeds the words.
    """

    def __init__(self, task: EditTask) -> None:
        """Start without episodes."""
        first = task.batch(len(task.episodes))
        first.load(np.arange(len(task.episodes)), np.arange(len(task.episodes)))
        self._kept, self._legal, self._task = first.kept, first.legal, task
        self._episodes: list[int] = []
        self._slots: list[tuple[int, ...]] = []
        self._rewards: list[float] = []
        self._of_patient: dict[int, list[float]] = {}

    def __len__(self) -> int:
        """Return the number of episodes."""
        return len(self._episodes)

    def add(self, episode: int, deleted: tuple[int, ...], reward: float) -> None:
        """Add an episode; ignored if nothing was deleted in it."""
        if deleted:
            self._episodes.append(episode)
            self._slots.append(deleted)
            self._rewards.append(reward)
            self._of_patient.setdefault(episode, []).append(reward)

    def lengths(self, drawn: _Index) -> _Index:
        """Return the number of steps of each episode drawn, int64 (B,)."""
        return np.array([len(self._slots[i]) for i in drawn], dtype=np.int64)

    def slots(self, drawn: _Index, at: _Index) -> _Index:
        """Return the slot deleted in step ``at`` (counted from 0) of each episode drawn, int64 (B,)."""
        return np.array([self._slots[i][t] for i, t in zip(drawn, at, strict=True)], dtype=np.int64)

    def returns(self, drawn: _Index) -> npt.NDArray[np.float64]:
        """Return rewards standardized over the same patient's rewards, (B,); 0 for a patient's only reward."""
        scores = np.zeros(len(drawn))
        for row, i in enumerate(drawn):
            others = np.array(self._of_patient[self._episodes[i]])
            spread = others.std()
            scores[row] = 0.0 if spread < 1e-8 else (self._rewards[i] - others.mean()) / spread
        return scores

    def observe(self, drawn: _Index, at: _Index) -> dict[str, Any]:
        """Return the env's observation before step ``at`` of each episode drawn, as tensors with B rows."""
        episodes = np.array([self._episodes[i] for i in drawn], dtype=np.int64)
        kept, legal = self._kept[episodes], self._legal[episodes]
        for row, (i, t) in enumerate(zip(drawn, at, strict=True)):
            gone = list(self._slots[i][:t])
            kept[row, gone] = legal[row, gone] = False
        seen = self._task.observe(episodes, kept, legal)
        return {key: torch.as_tensor(value, device=self._task.encoder.device) for key, value in seen.items()}
