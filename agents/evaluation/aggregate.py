"""Aggregate scores of many runs, with intervals: over seeds and patients, and over seeds and tasks.

The interquartile mean, the probability of improvement, and performance profiles follow Agarwal et al., "Deep RL at the
Edge of the Statistical Precipice", NeurIPS 2021. Each task has one score per run, and runs are resampled within their
task (stratified bootstrap). Intervals are percentile intervals unless stated otherwise; with fewer than ``FEWEST``
patients or runs, no interval is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from agents.evaluation.bootstrap import ENOUGH, FEWEST, Interval, t_interval

#: One array of run scores for each task; tasks may have different numbers of runs.
Strata = Sequence[npt.ArrayLike]

_Floats = npt.NDArray[np.float64]


def crossed_bootstrap(
    deltas: npt.ArrayLike, rng: np.random.Generator, n_resamples: int = 5000, confidence: float = 0.95
) -> Interval:
    """Return the mean over seeds and patients, with an interval from resampling both.

    This is the pigeonhole bootstrap (Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007): rows and
    columns are drawn with replacement, independently. With R seeds and C patients, its expected variance of the mean is

        (1 - 1/R) (A/R + E/RC) + (1 - 1/C) (B/C + E/RC) + (1 - 1/R) (1 - 1/C) E/RC

    whereas the true variance is A/R + B/C + E/RC (A: variance of seed effects, B: of patient effects, E: of residuals).
    So it overestimates the residual noise, and slightly underestimates the seed variance if there are few seeds.

    With fewer than ``ENOUGH`` patients, the interval is a t interval with the resamples' variance times C/(C - 1); for
    one seed, this is the variance in ``mean_interval``. With fewer than ``FEWEST`` patients, there is no interval.

    Args:
        deltas: One change for each seed and patient, shape (seeds, patients); for a paired comparison, the differences
            between two agents.
        rng: Draws the resamples.
        n_resamples: Number of resamples.
        confidence: Confidence level of the interval.

    Raises:
        ValueError: The array is empty, is not two-dimensional, or has a value that is not finite.
    """
    values = np.asarray(deltas, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"need an array of seeds x patients, got shape {values.shape}")
    _check_finite(values)
    mean, n_patients = float(values.mean()), values.shape[1]
    if n_patients < FEWEST:
        return Interval(mean)
    resampled = _crossed_means(values, rng, n_resamples)
    if n_patients < ENOUGH:
        error = float(resampled.std()) * math.sqrt(n_patients / (n_patients - 1))
        return t_interval(mean, error, n_patients, confidence)
    return _interval(mean, resampled, confidence)


def nested_resamples(resampled: _Floats, rng: np.random.Generator) -> _Floats:
    """Return means over seeds with patients of their own: seeds are drawn with replacement, and patients within each.

    The variance of these means is up to 2 - 1 / R times the true one with R seeds, because the differences between
    seeds are partly those of their patients, which are resampled, too.

    Args:
        resampled: A statistic of B resamples of each seed's patients, shape (seeds, ..., B).
        rng: Draws the seeds.

    Returns:
        Means, shape (..., B).
    """
    n_seeds, n_resamples = len(resampled), resampled.shape[-1]
    total = np.zeros(resampled.shape[1:])
    for _ in range(n_seeds):
        # A seed that is drawn twice gets two different resamples of its patients.
        seeds, columns = rng.integers(n_seeds, size=n_resamples), rng.permutation(n_resamples)
        total += np.moveaxis(resampled[seeds, ..., columns], 0, -1)
    return total / n_seeds


def iqm(scores: npt.ArrayLike) -> float:
    """Return the interquartile mean of scores of any shape: the mean without the lowest and highest quarters.

    A quarter of N scores is N / 4 rounded down, as in ``scipy.stats.trim_mean``.
    """
    return float(_iqm_rows(_scores(scores)[None])[0])


def iqm_interval(
    strata: Strata, rng: np.random.Generator, n_resamples: int = 5000, confidence: float = 0.95
) -> Interval:
    """Return the interquartile mean over all runs of all tasks, with its stratified bootstrap interval.

    Args:
        strata: Run scores, one array for each task, shape (runs,).
        rng: Draws the resamples.
        n_resamples: Number of resamples.
        confidence: Confidence level of the interval.

    Returns:
        The interquartile mean, in ``mean``, with its interval; with fewer than ``FEWEST`` runs, there is no interval.

    Raises:
        ValueError: There are no tasks, a task has no runs, or a score is not finite.
    """
    tasks = _tasks(strata)
    if _n_runs(tasks) < FEWEST:
        return Interval(iqm(np.concatenate(tasks)))
    drawn = [scores[rng.integers(len(scores), size=(n_resamples, len(scores)))] for scores in tasks]
    return _interval(iqm(np.concatenate(tasks)), _iqm_rows(np.concatenate(drawn, axis=1)), confidence)


def probability_of_improvement(
    x: Strata, y: Strata, rng: np.random.Generator, n_resamples: int = 5000, confidence: float = 0.95
) -> Interval:
    """Return the probability that a run of X scores higher than a run of Y on a random task.

    For each task, it is the Mann-Whitney U statistic divided by the number of pairs, so a tie counts half; tasks have
    equal weights.

    Args:
        x: Run scores of the first agent, one array for each task, shape (runs,).
        y: Run scores of the second agent on the same tasks.
        rng: Draws the resamples of both agents' runs within each task.
        n_resamples: Number of resamples.
        confidence: Confidence level of the interval.

    Returns:
        The probability from 0 to 1, in ``mean``, with its interval; if either agent has fewer than ``FEWEST`` runs,
        there is no interval.

    Raises:
        ValueError: The agents have different numbers of tasks or none, or a task has no runs.
    """
    if len(x) != len(y):
        raise ValueError(f"the first agent has {len(x)} tasks and the second {len(y)}: give both on the same tasks")
    pairs = list(zip(_tasks(x), _tasks(y), strict=True))
    wins = [(ours[:, None] > theirs) + 0.5 * (ours[:, None] == theirs) for ours, theirs in pairs]
    estimate = float(np.mean([matrix.mean() for matrix in wins]))
    if min(_n_runs(runs) for runs in zip(*pairs, strict=True)) < FEWEST:
        return Interval(estimate)
    return _interval(estimate, np.mean([_crossed_means(each, rng, n_resamples) for each in wins], axis=0), confidence)


def performance_profile(
    strata: Strata,
    taus: npt.ArrayLike,
    rng: np.random.Generator,
    n_resamples: int = 2000,
    confidence: float = 0.95,
) -> list[Interval]:
    """Return the share of runs that score above each tau, with pointwise bands; tasks have equal weights.

    Args:
        strata: Run scores, one array for each task, shape (runs,).
        taus: Score thresholds, shape (T,).
        rng: Draws the resamples.
        n_resamples: Number of resamples.
        confidence: Confidence level at each tau separately.

    Returns:
        T intervals, with the share from 0 to 1 in ``mean``. With fewer than ``FEWEST`` runs, there are no bands.

    Raises:
        ValueError: There are no tasks, a task has no runs, or a score is not finite.
    """
    levels = np.asarray(taus, dtype=np.float64)
    above = [(scores[:, None] > levels).astype(np.float64) for scores in _tasks(strata)]
    shares = np.mean([task.mean(axis=0) for task in above], axis=0)
    if _n_runs(above) < FEWEST:
        return [Interval(float(share)) for share in shares]
    resampled = np.mean([_weights(len(task), rng, n_resamples) @ task for task in above], axis=0)
    return [_interval(float(share), resampled[:, i], confidence) for i, share in enumerate(shares)]


def _crossed_means(values: _Floats, rng: np.random.Generator, n_resamples: int) -> _Floats:
    """Return means of a matrix with rows and columns both resampled with replacement, shape (n_resamples,)."""
    rows, columns = (_weights(n, rng, n_resamples) for n in values.shape)
    return ((rows @ values) * columns).sum(axis=1)


def _weights(n: int, rng: np.random.Generator, n_resamples: int) -> _Floats:
    """Return bootstrap weights: the share of draws that each of n items gets, shape (n_resamples, n)."""
    return rng.multinomial(n, np.full(n, 1 / n), size=n_resamples) / n


def _iqm_rows(scores: _Floats) -> _Floats:
    """Return the interquartile mean of each row."""
    n = scores.shape[1]
    return np.sort(scores, axis=1)[:, n // 4 : n - n // 4].mean(axis=1)


def _interval(estimate: float, resampled: _Floats, confidence: float) -> Interval:
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(estimate, float(low), float(high))


def _n_runs(tasks: Sequence[_Floats]) -> int:
    return sum(len(task) for task in tasks)


def _tasks(strata: Strata) -> list[_Floats]:
    if not len(strata):
        raise ValueError("need the scores of one task or more")
    return [_scores(scores) for scores in strata]


def _scores(scores: npt.ArrayLike) -> _Floats:
    values = np.asarray(scores, dtype=np.float64).ravel()
    if not len(values):
        raise ValueError("a task needs one run or more")
    _check_finite(values)
    return values


def _check_finite(values: _Floats) -> None:
    if not np.isfinite(values).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(values))} of {values.size} values are not finite")
