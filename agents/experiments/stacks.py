"""Results of several seeds on the same patients, as arrays, with intervals over both."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from agents.evaluation.aggregate import crossed_bootstrap
from agents.evaluation.bootstrap import Interval
from agents.report.tables import in_points

#: The metrics of an experiment's runs by name, each float64 (seeds, patients); NaN where undefined.
Stack = dict[str, npt.NDArray[np.float64]]

Run = Mapping[str, Any]


def grouped(runs: Iterable[Run], key: Callable[[Run], Any]) -> list[tuple[Any, list[Run]]]:
    """Return the runs by a key of JSON values, in the order of their first runs."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(json.dumps(key(run), sort_keys=True), []).append(run)
    return [(json.loads(name), own) for name, own in groups.items()]


def by_row(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Return the runs by the name of their row, with the calls for fitting where there are several budgets."""
    runs = list(runs)
    several = len({run["cell"]["budget"] for run in runs if run["cell"].get("budget")}) > 1
    rows: dict[str, list[Run]] = {}
    for run in runs:
        row, budget = run["cell"]["row"], run["cell"].get("budget")
        rows.setdefault(f"{row} ({budget:,} calls)" if budget and several else row, []).append(run)
    return rows


def stacked(runs: Sequence[Run]) -> Stack:
    """Return the metrics of runs that differ in their seeds alone.

    Raises:
        ValueError: Their patients differ.
    """
    results = [run["result"] for run in runs]
    if any(result["patients"] != results[0]["patients"] for result in results):
        raise ValueError("runs have other patients, though the same settings")
    names = results[0]["metrics"]
    return {name: np.array([result["metrics"][name] for result in results], dtype=np.float64) for name in names}


def interval(values: npt.NDArray[np.float64]) -> Interval:
    """Return the mean of values of shape (seeds, patients), with its 95 % interval over both.

    Patients without a value are left out; if nobody has one, the mean is NaN.
    """
    values = values[:, ~np.isnan(values).any(axis=0)]
    return crossed_bootstrap(values, np.random.default_rng(0)) if values.size else Interval(float("nan"))


def minus(ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64]) -> Interval:
    """Return the difference of two metrics of shape (seeds, patients), paired by patient and, if they are as many, seed.

    Otherwise the others' mean over seeds is subtracted.
    """
    return interval(ours - (theirs if len(theirs) == len(ours) else theirs.mean(axis=0, keepdims=True)))


def change(value: Interval) -> str:
    """Return a difference in points, with its sign and its interval; a dash if there is none."""
    return "-" if np.isnan(value.mean) else in_points(value)


def level(value: Interval, decimals: int = 2) -> str:
    """Return a fraction in hundredths with its interval, without a sign if it is positive; a dash if there is none."""
    if np.isnan(value.mean):
        return "-"
    mean = f"{100 * value.mean:.{decimals}f}"
    if value.low is None or value.high is None:
        return mean
    return f"{mean} [{100 * value.low:.{decimals}f}, {100 * value.high:.{decimals}f}]"
