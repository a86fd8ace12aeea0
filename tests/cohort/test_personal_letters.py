"""Letters about a woman's own latest values (``simulate_cohort(personal=...)``)."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pmlm_env.cohort import read_cohort
from pmlm_env.cohort.naming.labels import named_labels
from pmlm_env.cohort.schema import Cohort, Patient
from pmlm_env.cohort.simulator import Signal, simulate_cohort
from pmlm_env.cohort.simulator.labs import DECIMALS
from pmlm_env.cohort.simulator.tables import read_table
from tests.commands import pmlm
from tests.schemas import INDICATOR_NAMES, INDICATORS, LABELS

pytestmark = pytest.mark.once

ROWS = read_table("personal.csv")

#: Remarks that hardly any woman's values call for.
RARE = {("albumin", "low"), ("eosinophil_count", "high")}


@pytest.fixture(scope="module", params=[0.25, 0.5, 1.0])
def share(request: pytest.FixtureRequest) -> float:
    return request.param


@pytest.fixture(scope="module")
def cohort(share: float) -> Cohort:
    return simulate_cohort(600, personal=share)


@pytest.fixture(scope="module")
def usual_cohort() -> Cohort:
    return simulate_cohort(600)


@pytest.fixture(scope="module")
def wholly() -> Cohort:
    return simulate_cohort(600, personal=1)


def named(patient: Patient) -> list[str]:
    """Return the indicators that the letter's remarks are about."""
    return [name for name in patient.extra["personal"].split("; ") if name]


def latest(patient: Patient, name: str) -> float:
    """Return the last measured value of an indicator; NaN if there is none."""
    column = patient.values[:, INDICATOR_NAMES.index(name)]
    measured = column[~np.isnan(column)]
    return float(measured[-1]) if len(measured) else np.nan


def printed(patient: Patient, name: str) -> str:
    return f"{latest(patient, name):.{DECIMALS[name]}f}"


def parts(patient: Patient) -> tuple[list[str], list[str]]:
    """Return the findings and the pieces of advice of a letter."""
    text, _, advice = patient.reference.partition(" Advice: ")
    sentences = re.split(r"(?<=\.) (?=[A-Z])", text)
    return sentences[2:], advice.removesuffix(".").split("; ")


def remarks_of(patient: Patient) -> list[tuple[dict[str, str], str, str]]:
    """Return the rows of the table, the findings, and the pieces of advice of the letter's remarks."""
    findings, advice = parts(patient)
    found = []
    names = named(patient)
    last = len(findings) - len(names), len(advice) - len(names)
    for name, finding, piece in zip(names, findings[last[0] :], advice[last[1] :], strict=True):
        side = "high" if "which is high" in finding else "low"
        found.append((next(row for row in ROWS if (row["indicator"], row["side"]) == (name, side)), finding, piece))
    return found


# The default


@pytest.mark.parametrize(
    ("seed", "signal", "digests"),
    [
        (0, "paper", {"checkups.csv": "3a3f1258143313e5", "patients.csv": "801d5c9870ea065b"}),
        (3, "literature", {"checkups.csv": "11f88eb33278d1d1", "patients.csv": "21a6a8001f1e1906"}),
    ],
)
def test_without_the_option_the_files_are_what_they_were_before_there_was_one(
    seed: int, signal: Signal, digests: dict[str, str], tmp_path: Path
) -> None:
    assert pmlm("simulate", "--out", tmp_path, "--patients", 200, "--seed", seed, "--signal", signal) == 0
    found = {f.name: hashlib.sha256(f.read_bytes()).hexdigest()[:16] for f in tmp_path.glob("*.csv")}
    assert found == digests


def test_women_and_labs_are_the_same_for_every_share(cohort: Cohort, usual_cohort: Cohort) -> None:
    for ours, usual in zip(cohort, usual_cohort, strict=True):
        assert (ours.patient_id, ours.label, ours.split_date) == (usual.patient_id, usual.label, usual.split_date)
        assert {name: text for name, text in ours.extra.items() if name != "personal"} == usual.extra
        assert np.array_equal(ours.dates, usual.dates)
        assert np.array_equal(ours.values, usual.values, equal_nan=True)


def test_what_is_left_of_a_letter_is_what_it_had(cohort: Cohort, usual_cohort: Cohort, share: float) -> None:
    n_personal = n_parts = 0
    for ours, usual in zip(cohort, usual_cohort, strict=True):
        n = len(named(ours))
        (findings, advice), (usual_findings, usual_advice) = parts(ours), parts(usual)
        n_left, n_pieces = len(findings) - n, len(advice) - n
        assert findings[:n_left] == usual_findings[:n_left]
        assert advice[:n_pieces] == usual_advice[:n_pieces]
        n_personal, n_parts = n_personal + 2 * n, n_parts + len(findings) + len(advice)
    assert n_personal / n_parts == pytest.approx(share, abs=0.08)


# The remarks


def test_the_column_names_the_indicators_whose_latest_values_the_letter_states(cohort: Cohort) -> None:
    n_remarks = 0
    for patient in cohort:
        for name, (row, finding, piece) in zip(named(patient), remarks_of(patient), strict=True):
            indicator = INDICATORS[INDICATOR_NAMES.index(name)]
            unit = indicator.unit.replace("10^", "x10^")
            assert f" {printed(patient, name)} {unit}, which is " in finding, patient.reference
            assert finding.startswith(row["finding"].partition(" {value}")[0])
            assert piece == row["advice"]  # which fits the finding
            n_remarks += 1
    assert n_remarks > len(cohort) / 2


