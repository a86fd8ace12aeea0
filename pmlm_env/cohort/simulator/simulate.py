"""``simulate_cohort`` combines women, schedule, labs, gaps and replies."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Literal, get_args

import numpy as np

from pmlm_env.cohort.schema import Cohort, Patient
from pmlm_env.cohort.simulator.facts import draw_bedside, gather_facts
from pmlm_env.cohort.simulator.gaps import draw_measured, leave_gaps
from pmlm_env.cohort.simulator.labs import draw_labs
from pmlm_env.cohort.simulator.personal import personalize
from pmlm_env.cohort.simulator.replies import write_reply
from pmlm_env.cohort.simulator.schedule import draw_schedule
from pmlm_env.cohort.simulator.tables import LANGUAGES, Language, schema_in, word_in
from pmlm_env.cohort.simulator.women import Women, draw_women

Signal = Literal["paper", "literature"]
SIGNALS: tuple[str, ...] = get_args(Signal)

#: Women whose check-ups and letters are drawn at once; bounds the memory.
PART = 20_000
#: The column of the patients' table with the indicators that the letter's remarks are about, separated by "; ".
PERSONAL_COLUMN = "personal"


def simulate_cohort(
    n_patients: int = 2373,
    seed: int = 0,
    signal: Signal = "paper",
    personal: float = 0.0,
    language: Language = "en",
) -> Cohort:
    """Simulate a cohort with the statistics of the paper's private one.

    The 2,373 women of the default have 56, 1,638 and 679 index dates in 2020, 2021 and 2022 and about 38,817 check-ups;
    other sizes keep the proportions. Levels, spreads, correlations and gaps of the labs come from published data, cited
    in the CSV files beside this module. Label frequencies and the replies' wording are assumptions.

    Args:
        n_patients: Number of women, at least 1.
        seed: The same seed gives the same cohort; other seeds give other women, with other ids.
        signal: How the labels differ in the labs. "literature": only shifts that a source reports, so that a uterine
            scar, cord entanglement or fetal distress leaves no trace in the mother's blood. "paper": further,
            invented shifts, so that a good predictor does about as well as the paper's (Table A1).
        personal: Share of each letter's findings and advice that is about the woman's own latest values, from 0 to 1;
            see docs/simulator.md. Above 0, the column ``PERSONAL_COLUMN`` names the indicators. Women and
            laboratory values are the same for every share.
        language: The language of labels, letters and columns: "en" or "zh". A woman's letter says the same in both.

    Returns:
        The cohort, sorted by index date, with the obstetric schema of the language.

    Raises:
        ValueError: As ``simulate_parts``.
    """
    parts = [*simulate_parts(n_patients, seed, signal, personal, language)]
    return parts[0] if len(parts) == 1 else Cohort(tuple(chain.from_iterable(parts)), parts[0].schema)


def simulate_parts(
    n_patients: int = 2373,
    seed: int = 0,
    signal: Signal = "paper",
    personal: float = 0.0,
    language: Language = "en",
) -> Iterator[Cohort]:
    """Simulate the cohort of ``simulate_cohort`` in parts of ``PART`` women, the earliest index dates first.

    Only what is drawn for all women at once, such as labels and dates, is in memory beside one part. Check-ups and
    letters of each further part come from a random generator of its own.

    Args:
        n_patients: As ``simulate_cohort``.
        seed: As ``simulate_cohort``.
        signal: As ``simulate_cohort``.
        personal: As ``simulate_cohort``.
        language: As ``simulate_cohort``.

    Returns:
        The parts, each simulated when it is asked for.

    Raises:
        ValueError: ``n_patients`` is not a positive integer, ``seed`` is not an integer >= 0, ``signal`` is unknown,
            ``personal`` is not a number from 0 to 1, or there are no letters in ``language``.
    """
    if isinstance(n_patients, bool) or not isinstance(n_patients, (int, np.integer)) or n_patients < 1:
        raise ValueError(f"n_patients must be a whole number of at least 1, not {n_patients!r}")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed must be a whole number of at least 0, not {seed!r}")
    if signal not in SIGNALS:
        raise ValueError(f"signal must be one of {', '.join(SIGNALS)}, not {signal!r}")
    if isinstance(personal, bool) or not isinstance(personal, (int, float)) or not 0 <= personal <= 1:
        raise ValueError(f"personal must be a number from 0 to 1, not {personal!r}")
    if language not in LANGUAGES:
        raise ValueError(f"language must be one of {', '.join(LANGUAGES)}, not {language!r}")
    return _parts(int(n_patients), int(seed), signal, float(personal), language)


def _parts(n_patients: int, seed: int, signal: Signal, personal: float, language: Language) -> Iterator[Cohort]:
    rng = np.random.default_rng(seed)
    women = draw_women(n_patients, rng)
    for number, first in enumerate(range(0, n_patients, PART)):
        if number:
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
        yield _simulate(women.part(first, first + PART), first, rng, seed, signal, personal, language)


def _simulate(
    women: Women, first: int, rng: np.random.Generator, seed: int, signal: Signal, personal: float, language: Language
) -> Cohort:
    """Simulate the check-ups and letters of some women, of whom ``first`` is the number of the first one."""
    schema = schema_in(language)
    schedule = draw_schedule(women, rng)
    values = leave_gaps(draw_labs(women, schedule, signal, rng), draw_measured(schedule, rng))
    bedside = draw_bedside(women, rng)
    prefix = f"P{seed}-" if seed else "P"
    patients = []
    for i in range(len(women)):
        rows = slice(schedule.start[i], schedule.start[i + 1])
        facts = gather_facts(women, i, values[rows], bedside[i])
        dither = 0.618034 * (first + i) % 1  # spreads evenly over women, as random numbers would on average
        reply, about = personalize(write_reply(facts, rng), values[rows], personal, dither)
        extra = {column: word_in(language, value) for column, value in facts.extra.items()}
        patients.append(
            Patient(
                patient_id=f"{prefix}{first + i + 1:05d}",
                label=schema.labels[women.label[i]].name,
                reference=reply.text(language),
                split_date=women.index_date[i],
                dates=schedule.date[rows],
                values=values[rows],
                extra={**extra, PERSONAL_COLUMN: "; ".join(about)} if personal else extra,
            )
        )
    return Cohort(tuple(patients), schema)
