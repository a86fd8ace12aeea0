"""Evaluate a trained agent on held-out patients: ``pmlm evaluate``."""

from __future__ import annotations

from agents.evaluation.config import EvaluateConfig

Config = EvaluateConfig


def run(config: EvaluateConfig) -> int:
    """Evaluate; see ``agents.evaluation.evaluate.evaluate``."""
    from agents.evaluation.evaluate import evaluate

    evaluate(config)
    return 0