def test_values_outside_their_reference_range_are_called_low_or_high(wholly: Cohort) -> None:
    seen = set()
    for patient in wholly:
        for name, (_, finding, _) in zip(named(patient), remarks_of(patient), strict=True):
            indicator, value = INDICATORS[INDICATOR_NAMES.index(name)], latest(patient, name)
            low, high = indicator.reference_low or 0, indicator.reference_high
            outside = "low" if value < low else "high" if value > high else ""
            inside = "low-normal" if value <= (low + high) / 2 else "high-normal"
            assert finding.endswith(f"which is {outside or inside}.")
            seen.add(outside or inside)
    assert seen == {"low", "high", "low-normal", "high-normal"}


def test_the_first_remark_is_on_the_most_unusual_value_that_a_doctor_remarks_on(wholly: Cohort) -> None:
    for patient in wholly:
        distances = {}
        for row in ROWS:
            indicator, value = INDICATORS[INDICATOR_NAMES.index(row["indicator"])], latest(patient, row["indicator"])
            low, high = indicator.reference_low or 0, indicator.reference_high
            distance = (value - (low + high) / 2) / (high - low)
            if (distance > 0) == (row["side"] == "high") and not np.isnan(distance):
                distances[row["indicator"]] = abs(distance)
        assert distances[named(patient)[0]] == pytest.approx(max(distances.values()))


def test_two_women_with_one_label_and_other_values_get_other_sentences(wholly: Cohort) -> None:
    letters = defaultdict(list)
    for patient in wholly:
        letters[patient.label].append(([printed(patient, name) for name in named(patient)], parts(patient)))
    for of_label in letters.values():
        assert len({str(found) for _, found in of_label}) > 0.95 * len(of_label)
        for (values, (findings, _)), (other_values, (other_findings, _)) in pairwise(of_label):
            assert (findings == other_findings) == (values == other_values)


def test_every_remark_is_made_by_some_doctor(wholly: Cohort) -> None:
    made = {(row["indicator"], row["side"]) for patient in wholly for row, _, _ in remarks_of(patient)}
    assert {(row["indicator"], row["side"]) for row in ROWS} - made <= RARE


# The letters


def test_every_letter_names_her_label_and_no_other(cohort: Cohort) -> None:
    for patient in cohort:
        assert set(named_labels(patient.reference, LABELS)) == {patient.label}, patient.reference


def test_every_number_is_in_her_records(cohort: Cohort) -> None:
    for patient in cohort:
        known = {
            f"{value:.{DECIMALS[name]}f}"
            for name, column in zip(INDICATOR_NAMES, patient.values.T, strict=True)
            for value in column[~np.isnan(column)]
        } | set(patient.extra.values())
        text = re.sub(r"x10\^9/L|vitamin B12", "", patient.reference)
        assert set(re.findall(r"\d+(?:[.+/]\d+)*", text)) <= known, text


def test_letters_have_40_to_80_words_and_two_to_four_pieces_of_advice_none_twice(cohort: Cohort) -> None:
    for patient in cohort:
        assert 40 <= len(patient.reference.split()) <= 80
        _, advice = parts(patient)
        assert 2 <= len(advice) <= 4
        assert len(set(advice)) == len(advice)


def test_no_value_is_told_twice(cohort: Cohort) -> None:
    for patient in cohort:
        for row, finding, piece in remarks_of(patient):
            rest = patient.reference.replace(finding, "").replace(piece, "")
            assert not re.search(row["unless"].partition("|")[0], rest, re.IGNORECASE), patient.reference


def test_letters_read_as_prose(cohort: Cohort) -> None:
    for patient in cohort:
        wrong = r"[{}_]|\bnan\b|None|  | [,.;:]|\.\.|,,|;\.|\. [a-z]|: ;"
        assert not re.search(wrong, patient.reference), patient.reference
        assert patient.reference.endswith(".")


# The option


def test_the_command_writes_the_column_only_with_the_option(tmp_path: Path) -> None:
    for name, options in (("usual", []), ("wholly", ["--personal", "1"])):
        assert pmlm("simulate", "--out", tmp_path / name, "--patients", 40, *options) == 0
    usual, wholly = (read_cohort(tmp_path / name)[0] for name in ("usual", "wholly"))
    assert all("personal" not in patient.extra for patient in usual)
    assert [p.reference for p in wholly] == [p.reference for p in simulate_cohort(40, personal=1)]
    assert [named(p) for p in wholly] == [named(p) for p in simulate_cohort(40, personal=1)]


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan"), "all", True])
def test_other_shares_are_refused_in_one_line(share: float) -> None:
    with pytest.raises(ValueError, match=f"personal must be a number from 0 to 1, not {share!r}"):
        simulate_cohort(personal=share)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--personal", "1.5", "--personal is 1.5: use a number from 0 to 1"),
        ("--personal", "nan", "--personal is nan: use a number from 0 to 1"),
        ("--patients", "0", "--patients is 0: use a whole number of at least 1"),
        ("--seed", "-1", "--seed is -1: use a whole number of at least 0"),
    ],
)
def test_the_command_refuses_numbers_out_of_range_before_it_writes(
    option: str, value: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pmlm("simulate", "--out", tmp_path / "cohort", option, value) == 2
    assert capsys.readouterr().err == f"pmlm simulate: {said}\n"
    assert not (tmp_path / "cohort").exists()
