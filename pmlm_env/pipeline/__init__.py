"""Stages 1 to 3 combined: from a ``Cohort`` to an ``EpisodeSet``, and for patients who come later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pmlm_env.pipeline.config import PipelineConfig
    from pmlm_env.pipeline.episodes import build_episodes, demo_episodes, make_episodes
    from pmlm_env.pipeline.fitted import Pipeline
    from pmlm_env.pipeline.report import PipelineReport

__all__ = ["Pipeline", "PipelineConfig", "PipelineReport", "build_episodes", "demo_episodes", "make_episodes"]

#: Where the public names are: they are imported at their first use, because most of them load torch.
_MODULES = {
    "Pipeline": "pmlm_env.pipeline.fitted",
    "PipelineConfig": "pmlm_env.pipeline.config",
    "PipelineReport": "pmlm_env.pipeline.report",
    "build_episodes": "pmlm_env.pipeline.episodes",
    "demo_episodes": "pmlm_env.pipeline.episodes",
    "make_episodes": "pmlm_env.pipeline.episodes",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)
