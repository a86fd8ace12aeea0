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

_MODULES = {
    "MaskableWordActorCriticPolicy": "policies",
    "PMLMVecEnv": "vec_env",
    "WordActorCriticPolicy": "policies",
    "WordDQNPolicy": "policies",
    "WordFeatures": "features",
    "WordQRDQNPolicy": "policies",
}

__all__ = [
    "MaskableWordActorCriticPolicy",
    "PMLMVecEnv",
    "WordActorCriticPolicy",
    "WordDQNPolicy",
    "WordFeatures",
    "WordQRDQNPolicy",
]


def __getattr__(name: str) -> Any:
    """Import a class at its first use, so that importing ``agents.sb3.config`` does not load torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
