"""The table of ``table-a1``: a part for each cohort, a row for each predictor."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from agents.evaluation.aggregate import nested_resamples
from agents.evaluation.bootstrap import FEWEST, Interval
from agents.experiments.rows import MAJORITY, ROWS
from pmlm_env.io.text import as_text
from pmlm_env.pipeline.config import PipelineConfig

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

#: The predictor that the others are compared with, which is the default.
_DEFAULT = PipelineConfig().predictor

_HEAD = (
    "predictor", "micro-F1, %", f"minus {_DEFAULT}", "macro-F1, %", "calibration error, %", "Brier", "fit, s",
    "predict, ms", "memory, MB", "seeds",
)  # fmt: skip


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
    runs: Sequence[Mapping[str, Any]],
    same_patients: bool,
    rng: np.random.Generator,
    minus: Sequence[Mapping[str, Any]] | None = None,
    n_resamples: int = _N_RESAMPLES,
) -> tuple[Interval, Interval]:
    """Return micro- and macro-F1 over seeds and test patients, with 95 % percentile bootstrap intervals.

    Seeds are drawn with replacement, and patients within each. If all seeds have the same patients, these are drawn
    once for all seeds (Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007). Otherwise the interval is
    somewhat too wide, up to sqrt(2 - 1 / R) times with R seeds; see ``nested_resamples``. With fewer than ``FEWEST``
    patients, there is no interval.

    Args:
        runs: For each seed, ``truth`` and ``predicted``: the positions of the test patients' labels in ``labels``.
        same_patients: Whether all seeds have the same test patients.
        rng: Draws the resamples.
        minus: Another predictor's runs with the same seeds and patients, whose F1 is subtracted in each resample.
        n_resamples: Number of resamples.
    """
    scores, resampled, weights = [], [], None
    for position, run in enumerate(runs):
        n = len(run["truth"])
        if weights is None or not same_patients:
            weights = rng.multinomial(n, np.full(n, 1 / n), size=n_resamples)
        score, drawn = _f1_of(run, np.ones((1, n))), _f1_of(run, weights)
        if minus is not None:
            score, drawn = score - _f1_of(minus[position], np.ones((1, n))), drawn - _f1_of(minus[position], weights)
        scores.append(score[:, 0])
        resampled.append(drawn)
    means = np.mean(scores, axis=0)
    if min(len(run["truth"]) for run in runs) < FEWEST:
        return Interval(float(means[0])), Interval(float(means[1]))
    if same_patients:
        seeds = rng.multinomial(len(runs), np.full(len(runs), 1 / len(runs)), size=n_resamples) / len(runs)
        drawn = np.einsum("bs,smb->mb", seeds, np.array(resampled))
    else:
        drawn = nested_resamples(np.array(resampled), rng)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=1)
    micro, macro = (Interval(float(means[i]), float(low[i]), float(high[i])) for i in range(2))
    return micro, macro


def _f1_of(run: Mapping[str, Any], weights: npt.NDArray[np.generic]) -> _Floats:
    """Return micro- and macro-F1, shape (2, B), of a run whose patients count as often as the weights say, (B, N).

    The latter is the mean over the labels that occur, as in ``pmlm_env.predictors.metrics``.
    """
    truth, predicted = (np.eye(len(run["labels"]))[run[name]] for name in ("truth", "predicted"))
    weights = weights.astype(np.float64)
    right, there = weights @ (truth * predicted), weights @ (truth + predicted)
    f1 = np.divide(2 * right, there, out=np.zeros_like(there), where=there > 0)
    return np.stack([right.sum(axis=1) / weights.sum(axis=1), f1.sum(axis=1) / (there > 0).sum(axis=1)])


def _table(cohort: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> str:
    """Return a cohort's part."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        rows.setdefault(_row_of(run["cell"]), []).append(run)
    default = {run["cell"]["seed"]: run["result"] for run in rows.get(_DEFAULT, [])}
    has_paper = cohort["data"] == "simulated-paper" and "sha256" not in cohort  # not of a folder with that name
    table = [[*_HEAD, *(["the paper's"] if has_paper else [])]]
    table.append(["---"] * len(table[0]))
    for name in sorted(rows, key=_place):
        found = _PAPER.get(name.partition(",")[0])
        paper = [f"{found[0]:.2f} / {found[1]:.2f}" if found else ""] if has_paper else []
        table.append([*_row(name, rows[name], default, "sha256" in cohort), *paper])
    return "\n".join([_title(cohort, runs), "", *(f"| {' | '.join(cells)} |" for cells in table)])


def _title(cohort: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> str:
    n = [int(np.mean([run["result"]["patients"][part] for run in runs])) for part in ("train", "validation", "test")]
    about = "{}: {} training patients, {} validation patients, {} test patients".format(as_text(cohort["data"]), *n)
    return f"{about}, the same for all seeds." if "sha256" in cohort else f"{about}, new ones for each seed."


def _row_of(cell: Mapping[str, Any]) -> str:
    """Return the name of a run's row."""
    name, kwargs = cell["predictor"], cell["kwargs"]
    for row, (predictor, usual) in ROWS.items():
        if predictor == name and usual.items() <= kwargs.items():
            return row
    return f"{name}, {json.dumps(kwargs)}" if kwargs else name


def _place(name: str) -> tuple[int, str]:
    return (list(ROWS).index(name) if name in ROWS else len(ROWS), name)


def _row(
    name: str, runs: Sequence[Mapping[str, Any]], default: Mapping[int, Mapping[str, Any]], same_patients: bool
) -> list[str]:
    """Return a predictor's row; ``default`` has the results of the default predictor by seed."""
    results = [run["result"] for run in runs]
    rng = np.random.default_rng(0)  # the same resamples for all rows
    micro, macro = f1_intervals(results, same_patients, rng)
    shared = [run for run in runs if run["cell"]["seed"] in default]
    difference = ""
    if shared and name != _DEFAULT:
        ours, theirs = [run["result"] for run in shared], [default[run["cell"]["seed"]] for run in shared]
        difference = _in_percent(f1_intervals(ours, same_patients, np.random.default_rng(0), theirs)[0], "+")

    def mean(of: Callable[[Any], float]) -> float:
        return float(np.mean([of(result) for result in results]))

    return [
        f"*{name}*" if name == MAJORITY else as_text(name),
        _in_percent(micro),
        difference,
        _in_percent(macro),
        f"{100 * mean(lambda result: result['calibration_error']):.1f}",
        f"{mean(lambda result: result['brier']):.3f}",
        f"{mean(lambda result: result['fit_seconds']):.1f}",
        f"{1000 * mean(lambda result: result['predict_seconds'] / result['patients']['test']):.2f}",
        f"{mean(lambda result: result['peak_mb']):.0f}",
        str(len(runs)),
    ]


def _in_percent(interval: Interval, sign: str = "") -> str:
    text = f"{100 * interval.mean:{sign}.1f}"
    if interval.low is None or interval.high is None:
        return text
    return f"{text} [{100 * interval.low:{sign}.1f}, {100 * interval.high:{sign}.1f}]"
