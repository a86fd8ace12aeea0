"""The table of ``table-a1``: a part for each cohort, a row for each predictor."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from agents.evaluation.bootstrap import FEWEST, Interval
from agents.experiments.table_a1 import MAJORITY, ROWS
from pmlm_env.io.text import as_text

_Floats = npt.NDArray[np.float64]

#: Micro- and macro-F1 in the paper, in %. Its LLM was LLaVA1.5-7B.
_PAPER = {
    "lstm": (21.60, 5.51),
    "cnn": (20.89, 6.42),
    "rocket": (36.05, 20.58),
    "transformer": (41.12, 24.58),
    "lora-llm": (82.58, 74.13),
}

_N_RESAMPLES = 2_000

_HEAD = """\
| predictor | micro-F1, % | macro-F1, % | calibration error, % | Brier | fit, s | predict, ms | memory, MB | seeds |{}
|---|---|---|---|---|---|---|---|---|{}"""


def predictor_tables(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return a table for each cohort, with the number of its patients.

    Args:
        runs: The runs of ``table-a1``, each with its ``cell`` and its ``result``.
    """
    cohorts: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        of_run = ("predictor", "kwargs", "seed")
        cohort = {name: value for name, value in run["cell"].items() if name not in of_run}
        cohorts.setdefault(json.dumps(cohort, sort_keys=True), []).append(run)
    return "\n\n".join(_table(json.loads(cohort), own) for cohort, own in cohorts.items()) + "\n"


def f1_intervals(
    runs: Sequence[Mapping[str, Any]], same_patients: bool, rng: np.random.Generator, n_resamples: int = _N_RESAMPLES
) -> tuple[Interval, Interval]:
    """Return micro- and macro-F1 over seeds and test patients, with 95 % percentile bootstrap intervals.

    Seeds are drawn with replacement, and patients within each. If all seeds have the same patients, these are drawn
    once for all seeds (Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007). Otherwise the interval is
    somewhat too wide, up to sqrt(2 - 1 / R) times with R seeds, because the differences between seeds are partly those
    of their patients. With fewer than ``FEWEST`` patients, there is no interval.

    Args:
        runs: For each seed, ``truth`` and ``predicted``: the positions of the test patients' labels in ``labels``.
        same_patients: Whether all seeds have the same test patients.
        rng: Draws the resamples.
        n_resamples: Number of resamples.
    """
    scores, resampled, weights = [], [], None
    for run in runs:
        n, n_labels = len(run["truth"]), len(run["labels"])
        pairs = np.eye(n_labels**2)[np.array(run["truth"]) * n_labels + run["predicted"]]
        if weights is None or not same_patients:
            weights = rng.multinomial(n, np.full(n, 1 / n), size=n_resamples)
        scores.append(_f1(pairs.sum(axis=0)[None], n_labels)[:, 0])
        resampled.append(_f1(weights @ pairs, n_labels))
    means = np.mean(scores, axis=0)
    if min(len(run["truth"]) for run in runs) < FEWEST:
        return Interval(float(means[0])), Interval(float(means[1]))
    seeds = rng.multinomial(len(runs), np.full(len(runs), 1 / len(runs)), size=n_resamples) / len(runs)
    drawn = np.einsum("bs,smb->mb", seeds, np.array(resampled))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=1)
    micro, macro = (Interval(float(means[i]), float(low[i]), float(high[i])) for i in range(2))
    return micro, macro


def _f1(counts: _Floats, n_labels: int) -> _Floats:
    """Return micro- and macro-F1, shape (2, B), of counts of (truth, prediction), shape (B, n_labels^2).

    The latter is the mean over the labels that occur, as in ``pmlm_env.predictors.metrics``.
    """
    matrix = counts.reshape(-1, n_labels, n_labels)
    right = np.diagonal(matrix, axis1=1, axis2=2)
    there = matrix.sum(axis=1) + matrix.sum(axis=2)
    f1 = np.divide(2 * right, there, out=np.zeros_like(there, dtype=np.float64), where=there > 0)
    return np.stack([right.sum(axis=1) / matrix.sum(axis=(1, 2)), f1.sum(axis=1) / (there > 0).sum(axis=1)])


def _table(cohort: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> str:
    """Return a cohort's part."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        rows.setdefault(_row_of(run["cell"]), []).append(run)
    has_paper = cohort["data"] == "simulated-paper"
    lines = [_HEAD.format(" the paper's |", "---|") if has_paper else _HEAD.format("", "")]
    for name in sorted(rows, key=lambda name: _place(name)):
        found = _PAPER.get(name.partition(",")[0])
        paper = f" {found[0]:.2f} / {found[1]:.2f} |" if found else " |"
        lines.append(_row(name, rows[name], "sha256" in cohort) + (paper if has_paper else ""))
    return "\n".join([_title(cohort, runs), "", *lines])


def _title(cohort: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> str:
    n = [int(np.mean([run["result"]["patients"][part] for run in runs])) for part in ("train", "validation", "test")]
    about = "{}: {} training patients, {} validation patients, {} test patients".format(as_text(cohort["data"]), *n)
    return f"{about}, the same for all seeds." if "sha256" in cohort else f"{about}, others for each seed."


def _row_of(cell: Mapping[str, Any]) -> str:
    """Return the name of a run's row."""
    name, kwargs = cell["predictor"], cell["kwargs"]
    for row, (predictor, usual) in ROWS.items():
        if predictor == name and usual.items() <= kwargs.items():
            return row
    return f"{name}, {json.dumps(kwargs)}" if kwargs else name


def _place(name: str) -> tuple[int, str]:
    return (list(ROWS).index(name) if name in ROWS else len(ROWS), name)


def _row(name: str, runs: Sequence[Mapping[str, Any]], same_patients: bool) -> str:
    results = [run["result"] for run in runs]
    micro, macro = f1_intervals(results, same_patients, np.random.default_rng(0))  # the same resamples for all rows

    def mean(of: Callable[[Any], float]) -> float:
        return float(np.mean([of(result) for result in results]))

    cells = [
        f"*{name}*" if name == MAJORITY else as_text(name),
        _in_percent(micro),
        _in_percent(macro),
        f"{100 * mean(lambda result: result['calibration_error']):.1f}",
        f"{mean(lambda result: result['brier']):.3f}",
        f"{mean(lambda result: result['fit_seconds']):.1f}",
        f"{1000 * mean(lambda result: result['predict_seconds'] / result['patients']['test']):.2f}",
        f"{mean(lambda result: result['peak_mb']):.0f}",
        str(len(runs)),
    ]
    return f"| {' | '.join(cells)} |"


def _in_percent(interval: Interval) -> str:
    text = f"{100 * interval.mean:.1f}"
    if interval.low is None or interval.high is None:
        return text
    return f"{text} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
