"""``PMLMLite-v0``: the rules of ``PMLM-v0`` without weights, for testing algorithms at full speed."""

from __future__ import annotations

from pmlm_env.encoders.hashed import HashedEncoder
from pmlm_env.envs.lite.env import PMLMLiteEnv, PMLMLiteVectorEnv
from pmlm_env.envs.lite.episodes import lite_episodes
from pmlm_env.envs.lite.reward import LiteReward, Optimum
from pmlm_env.envs.lite.rules import CONDITIONS
from pmlm_env.envs.lite.task import lite_task

__all__ = [
    "CONDITIONS",
    "HashedEncoder",
    "LiteReward",
    "Optimum",
    "PMLMLiteEnv",
    "PMLMLiteVectorEnv",
    "lite_episodes",
    "lite_task",
]
