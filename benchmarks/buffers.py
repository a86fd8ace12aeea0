"""Memory of a rollout buffer with observations in index form: half a kilobyte per step instead of 0.4 MiB."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import torch
from sb3_contrib.common.maskable.buffers import MaskableDictRolloutBuffer
from sb3_contrib.common.maskable.utils import get_action_masks

from agents.sb3 import PMLMVecEnv
from pmlm_env import PMLMLiteVectorEnv

_STEPS, _ENVS, _SLOTS, _BATCH = 2048, 8, 128, 256


def index_buffer_mib() -> float:
    """Fill and read a ``MaskableDictRolloutBuffer`` of 2,048 steps of 8 Lite envs with 128 slots each.

    Returns:
        Peak memory of Python and numpy without the env, in MiB. Torch's memory, one minibatch at a time, is not traced.
    """
    env: Any = PMLMVecEnv(PMLMLiteVectorEnv(_ENVS, observation="index", max_words=_SLOTS))
    env.seed(0)
    observation = env.reset()
    rng = np.random.default_rng(0)
    starts = np.ones(_ENVS, dtype=np.bool_)
    nothing = torch.zeros(_ENVS)
    tracemalloc.start()
    buffer = MaskableDictRolloutBuffer(_STEPS, env.observation_space, env.action_space, "cpu", n_envs=_ENVS)
    for _ in range(_STEPS):
        masks = get_action_masks(env)
        actions = (rng.random(masks.shape) * masks).argmax(axis=1)
        following, rewards, dones, _ = env.step(actions)
        buffer.add(observation, actions, rewards, starts, nothing, nothing, action_masks=masks)
        observation, starts = following, dones
    buffer.compute_returns_and_advantage(last_values=nothing, dones=starts)
    n_read = sum(len(batch.actions) for batch in buffer.get(_BATCH))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert n_read == _STEPS * _ENVS
    return peak / 2**20


if __name__ == "__main__":
    print(f"{index_buffer_mib():.1f} MiB")
