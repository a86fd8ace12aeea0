"""Evaluate a trained agent on held-out patients: ``pmlm evaluate``."""

from __future__ import annotations

import shlex
from pathlib import Path

from agents.evaluation.config import EvaluateConfig

Config = EvaluateConfig


def run(config: EvaluateConfig) -> int:
    """Evaluate; see ``agents.evaluation.evaluate.evaluate``. Then write the page, and say how to look at patients."""
    from agents.evaluation.evaluate import evaluate

    evaluate(config)
    print(f"\n{page_of(config.run)}")
    return 0


def page_of(run: Path) -> str:
    """Write the page of an evaluated run, and return two lines: where it is, and how to look at a patient without it.

    Raises:
        ValueError: See ``agents.report.page.run_page.write_run_page``, for other exceptions too.
    """
    from agents.report.page.run_page import write_run_page
    from agents.run_folder import RunFolder

    return (
        f"All patients are on the page {write_run_page(RunFolder(run))}, for the browser.\n"
        f"In the terminal: pmlm show --run {shlex.quote(str(run))} lists them, and --patient ID shows one."
    )
