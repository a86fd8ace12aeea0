"""Refine prompts with a trained agent: ``pmlm refine``."""

from __future__ import annotations

from agents.serving.config import RefineConfig

Config = RefineConfig


def run(config: RefineConfig) -> int:
    """Refine; see ``agents.serving.refine.refine``."""
    from agents.serving.refine import refine

    refine(config)
    return 0
