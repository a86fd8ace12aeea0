"""Policies, feature extractors and the VecEnv adapter for Stable-Baselines3."""

from __future__ import annotations

try:
    import sb3_contrib  # noqa: F401  (brings stable_baselines3 along)
except ImportError as error:
    raise ImportError(f'agents.sb3 needs Stable-Baselines3 ({error}): pip install "pmlm-env[sb3]"') from None

from agents.sb3.features import WordFeatures
from agents.sb3.policies import (
    MaskableWordActorCriticPolicy,
    WordActorCriticPolicy,
    WordDQNPolicy,
    WordQRDQNPolicy,
)
from agents.sb3.vec_env import PMLMVecEnv

__all__ = [
    "MaskableWordActorCriticPolicy",
    "PMLMVecEnv",
    "WordActorCriticPolicy",
    "WordDQNPolicy",
    "WordFeatures",
    "WordQRDQNPolicy",
]
