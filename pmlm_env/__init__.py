"""Gymnasium environments for per-patient prompt editing with a language model in the loop."""

from __future__ import annotations

from gymnasium.envs.registration import register

from pmlm_env.env import PMLMEnv
from pmlm_env.episodes import Episode, EpisodeSet
from pmlm_env.lite import PMLMLiteEnv, PMLMLiteVectorEnv
from pmlm_env.vector_env import PMLMVectorEnv

__version__ = "0.1.0"
__all__ = ["Episode", "EpisodeSet", "PMLMEnv", "PMLMLiteEnv", "PMLMLiteVectorEnv", "PMLMVectorEnv", "__version__"]

register(
    id="PMLM-v0",
    entry_point="pmlm_env.env:PMLMEnv",
    vector_entry_point="pmlm_env.vector_env:PMLMVectorEnv",
    # A language model may answer otherwise in another batch, where two next words are all but equally likely.
    nondeterministic=True,
)

register(
    id="PMLMLite-v0",
    entry_point="pmlm_env.lite.env:PMLMLiteEnv",
    vector_entry_point="pmlm_env.lite.env:PMLMLiteVectorEnv",
)
