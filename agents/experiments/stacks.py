"""Rows of tables with several runs each, and how their numbers are written."""

from __future__ import annotations

from collections.abc import Sequence

from agents.evaluation.bootstrap import Interval
from agents.experiments.groups import Run
from agents.experiments.reply_table import level
from agents.report.tables import in_points


def by_row(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs by the name of their row, with the calls for fitting where there are several budgets."""
    several = len({run["cell"]["budget"] for run in runs if "budget" in run["cell"]}) > 1
    rows: dict[str, list[Run]] = {}
    for run in runs:
        row, budget = run["cell"]["row"], run["cell"].get("budget")
        rows.setdefault(f"{row} ({budget:,} calls)" if budget and several else row, []).append(run)
    return rows


def change(interval: Interval | None) -> str:
    """Return a difference in points, with its sign and its interval; a dash if there is none."""
    return "-" if interval is None else in_points(interval)


def percent(interval: Interval | None) -> str:
    """Return a score in hundredths, with its interval; a dash if there is none."""
    return "-" if interval is None else level(interval)


def share(interval: Interval | None) -> str:
    """Return a share in whole percent, with its interval, which ends at 0 and 100 %; a dash if there is none."""
    return "-" if interval is None else level(interval.within(0, 1), decimals=0)
