"""The simulated women: label, index date, form and course of the condition, obstetric history."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.simulator.tables import LABEL_NAMES, SCHEMA, Condition, Floats, load_conditions

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Days = npt.NDArray[np.datetime64]

#: The paper's periods of index dates (2022 in halves: validation and test): first day, last day, number of women.
#: The few women of 2020 are placed at the end of that year, so that no check-up falls before 2020.
PERIODS = (
    ("2020-10-15", "2020-12-31", 56),
    ("2021-01-01", "2021-12-31", 1638),
    ("2022-01-01", "2022-06-30", 340),
    ("2022-07-01", "2022-12-31", 339),
)
#: Shape of the gamma distribution of the number of check-ups.
_CHECKUPS_SHAPE = 4.0
#: Factor on the number of check-ups for the severe form of a condition.
_SEVERE_CHECKUPS = 1.4


@dataclass(frozen=True, slots=True)
class Women:
    """N women; every array has one entry per woman.

    Attributes:
        label: Index into ``LABEL_NAMES``.
        severe: Whether the condition has its severe form.
        index_date: Day of discharge, datetime64[D].
        delivered: Whether she gave birth.
        cesarean: Whether by cesarean; False if not delivered.
        birth: Day of birth; after the index date if not delivered.
        gestation: Days of gestation at birth, or at the index date if not delivered.
        age: Years.
        gravidity: Number of pregnancies, including this one.
        parity: Number of earlier births.
        earlier_cesarean: Whether one of them was a cesarean.
        n_checkups: Number of check-ups.
    """

    label: Ints
    severe: Bools
    index_date: Days
    delivered: Bools
    cesarean: Bools
    birth: Days
    gestation: Ints
    age: Ints
    gravidity: Ints
    parity: Ints
    earlier_cesarean: Bools
    n_checkups: Ints

    def __len__(self) -> int:
        """Return N."""
        return len(self.label)

    @property
    def conception(self) -> Days:
        """First day of the last menstrual period, from which gestation is counted."""
        return np.where(self.delivered, self.birth, self.index_date) - self.gestation.astype("timedelta64[D]")

    def part(self, first: int, end: int) -> Women:
        """Return the women from ``first`` up to, not including, ``end``."""
        return Women(**{field.name: getattr(self, field.name)[first:end] for field in fields(self)})


def draw_women(n: int, rng: np.random.Generator) -> Women:
    """Draw ``n`` women, sorted by index date, with index dates and labels in the paper's proportions."""
    sizes = _apportion(n, np.array([women for *_, women in PERIODS], dtype=float))
    label = np.concatenate([_draw_labels(size, rng) for size in sizes])
    index_date = np.concatenate(
        [_draw_days(first, last, size, rng) for (first, last, _), size in zip(PERIODS, sizes, strict=True)]
    )
    conditions = load_conditions()

    def each(values: list[float]) -> Floats:
        return np.array(values, dtype=float)[label]

    severe = rng.random(n) < each([c.severe for c in conditions])
    delivered = rng.random(n) >= np.array([c.undelivered for c in conditions])[label, severe.astype(int)]
    gestation = _draw_gestation(label, severe, delivered, conditions, rng)
    scarred = np.isin(label, [LABEL_NAMES.index("uterine scar"), LABEL_NAMES.index("uterine rupture")])
    two_scars = (label == LABEL_NAMES.index("uterine scar")) & severe
    cesarean = delivered & ((rng.random(n) < each([c.cesarean for c in conditions])) | two_scars)
    stay = np.where(cesarean, rng.integers(3, 6, n), rng.integers(2, 4, n))
    age = np.clip(np.rint(rng.normal(each([c.age for c in conditions]), 4.2)), 19, 45).astype(np.int64)
    births = np.minimum(rng.binomial(2, np.clip((age - 20) / 40, 0.03, 0.4), n), np.maximum(0, (age - 19) // 3))
    parity = np.where(two_scars, 2, np.where(scarred, np.maximum(births, 1), births))
    age = np.maximum(age, 21 + 3 * parity * (parity > 0))
    losses = np.minimum(rng.poisson(0.55, n), 3)
    mean = each([c.checkups for c in conditions]) * np.where(severe, _SEVERE_CHECKUPS, 1.0)
    n_checkups = np.clip(np.rint(rng.gamma(_CHECKUPS_SHAPE, mean / _CHECKUPS_SHAPE)), 1, SCHEMA.max_checkups)
    return Women(
        label=label,
        severe=severe,
        index_date=index_date,
        delivered=delivered,
        cesarean=cesarean,
        birth=np.where(delivered, index_date - stay, index_date + 400),
        gestation=gestation,
        age=age,
        gravidity=1 + parity + losses,
        parity=parity,
        earlier_cesarean=scarred,
        n_checkups=n_checkups.astype(np.int64),
    )


def _apportion(n: int, weights: Floats) -> Ints:
    """Split ``n`` in proportion to ``weights`` by the largest-remainder method."""
    quota = n * weights / weights.sum()
    sizes = np.floor(quota).astype(np.int64)
    sizes[np.argsort(sizes - quota, kind="stable")[: n - sizes.sum()]] += 1
    return sizes


def _draw_labels(n: int, rng: np.random.Generator) -> Ints:
    """Draw ``n`` labels by systematic sampling: each label's count differs from its share by less than one."""
    edges = np.cumsum([condition.share for condition in load_conditions()])
    points = (np.arange(n) + rng.random()) / max(n, 1) * edges[-1]
    return rng.permutation(np.searchsorted(edges, points, side="right"))


def _draw_days(first: str, last: str, n: int, rng: np.random.Generator) -> Days:
    """Draw ``n`` days from ``first`` to ``last``, in ascending order."""
    start = np.datetime64(first, "D")
    span = int((np.datetime64(last, "D") - start).astype(int)) + 1
    return start + np.sort(rng.integers(0, span, n)).astype("timedelta64[D]")


def _draw_gestation(
    label: Ints, severe: Bools, delivered: Bools, conditions: tuple[Condition, ...], rng: np.random.Generator
) -> Ints:
    """Draw days of gestation at birth, or at the index date if not delivered."""
    at_birth = np.array([c.weeks_at_delivery for c in conditions])[label, severe.astype(int)]
    undelivered = np.array([c.weeks_undelivered for c in conditions])[label]
    low, high = np.where(delivered[:, None], at_birth, undelivered).T
    where = np.where(delivered, rng.beta(3.2, 2.2, len(label)), rng.beta(1.6, 1.2, len(label)))
    return np.rint(7 * (low + (high - low) * where)).astype(np.int64)
