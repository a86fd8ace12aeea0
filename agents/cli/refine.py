"""Refine prompts with a trained agent, of new patients too: ``pmlm refine``."""

from __future__ import annotations

from agents.serving.config import RefineConfig

Config = RefineConfig


def run(config: RefineConfig) -> int:
    """Refine; see ``agents.serving.patients.refine``. The exit code is 1 if a reply is missing."""
    from agents.serving.patients import refine

    return int(any(trace.error for trace in refine(config)))
