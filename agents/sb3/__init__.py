"""Policies, feature extractors and the VecEnv adapter for Stable-Baselines3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    """Import the classes lazily, so that ``agents.sb3.config`` can be imported without torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from agents.sb3 import features, policies, vec_env

    return next(getattr(module, name) for module in (vec_env, policies, features) if hasattr(module, name))
