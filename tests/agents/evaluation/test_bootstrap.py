"""Intervals of a mean, compared with Student's t, a manual percentile bootstrap, and their nominal coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from agents.evaluation.aggregate import crossed_bootstrap
from agents.evaluation.bootstrap import Interval, mean_interval
from agents.evaluation.bounds import bounds_of, bounds_of_change, interval_of_level
from agents.evaluation.metrics import METRICS


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_it_agrees_with_the_t_interval_on_normal_data() -> None:
    deltas = rng(1).normal(0.1, 0.5, size=200)
    low, high = stats.t.interval(0.95, 199, loc=deltas.mean(), scale=stats.sem(deltas))
    interval = mean_interval(deltas, rng())
    assert interval.mean == deltas.mean()
    assert interval.low == pytest.approx(low, abs=0.05 * (high - low))
    assert interval.high == pytest.approx(high, abs=0.05 * (high - low))


def test_it_holds_the_true_mean_as_often_as_it_says() -> None:
    source, n_trials = rng(2), 400
    hits = 0
    for _ in range(n_trials):
        interval = mean_interval(source.normal(0.3, 1.0, size=40), source, n_resamples=500, confidence=0.9)
        hits += interval.low <= 0.3 <= interval.high
    assert hits / n_trials == pytest.approx(0.9, abs=0.04)  # tolerance: 2.7 standard errors


def test_it_follows_the_skew() -> None:
    deltas = rng(3).lognormal(0, 1, size=60)
    means = np.array([rng(seed).choice(deltas, size=60).mean() for seed in range(4000)])
    interval = mean_interval(deltas, rng())
    assert interval.low > np.quantile(means, 0.025)
    assert interval.high > np.quantile(means, 0.975)


def test_more_confidence_takes_a_wider_interval() -> None:
    deltas = rng(4).normal(size=50)
    narrow, wide = mean_interval(deltas, rng(), confidence=0.8), mean_interval(deltas, rng(), confidence=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_shift_and_scale_carry_over() -> None:
    deltas = rng(5).normal(size=30)
    plain, moved = mean_interval(deltas, rng()), mean_interval(1e-4 * deltas + 2, rng())
    assert moved.low == pytest.approx(1e-4 * plain.low + 2, abs=1e-9)
    assert moved.high == pytest.approx(1e-4 * plain.high + 2, abs=1e-9)


def test_the_generator_decides() -> None:
    deltas = rng(6).normal(size=30)
    assert mean_interval(deltas, rng(1)) == mean_interval(deltas, rng(1))
    assert mean_interval(deltas, rng(1)) != mean_interval(deltas, rng(2))


def test_the_generator_moves_on() -> None:
    deltas, generator = rng(6).normal(size=30), rng(1)
    assert mean_interval(deltas, generator) != mean_interval(deltas, generator)


@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_of_a_few_patients_there_is_a_mean_but_no_interval(n: int) -> None:
    deltas = rng(n).normal(0.3, 1.0, size=n)
    interval = mean_interval(deltas, rng())
    assert interval == Interval(float(deltas.mean()), None, None)
    assert interval.verdict == ""
    assert str(interval).endswith("(too few for an interval)")


@pytest.mark.parametrize("n", [10, 20, 29])
def test_of_some_patients_it_is_the_t_interval(n: int) -> None:
    deltas = rng(n).lognormal(size=n)
    low, high = stats.t.interval(0.95, n - 1, loc=deltas.mean(), scale=stats.sem(deltas))
    interval = mean_interval(deltas, rng())
    assert (interval.low, interval.high) == pytest.approx((low, high))


SCORES = {
    "normal": lambda draw, n: draw.normal(0.3, 1.0, size=n),
    "half tied": lambda draw, n: np.where(draw.random(n) < 0.5, 0.0, draw.normal(0.6, 1.0, size=n)),
    "skewed": lambda draw, n: draw.gamma(2.0, size=n) - 1.7,
}


@pytest.mark.parametrize("scores", SCORES)
@pytest.mark.parametrize("n", [10, 15, 29])
def test_every_interval_that_is_given_holds_the_true_mean_about_as_often_as_it_says(scores: str, n: int) -> None:
    source, n_trials = rng(7), 1000
    intervals = [mean_interval(SCORES[scores](source, n), source) for _ in range(n_trials)]
    missed = sum(not interval.low <= 0.3 <= interval.high for interval in intervals)
    assert missed / n_trials < 0.1  # a bootstrap of three values misses 28 to 47 times in 100


@pytest.mark.parametrize("deltas", [[0.2] * 10, [0.0] * 32, [0.1 + 0.2, 0.3] * 6])
def test_where_nothing_varies_the_interval_is_the_mean(deltas: list[float]) -> None:
    mean = float(np.mean(deltas))
    assert mean_interval(deltas, rng()) == Interval(mean, mean, mean)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n", [32, 3000])
def test_one_patient_unlike_the_others_gives_a_proper_interval(n: int) -> None:
    interval = mean_interval([1.0] + [0.0] * (n - 1), rng(), n_resamples=2000)
    assert 0 <= interval.low <= interval.mean <= interval.high <= 1
    assert interval.low < interval.high


@pytest.mark.parametrize(
    ("deltas", "message"),
    [([], "shape"), ([[0.1, 0.2]], "shape"), ([0.1, float("nan")], "1 of 2"), ([float("inf"), 1.0], "1 of 2")],
)
def test_what_cannot_be_resampled_is_refused(deltas: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mean_interval(deltas, rng())


def test_it_prints_in_one_line() -> None:
    assert str(Interval(0.0123, -0.004, 0.03)) == "+0.012 [-0.004, +0.030]"


def test_an_interval_ends_at_the_possible_values_of_its_mean() -> None:
    values = np.array([0.0] * 9 + [1.0])
    interval = mean_interval(values, rng())
    assert interval.low is not None
    assert interval.low < 0
    assert interval.within(0, 1) == Interval(interval.mean, 0.0, interval.high)
    assert Interval(0.5, 0.25, 0.75).within(0, 1) == Interval(0.5, 0.25, 0.75)
    assert Interval(0.5).within(0, 1) == Interval(0.5)


def test_bounds_are_those_of_the_metrics_of_every_reply() -> None:
    found = {name: bounds_of(name) for name in METRICS}
    fractions = {name for name, bounds in found.items() if bounds == (0, 1)}
    assert {name for name in METRICS if name not in fractions} == {
        "margin", "words", "length_ratio", "new_wrong_diagnosis",
    }  # fmt: skip
    assert bounds_of("margin") == (-1, 1)
    assert bounds_of("somebody_s") == (-np.inf, np.inf)
    assert (bounds_of_change("rougeL"), bounds_of_change("margin")) == ((-1, 1), (-2, 2))
    assert bounds_of_change("words") == (-np.inf, np.inf)


def test_a_share_of_none_or_all_patients_has_clopper_and_pearsons_interval() -> None:
    for n in (10, 96):
        exact = stats.binomtest(0, n).proportion_ci(method="exact")
        none = mean_interval(np.zeros(n), rng())
        assert interval_of_level(none, "diagnosis_named", n) == Interval(0.0, 0.0, pytest.approx(exact.high))
        every = mean_interval(np.ones(n), rng())
        assert interval_of_level(every, "cut", n) == Interval(1.0, pytest.approx(1 - exact.high), 1.0)
        every = crossed_bootstrap(np.ones((3, n)), rng())
        assert interval_of_level(every, "cut", n).low == pytest.approx(1 - exact.high)
    same = mean_interval(np.full(10, 0.25), rng())
    assert interval_of_level(same, "copy", 10) == same  # not at a bound
    assert interval_of_level(Interval(0.0), "copy", 4) == Interval(0.0)
    assert interval_of_level(mean_interval(np.zeros(10), rng()), "words", 10) == Interval(0.0, 0.0, 0.0)
