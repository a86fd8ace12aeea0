"""Aggregates, compared with SciPy, brute force, manual counts, and properties that must hold."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from agents.evaluation.aggregate import (
    crossed_bootstrap,
    iqm,
    iqm_interval,
    performance_profile,
    probability_of_improvement,
)
from agents.evaluation.bootstrap import Interval, mean_interval


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 30, 101])
def test_the_interquartile_mean_is_scipys_trimmed_mean(n: int) -> None:
    scores = rng(n).normal(size=n)
    assert iqm(scores) == pytest.approx(stats.trim_mean(scores, 0.25), rel=1e-12)


def test_the_interquartile_mean_pools_runs_of_all_tasks() -> None:
    strata = [rng(1).normal(size=5), rng(2).normal(size=3), rng(3).normal(size=1)]
    assert iqm_interval(strata, rng()).mean == pytest.approx(stats.trim_mean(np.concatenate(strata), 0.25), rel=1e-12)


def test_its_bootstrap_draws_runs_within_their_task() -> None:
    tasks = np.repeat([[0.0, 1.0], [10.0, 11.0]], 3, axis=1)
    interval = iqm_interval(tasks, rng(), n_resamples=20_000, confidence=0.9999)
    assert (interval.low, interval.high) == (5.0, 6.0)  # each middle half has 3 runs of each task


def test_its_interval_is_that_of_scipy_on_one_task() -> None:
    scores = rng(4).lognormal(size=40)
    ours = iqm_interval([scores], rng())
    theirs = stats.bootstrap(
        (scores,), lambda x, axis: stats.trim_mean(x, 0.25, axis=axis), method="percentile", random_state=rng(1)
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * (theirs.high - theirs.low))
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * (theirs.high - theirs.low))


def test_its_interval_holds_the_truth_as_often_as_it_says() -> None:
    source, n_trials = rng(5), 400
    hits = 0
    for _ in range(n_trials):
        strata = [source.normal(shift, 1.0, size=15) for shift in (-0.2, 0.2)]  # symmetric about 0
        interval = iqm_interval(strata, source, n_resamples=500, confidence=0.9)
        hits += interval.low <= 0 <= interval.high
    assert hits / n_trials == pytest.approx(0.9, abs=0.05)


def test_the_probability_of_improvement_is_the_mann_whitney_u_statistic() -> None:
    x, y = rng(6).integers(0, 6, size=9), rng(7).integers(0, 6, size=7)  # with ties
    u = stats.mannwhitneyu(x, y).statistic
    assert probability_of_improvement([x], [y], rng()).mean == pytest.approx(u / 63, rel=1e-12)


def test_the_probability_of_improvement_is_what_brute_force_counts() -> None:
    x = [[3.0, 1.0, 2.0], [5.0, 5.0]]
    y = [[2.0, 0.0], [5.0, 4.0, 9.0]]
    each = [np.mean([(a > b) + 0.5 * (a == b) for a, b in itertools.product(*task)]) for task in zip(x, y, strict=True)]
    assert probability_of_improvement(x, y, rng()).mean == pytest.approx(np.mean(each))


def test_its_bootstrap_is_that_of_drawing_runs() -> None:
    x, y, draw = rng(8).normal(0.5, 1, size=12), rng(9).normal(size=10), rng(10)
    drawn = [np.mean(draw.choice(x, 12)[:, None] > draw.choice(y, 10)) for _ in range(5000)]
    interval = probability_of_improvement([x], [y], rng())
    assert [interval.low, interval.high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.03)


def test_the_probabilities_of_two_agents_add_up_to_one() -> None:
    x, y = [rng(11).integers(0, 4, size=5)], [rng(12).integers(0, 4, size=5)]
    total = probability_of_improvement(x, y, rng()).mean + probability_of_improvement(y, x, rng()).mean
    assert total == pytest.approx(1)


def test_an_agent_always_above_the_other_wins_for_certain() -> None:
    interval = probability_of_improvement([[1, 2] * 8], [[0, 0.5] * 8], rng())  # 16: exact shares in floats
    assert interval == Interval(1, 1, 1)


def test_of_a_few_runs_there_is_no_interval() -> None:
    few, enough = rng(22).normal(size=9), rng(23).normal(size=10)
    assert iqm_interval([few], rng()) == Interval(iqm(few))
    assert iqm_interval([enough], rng()).low is not None
    for x, y in ((few, enough), (enough, few)):
        assert probability_of_improvement([x], [y], rng()).low is None
    assert probability_of_improvement([enough], [enough], rng()).low is not None
    assert [band.high for band in performance_profile([few], [0, 1], rng())] == [None, None]


def test_the_profile_is_the_share_of_runs_strictly_above() -> None:
    strata = [[0.0, 1.0, 2.0, 3.0], [1.0, 1.0]]
    shares = [interval.mean for interval in performance_profile(strata, [-1, 0, 1, 2.5, 3], rng())]
    assert shares == pytest.approx([1, (3 / 4 + 1) / 2, (2 / 4 + 0) / 2, (1 / 4) / 2, 0])


def test_the_profiles_band_is_binomial_on_one_task() -> None:
    scores = np.arange(20.0)
    (interval,) = performance_profile([scores], [13.5], rng(), n_resamples=5000)
    assert interval.mean == 0.3
    assert interval.low == pytest.approx(stats.binom(20, 0.3).ppf(0.025) / 20, abs=0.026)
    assert interval.high == pytest.approx(stats.binom(20, 0.3).ppf(0.975) / 20, abs=0.026)


def test_the_profile_falls() -> None:
    profile = performance_profile([rng(13).normal(size=12)], np.linspace(-3, 3, 20), rng())
    assert np.all(np.diff([interval.mean for interval in profile]) <= 0)
    assert all(0 <= interval.low <= interval.mean <= interval.high <= 1 for interval in profile)


def crossed(n_seeds: int, n_patients: int, sds: tuple[float, float, float], draw: np.random.Generator) -> np.ndarray:
    seed, patient, single = sds
    rows, columns = draw.normal(0, seed, size=(n_seeds, 1)), draw.normal(0, patient, size=(1, n_patients))
    return 0.3 + rows + columns + draw.normal(0, single, size=(n_seeds, n_patients))


def half_width(deltas: np.ndarray, seed: int) -> float:
    interval = crossed_bootstrap(deltas, rng(seed), n_resamples=20_000, confidence=0.6827)
    return (interval.high - interval.low) / 2


def test_the_crossed_bootstrap_has_the_variance_of_its_centred_parts() -> None:
    # Given the data, the variance is that of rows, columns and interaction, each over its count squared.
    x = crossed(12, 30, (1.0, 2.0, 3.0), rng(14))
    mean, row, column = x.mean(), x.mean(axis=1, keepdims=True) - x.mean(), x.mean(axis=0, keepdims=True) - x.mean()
    rest = x - mean - row - column
    variance = (row**2).sum() / 12**2 + (column**2).sum() / 30**2 + (rest**2).sum() / (12 * 30) ** 2
    assert half_width(x, 15) ** 2 == pytest.approx(variance, rel=0.06)


@pytest.mark.parametrize("sds", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.7, 1.0)])
def test_its_variance_is_on_average_what_owen_gives(sds: tuple[float, float, float]) -> None:
    n, m, draw = 8, 30, rng(16)
    a, b, e = sds[0] ** 2 / n, sds[1] ** 2 / m, sds[2] ** 2 / (n * m)
    expected = (1 - 1 / n) * (a + e) + (1 - 1 / m) * (b + e) + (1 - 1 / n) * (1 - 1 / m) * e
    widths = []
    for _ in range(250):
        interval = crossed_bootstrap(crossed(n, m, sds, draw), draw, n_resamples=400, confidence=0.6827)
        widths.append((interval.high - interval.low) ** 2 / 4)
    assert np.mean(widths) == pytest.approx(expected, rel=0.12)
    if sds[0] == sds[1] == 0:
        assert expected > 2 * e  # conservative: nearly three times the noise variance


def test_the_crossed_interval_holds_the_truth_at_least_about_as_often_as_it_says() -> None:
    source, n_trials = rng(17), 400
    hits = 0
    for _ in range(n_trials):
        interval = crossed_bootstrap(crossed(15, 25, (0.5, 1.0, 1.0), source), source, n_resamples=500, confidence=0.9)
        hits += interval.low <= 0.3 <= interval.high
    assert 0.86 <= hits / n_trials <= 0.95


def test_patients_alone_would_be_too_sure_where_seeds_differ() -> None:
    deltas = crossed(10, 200, (1.0, 0.1, 0.1), rng(18))
    both, patients = crossed_bootstrap(deltas, rng()), crossed_bootstrap(deltas.mean(axis=0, keepdims=True), rng())
    assert both.high - both.low > 10 * (patients.high - patients.low)


def test_of_a_single_seed_patients_are_resampled() -> None:
    deltas = rng(19).normal(size=50)
    interval = crossed_bootstrap(deltas[None], rng())
    theirs = stats.bootstrap((deltas,), np.mean, method="percentile", random_state=rng(1)).confidence_interval
    assert interval.low == pytest.approx(theirs.low, abs=0.05 * (theirs.high - theirs.low))
    assert interval.high == pytest.approx(theirs.high, abs=0.05 * (theirs.high - theirs.low))


def test_rows_and_columns_play_the_same_part() -> None:
    deltas = rng(20).normal(size=(35, 40))
    one, other = crossed_bootstrap(deltas, rng(1), n_resamples=20_000), crossed_bootstrap(deltas.T, rng(2), 20_000)
    assert one.low == pytest.approx(other.low, abs=0.02 * (one.high - one.low) + 0.005)


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_of_a_few_patients_there_is_no_crossed_interval_however_many_seeds(n_seeds: int) -> None:
    deltas = rng(24).normal(size=(n_seeds, 9))
    assert crossed_bootstrap(deltas, rng()) == Interval(deltas.mean())


def test_of_some_patients_and_one_seed_it_is_the_t_interval() -> None:
    deltas = rng(25).normal(size=15)
    crossed_one, alone = crossed_bootstrap(deltas[None], rng(), n_resamples=50_000), mean_interval(deltas, rng())
    assert crossed_one.low == pytest.approx(alone.low, abs=0.02 * (alone.high - alone.low))
    assert crossed_one.high == pytest.approx(alone.high, abs=0.02 * (alone.high - alone.low))


def test_the_generator_decides() -> None:
    deltas = rng(21).normal(size=(4, 12))
    assert crossed_bootstrap(deltas, rng(1)) == crossed_bootstrap(deltas, rng(1))
    assert crossed_bootstrap(deltas, rng(1)) != crossed_bootstrap(deltas, rng(2))


@pytest.mark.parametrize(
    ("deltas", "message"),
    [([], "shape"), ([0.1, 0.2], "shape"), (np.zeros((0, 3)), "shape"), ([[0.1, float("nan")]], "1 of 2")],
)
def test_what_is_no_table_of_seeds_and_patients_is_refused(deltas: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        crossed_bootstrap(deltas, rng())


def test_tasks_without_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="one task or more"):
        iqm_interval([], rng())
    with pytest.raises(ValueError, match="one run or more"):
        performance_profile([[0.1], []], [0], rng())
    with pytest.raises(ValueError, match="first agent has 1 tasks and the second 2"):
        probability_of_improvement([[1]], [[1], [2]], rng())
    with pytest.raises(ValueError, match="1 of 2 values"):
        iqm([0.1, float("inf")])
