"""Write tables and figures of a benchmark: ``pmlm report``."""

from __future__ import annotations

from agents.report.config import ReportConfig

Config = ReportConfig


def run(config: ReportConfig) -> int:
    """Write the report; see ``agents.report.report.report``."""
    from agents.report.report import report

    report(config)
    return 0
