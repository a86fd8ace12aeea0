"""Evaluate a trained agent on held-out patients: ``pmlm evaluate``."""

from __future__ import annotations

import shlex

from agents.evaluation.config import EvaluateConfig

Config = EvaluateConfig


def run(config: EvaluateConfig) -> int:
    """Evaluate; see ``agents.evaluation.evaluate.evaluate``. Then write the page, and say how to look at patients."""
    from agents.evaluation.evaluate import evaluate
    from agents.report.page.run_page import write_run_page
    from agents.run_folder import RunFolder

    evaluate(config)
    print(f"\nThe page with all patients, for the browser: {write_run_page(RunFolder(config.run))}")
    print(f"In the terminal: pmlm show --run {shlex.quote(str(config.run))}, and one of them with --patient ID")
    return 0
