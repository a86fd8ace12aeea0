"""The simulator's tables: CSV files beside this module, whose ``#`` lines cite their sources."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.schema import OBSTETRIC, OBSTETRIC_ZH, Schema

Floats = npt.NDArray[np.float64]

#: The languages of the letters.
Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
#: A text in all these languages.
Said = Mapping[Language, str]

SCHEMA = Schema.load(OBSTETRIC)
LABEL_NAMES = tuple(label.name for label in SCHEMA.labels)

#: When a shift starts: at the first visit; gradually from week 20; in the last days before the index date; after birth.
ONSETS = ("always", "gradual", "acute", "birth")
#: Weeks of gestation at which ``levels.csv`` gives medians.
LEVEL_WEEKS = np.array([8.0, 16.0, 24.0, 32.0, 40.0])


def read_table(name: str) -> list[dict[str, str]]:
    """Return the rows of this package's CSV file ``name``, without comment lines."""
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


def schema_in(language: Language) -> Schema:
    """Return the obstetric schema in a language; its indicators and labels are those of ``SCHEMA``, in this order."""
    return SCHEMA if language == "en" else Schema.load(OBSTETRIC_ZH)


def word_in(language: Language, word: str) -> str:
    """Return a word of ``words.csv`` in a language, given the English one; other texts are returned unchanged."""
    return word if language == "en" else _words().get(word, word)


@cache
def _words() -> Mapping[str, str]:
    return {row["en"]: row["zh"] for row in read_table("words.csv")}


@dataclass(frozen=True, slots=True)
class Levels:
    """Laboratory levels of healthy pregnant women.

    Attributes:
        names: The K latent quantities from which the 35 indicators are computed.
        log_median: Log medians at ``LEVEL_WEEKS``, shape (5, K).
        after_birth: Change of the log value after birth, shape (K,).
        within_sd: SD of one woman's log values around her own level, shape (K,).
        between_sd: SD of log levels between women, shape (K,).
        mixing: Lower Cholesky factor of the correlation matrix, shape (K, K).
    """

    names: tuple[str, ...]
    log_median: Floats
    after_birth: Floats
    within_sd: Floats
    between_sd: Floats
    mixing: Floats

    @property
    def total_sd(self) -> Floats:
        """SD of log values over women and days, shape (K,)."""
        return np.hypot(self.within_sd, self.between_sd)


@dataclass(frozen=True, slots=True)
class Condition:
    """Frequency and course of a condition (assumptions; see ``conditions.csv``)."""

    label: str
    share: float
    severe: float
    checkups: float
    admitted: float
    weeks_at_delivery: tuple[tuple[float, float], tuple[float, float]]
    undelivered: tuple[float, float]
    weeks_undelivered: tuple[float, float]
    cesarean: float
    age: float
    forms: tuple[str, str]


@cache
def load_levels() -> Levels:
    """Load ``levels.csv`` and ``correlations.csv`` (Spearman, converted to Gaussian copula correlations)."""
    rows = read_table("levels.csv")
    names = tuple(row["latent"] for row in rows)
    spearman = np.array([[float(row[name]) for name in names] for row in read_table("correlations.csv")])
    return Levels(
        names=names,
        log_median=np.log([[float(row[f"w{week:.0f}"]) for row in rows] for week in LEVEL_WEEKS]),
        after_birth=np.array([float(row["after_birth"]) for row in rows]),
        within_sd=np.array([float(row["within_sd"]) for row in rows]),
        between_sd=np.array([float(row["between_sd"]) for row in rows]),
        mixing=np.linalg.cholesky(2 * np.sin(np.pi * spearman / 6)),
    )


@cache
def load_conditions() -> tuple[Condition, ...]:
    """Load ``conditions.csv`` in the order of ``LABEL_NAMES``."""
    rows = {row["label"]: row for row in read_table("conditions.csv")}

    def condition(row: Mapping[str, str]) -> Condition:
        def span(name: str) -> tuple[float, float]:
            return float(row[f"{name}_low"]), float(row[f"{name}_high"])

        return Condition(
            label=row["label"],
            share=float(row["share"]),
            severe=float(row["severe"]),
            checkups=float(row["checkups"]),
            admitted=float(row["admitted"]),
            weeks_at_delivery=(span("weeks_mild"), span("weeks_severe")),
            undelivered=(float(row["undelivered_mild"]), float(row["undelivered_severe"])),
            weeks_undelivered=span("undelivered"),
            cesarean=float(row["cesarean"]),
            age=float(row["age"]),
            forms=(row["form_mild"], row["form_severe"]),
        )

    return tuple(condition(rows[name]) for name in LABEL_NAMES)


@cache
def load_shifts(*, verified_only: bool) -> Floats:
    """Load ``shifts.csv``, shape (4 onsets, 12 labels, 2 forms, K latents), in SDs of healthy women."""
    names = load_levels().names
    shifts = np.zeros((len(ONSETS), len(LABEL_NAMES), 2, len(names)))
    for row in read_table("shifts.csv"):
        if row["basis"] == "verified" or not verified_only:
            cell = shifts[ONSETS.index(row["onset"]), LABEL_NAMES.index(row["label"])]
            cell[:, names.index(row["latent"])] += float(row["mild"]), float(row["severe"])
    return shifts
