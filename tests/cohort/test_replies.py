"""A simulated doctor's reply names the diagnosis and no other, and says nothing that the records do not bear out."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from pmlm_env.cohort.naming.labels import named_labels
from pmlm_env.cohort.schema import Cohort, Patient
from pmlm_env.cohort.simulator.labs import DECIMALS
from pmlm_env.cohort.simulator.tables import read_table
from pmlm_env.core.labels import Label
from tests.schemas import INDICATOR_NAMES, LABEL_NAMES, LABELS

pytestmark = pytest.mark.once


def advice(patient: Patient) -> list[str]:
    """Return the pieces of advice in a reply."""
    return patient.reference.split(" Advice: ")[1].removesuffix(".").split("; ")


def printed(patient: Patient, name: str) -> list[str]:
    """Return an indicator's values as printed, by date."""
    column = patient.values[:, INDICATOR_NAMES.index(name)]
    return [f"{value:.{DECIMALS[name]}f}" for value in column[~np.isnan(column)]]


def test_over_95_percent_of_replies_are_distinct(paper_cohort: Cohort) -> None:
    assert len({patient.reference for patient in paper_cohort}) > 0.95 * len(paper_cohort)


@pytest.mark.parametrize("label", LABELS, ids=lambda label: label.name)
def test_every_reply_names_her_label_and_no_other(label: Label, paper_cohort: Cohort) -> None:
    for patient in paper_cohort:
        assert bool(named_labels(patient.reference, [label])) == (patient.label == label.name), patient.reference


def test_every_reply_gives_two_to_four_pieces_of_advice(paper_cohort: Cohort) -> None:
    assert {len(advice(patient)) for patient in paper_cohort} == {2, 3, 4}


def test_replies_have_45_to_80_words(paper_cohort: Cohort) -> None:
    words = [len(patient.reference.split()) for patient in paper_cohort]
    assert min(words) >= 40
    assert max(words) <= 80
    assert 55 <= np.median(words) <= 70


def test_every_number_is_in_her_records(paper_cohort: Cohort) -> None:
    for patient in paper_cohort:
        known = {text for name in INDICATOR_NAMES for text in printed(patient, name)} | set(patient.extra.values())
        text = patient.reference.replace("x10^9/L", "")
        assert set(re.findall(r"\d+(?:[.+/]\d+)*", text)) <= known, text


@pytest.mark.parametrize(
    ("pattern", "name", "which"),
    [
        (r"[Hh]emoglobin(?: is| is low at)? (\d+)", "hgb", "last"),
        (r"[Hh]emoglobin (?:fell to|was lowest at) (\d+)", "hgb", "lowest"),
        (r"MCV (?:is )?([\d.]+)", "mcv", "last"),
        (r"White cells (?:rose to|were at most) ([\d.]+)", "wbc", "highest"),
        (r"platelets fell to (\d+)", "plt", "lowest"),
        (r"platelets (?:are )?(\d+)", "plt", "last"),
    ],
)
def test_a_quoted_lab_is_her_last_or_extreme_one(pattern: str, name: str, which: str, paper_cohort: Cohort) -> None:
    quoted = 0
    for patient in paper_cohort:
        for number in re.findall(pattern, patient.reference):
            values = printed(patient, name)
            of = {
                "last": lambda v: v[-1],
                "lowest": lambda v: min(v, key=float),
                "highest": lambda v: max(v, key=float),
            }
            assert number == of[which](values)
            quoted += 1
    assert quoted > 5


def test_age_and_weeks_are_told_in_every_reply(paper_cohort: Cohort) -> None:
    for patient in paper_cohort:
        assert f"{patient.extra['gestational_weeks']} weeks" in patient.reference
        assert re.search(rf"\b{patient.extra['age']}\b", patient.reference)


def test_replies_read_as_prose(paper_cohort: Cohort) -> None:
    for patient in paper_cohort:
        assert not re.search(r"[{}_]|\bnan\b|None|  | [,.;:]|\.\.|,,|;\.|\. [a-z]", patient.reference), (
            patient.reference
        )
        assert patient.reference.endswith(".")


def test_no_piece_of_advice_is_given_twice(paper_cohort: Cohort) -> None:
    for patient in paper_cohort:
        assert len(set(advice(patient))) == len(advice(patient))


def test_the_undelivered_are_not_told_what_follows_birth(paper_cohort: Cohort) -> None:
    for patient in paper_cohort:
        if patient.extra["delivery"] == "undelivered":
            assert not re.search(r"breastfeed|newborn|abdominal wound|gave birth", patient.reference)


def test_every_phrase_is_used_by_some_doctor(paper_cohort: Cohort, literature_cohort: Cohort) -> None:
    patients = [*paper_cohort, *literature_cohort]
    replies = {label: " ".join(p.reference for p in patients if p.label == label) for label in LABEL_NAMES}
    for phrase in read_table("phrases.csv"):
        if phrase["when"] == "!mcv_known":  # for a carrier whose red cells were never measured
            continue
        parts = re.split(r"\{\w+\}", phrase["text"])
        pattern = ".+?".join(re.escape(part) for part in parts)
        where = " ".join(replies.values()) if phrase["label"] == "*" else replies[phrase["label"]]
        assert re.search(pattern, where), phrase


def test_replies_to_one_condition_are_more_alike_than_to_two(paper_cohort: Cohort) -> None:
    rng = np.random.default_rng(0)
    bags = [Counter(re.findall(r"[a-z]+", patient.reference.lower())) for patient in paper_cohort]

    def overlap(i: int, j: int) -> float:
        return 2 * (bags[i] & bags[j]).total() / (bags[i].total() + bags[j].total())

    pairs = rng.integers(0, len(bags), (4000, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    alike = paper_cohort.y[pairs[:, 0]] == paper_cohort.y[pairs[:, 1]]
    scores = np.array([overlap(i, j) for i, j in pairs])
    assert scores[alike].mean() > scores[~alike].mean() + 0.1
    assert scores[alike].mean() < 0.85
