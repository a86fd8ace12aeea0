"""Gymnasium environments for per-patient prompt editing with a language model in the loop."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gymnasium.envs.registration import register

if TYPE_CHECKING:
    from pmlm_env.core.edits import EditRules
    from pmlm_env.core.episodes import Episode, EpisodeSet
    from pmlm_env.core.task import EditTask
    from pmlm_env.envs.lite.env import PMLMLiteEnv, PMLMLiteVectorEnv
    from pmlm_env.envs.prompt_edit import PMLMEnv
    from pmlm_env.envs.prompt_edit_vector import PMLMVectorEnv

# The same seed must give the same result. MKL, which multiplies torch's matrices on x86 processors, rounds a product of
# a matrix and a vector by where the arrays are in memory, unless it is told not to ("conditional numerical
# reproducibility"). It reads this at its first use.
os.environ.setdefault("MKL_CBWR", "AUTO")

__version__ = "0.1.0"
__all__ = [
    "EditRules",
    "EditTask",
    "Episode",
    "EpisodeSet",
    "PMLMEnv",
    "PMLMLiteEnv",
    "PMLMLiteVectorEnv",
    "PMLMVectorEnv",
    "__version__",
]

#: Where the public names are: they are imported at their first use, for some of them load torch.
_MODULES = {
    "EditRules": "pmlm_env.core.edits",
    "EditTask": "pmlm_env.core.task",
    "Episode": "pmlm_env.core.episodes",
    "EpisodeSet": "pmlm_env.core.episodes",
    "PMLMEnv": "pmlm_env.envs.prompt_edit",
    "PMLMLiteEnv": "pmlm_env.envs.lite.env",
    "PMLMLiteVectorEnv": "pmlm_env.envs.lite.env",
    "PMLMVectorEnv": "pmlm_env.envs.prompt_edit_vector",
}

register(
    id="PMLM-v0",
    entry_point="pmlm_env.envs.prompt_edit:PMLMEnv",
    vector_entry_point="pmlm_env.envs.prompt_edit_vector:PMLMVectorEnv",
    # A language model may answer otherwise in another batch, where two next words are all but equally likely.
    nondeterministic=True,
)

register(
    id="PMLMLite-v0",
    entry_point="pmlm_env.envs.lite.env:PMLMLiteEnv",
    vector_entry_point="pmlm_env.envs.lite.env:PMLMLiteVectorEnv",
)


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)
