"""Make the page of a run, or tables, figures and the page of a benchmark or of experiments: ``pmlm report``."""

from __future__ import annotations

from agents.report.config import ReportConfig

Config = ReportConfig


def run(config: ReportConfig) -> int:
    """Write the page; see ``agents.report.page``. Of a benchmark, also write and print ``report.md``."""
    from agents.report.page.results_page import write_results_page
    from agents.report.page.run_page import write_run_page
    from agents.report.report import report
    from agents.report.results import experiment_tables, run_files
    from agents.run_folder import RunFolder

    if config.run is not None:
        print(f"page: {write_run_page(RunFolder(config.run))}")
        return 0
    if run_files(config.results) or not experiment_tables(config.results):
        report(config)
    print(f"page: {write_results_page(config.results, config.out or config.results)}")
    return 0
