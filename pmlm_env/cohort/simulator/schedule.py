"""Check-up dates: spread over the pregnancy, more frequent toward its end, almost daily after admission."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pmlm_env.cohort.simulator.tables import Floats, load_conditions
from pmlm_env.cohort.simulator.women import Days, Ints, Women


@dataclass(frozen=True, slots=True)
class Schedule:
    """The R check-ups of all women, sorted by woman and date.

    Attributes:
        woman: Index of the woman, shape (R,).
        number: Index of the check-up among hers, from 0, shape (R,).
        date: The day, datetime64[D], shape (R,).
        week: Weeks of gestation; after birth, the weeks at birth, shape (R,).
        after_birth: 1 if the woman gave birth before that day, else 0, shape (R,).
        days_left: Days to the index date, shape (R,).
        start: Index of each woman's first check-up, shape (N + 1,).
    """

    woman: Ints
    number: Ints
    date: Days
    week: Floats
    after_birth: Floats
    days_left: Ints
    start: Ints


def draw_schedule(women: Women, rng: np.random.Generator) -> Schedule:
    """Draw each woman's check-up days: at most one per day, the last on or just before her index date."""
    conditions = load_conditions()
    before = [
        _draw_days_before(
            n=int(women.n_checkups[i]),
            span=int((women.index_date[i] - women.conception[i]).astype(int)),
            admitted=conditions[women.label[i]].admitted,
            rng=rng,
        )
        for i in range(len(women))
    ]
    start = np.concatenate([[0], np.cumsum([len(days) for days in before])]).astype(np.int64)
    woman = np.repeat(np.arange(len(women)), np.diff(start))
    days_left = np.concatenate(before)
    date = women.index_date[woman] - days_left
    gestation = np.minimum((date - women.conception[woman]).astype(np.int64), women.gestation[woman])
    return Schedule(
        woman=woman,
        number=np.arange(len(woman)) - start[woman],
        date=date,
        week=gestation / 7,
        after_birth=(date > women.birth[woman]).astype(float),
        days_left=days_left,
        start=start,
    )


def _draw_days_before(n: int, span: int, admitted: float, rng: np.random.Generator) -> Ints:
    """Draw ``n`` distinct numbers of days before the index date, in descending order.

    Args:
        n: Number of check-ups.
        span: Days from conception to the index date.
        admitted: Share of check-ups during the last hospital stay.
        rng: Source of randomness.
    """
    inside = min(n, max(1, int(rng.binomial(n, admitted))))
    stay = int(np.ceil(inside * rng.uniform(1.0, 1.7))) + 1
    last = rng.integers(0, 2)
    days = set((last + rng.permutation(stay)[:inside]).tolist())
    booked = int(rng.integers(56, 100)) if n >= 5 else int(rng.integers(70, max(71, span - 40)))
    clinic = span - booked - stay - 3
    outside = n - inside
    # Visits at even quantiles, with jitter, of a density that triples toward the end.
    quantile = (np.arange(outside) + 0.5 + rng.uniform(-0.3, 0.3, outside)) / max(outside, 1)
    if outside:
        quantile[0] *= 0.2
    position = (np.sqrt(1 + 8 * quantile) - 1) / 2
    for day in np.rint(span - booked - clinic * position).astype(int).tolist():
        while day in days:
            day += 1
        days.add(day)
    return np.array(sorted(days, reverse=True), dtype=np.int64)
