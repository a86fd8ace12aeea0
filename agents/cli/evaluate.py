"""Evaluate a trained agent on held-out patients: ``pmlm evaluate``."""

from __future__ import annotations

from agents.evaluation.config import EvaluateConfig

Config = EvaluateConfig


def run(config: EvaluateConfig) -> int:
    """Evaluate; see ``agents.evaluation.evaluate.evaluate``. Then write the page."""
    from agents.evaluation.evaluate import evaluate
    from agents.report.page.run_page import write_run_page
    from agents.run_folder import RunFolder

    evaluate(config)
    print(f"\npage: {write_run_page(RunFolder(config.run))}")
    return 0
