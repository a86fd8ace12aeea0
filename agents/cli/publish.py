"""Publish a trained agent: ``pmlm publish``."""

from __future__ import annotations

from agents.serving.config import PublishConfig

Config = PublishConfig


def run(config: PublishConfig) -> int:
    """Publish; see ``agents.serving.publish.publish``."""
    from agents.serving.publish import publish

    publish(config)
    return 0
