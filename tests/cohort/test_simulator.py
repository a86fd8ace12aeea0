"""The simulated cohort has the paper's figures, obeys the laws of the laboratory, and shows what was published."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from pmlm_env.cohort.schema import Cohort, Patient
from pmlm_env.cohort.simulator import simulate_cohort
from tests.schemas import INDICATOR_NAMES, INDICATORS, LABEL_NAMES, MAX_CHECKUPS

pytestmark = pytest.mark.once

TRAIN_END, TEST_START = np.datetime64("2021-12-31"), np.datetime64("2022-07-01")
#: Share of days without the indicator among 1,044 days of 360 inpatients of Tongji (Yan 2020).
TONGJI_MISSING = {
    "hgb": 0.096,
    "wbc": 0.096,
    "mpv": 0.182,
    "rdw_cv": 0.128,
    "alt": 0.121,
    "albumin": 0.119,
    "pH": 0.897,
}
PANELS = {
    "blood count": ["hgb", "hct", "rbc", "mcv", "mch", "mchc", "wbc", "plt", "neutrophil_ratio", "basophil_count"],
    "platelet indices": ["large_platelet_count", "plateletcrit", "large_platelet_ratio", "mpv", "pdw"],
    "liver": ["albumin", "total_protein", "indirect_bilirubin", "total_bilirubin", "alt", "total_bile_acid"],
}


def column(values: np.ndarray, name: str) -> np.ndarray:
    """Return one indicator's column."""
    return values[:, INDICATOR_NAMES.index(name)]


def rows(cohort: Cohort) -> np.ndarray:
    """Return all check-ups of a cohort, shape (R, 35)."""
    return np.concatenate([patient.values for patient in cohort])


def of(cohort: Cohort, label: str) -> list[Patient]:
    """Return the patients of one label."""
    return [patient for patient in cohort if patient.label == label]


def weeks(patient: Patient) -> np.ndarray:
    """Return the weeks of gestation at each check-up of a woman who is still pregnant at her index date."""
    done, days = map(int, patient.extra["gestational_weeks"].split("+"))
    return done + days / 7 - (patient.split_date - patient.dates).astype(int) / 7


def means(patients: list[Patient], name: str) -> np.ndarray:
    """Return each woman's mean of an indicator, those never measured left out."""
    found = [column(p.values, name) for p in patients]
    return np.array([np.nanmean(x) for x in found if not np.isnan(x).all()])


def same(a: Cohort, b: Cohort) -> bool:
    """Whether two cohorts are equal in everything."""
    return all(
        (p.patient_id, p.label, p.reference, p.split_date, p.extra)
        == (q.patient_id, q.label, q.reference, q.split_date, q.extra)
        and np.array_equal(p.dates, q.dates)
        and np.array_equal(p.values, q.values, equal_nan=True)
        for p, q in zip(a, b, strict=True)
    )


# The paper's figures


def test_women_by_year_are_the_papers(paper_cohort: Cohort) -> None:
    years = Counter(str(patient.split_date)[:4] for patient in paper_cohort)
    assert years == {"2020": 56, "2021": 1638, "2022": 679}


def test_both_halves_of_2022_have_women(paper_cohort: Cohort) -> None:
    late = sum(patient.split_date >= TEST_START for patient in paper_cohort)
    assert 300 < late < 379


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_checkups_are_about_as_many_as_the_papers(seed: int) -> None:
    cohort = simulate_cohort(seed=seed)
    assert cohort.n_checkups == pytest.approx(38_817, rel=0.03)
    assert max(len(patient.dates) for patient in cohort) == MAX_CHECKUPS


def test_every_label_is_in_train_and_test_and_none_dominates(paper_cohort: Cohort) -> None:
    for part in (
        [p for p in paper_cohort if p.split_date <= TRAIN_END],
        [p for p in paper_cohort if p.split_date >= TEST_START],
    ):
        counts = Counter(patient.label for patient in part)
        assert set(counts) == set(LABEL_NAMES)
        assert max(counts.values()) < 0.25 * len(part)


@pytest.mark.parametrize("n", [1, 2, 12, 60, 301])
def test_any_size_works(n: int) -> None:
    cohort = simulate_cohort(n, seed=3)
    assert len(cohort) == n
    assert len({patient.patient_id for patient in cohort}) == n
    assert all(1 <= len(patient.dates) <= MAX_CHECKUPS for patient in cohort)


def test_same_seed_gives_the_same_cohort_and_another_seed_another() -> None:
    assert same(simulate_cohort(40, seed=5), simulate_cohort(40, seed=5))
    assert not same(simulate_cohort(40, seed=5), simulate_cohort(40, seed=6))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_patients": 0}, "n_patients must be a whole number of at least 1, not 0"),
        ({"n_patients": 2.5}, "n_patients must be a whole number"),
        ({"seed": -1}, "seed must be a whole number of at least 0, not -1"),
        ({"signal": "strong"}, "signal must be one of paper, literature, not 'strong'"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate_cohort(**arguments)


# Dates and histories


def test_checkups_are_on_distinct_days_up_to_the_index_date(paper_cohort: Cohort) -> None:
    for patient in paper_cohort:
        assert (np.diff(patient.dates).astype(int) > 0).all()
        assert patient.dates[-1] <= patient.split_date


def test_checkups_lie_in_the_pregnancy_and_in_the_papers_years(paper_cohort: Cohort) -> None:
    for patient in paper_cohort:
        assert weeks(patient)[0] > 6
        assert patient.dates[0] >= np.datetime64("2020-01-01")


def test_checkups_grow_denser_towards_the_end(paper_cohort: Cohort) -> None:
    left = np.concatenate([(p.split_date - p.dates).astype(int) for p in paper_cohort])
    assert (left < 28).mean() > 2 * ((left >= 84) & (left < 112)).mean()


def test_graver_conditions_have_more_checkups(paper_cohort: Cohort) -> None:
    mean = {label: np.mean([len(p.dates) for p in of(paper_cohort, label)]) for label in LABEL_NAMES}
    assert mean["normal"] < mean["gestational diabetes"] < mean["gestational hypertension"]
    assert mean["normal"] < mean["uterine scar"] < mean["uterine rupture"]


def test_preeclampsia_has_more_checkups_than_plain_hypertension(paper_cohort: Cohort) -> None:
    found = of(paper_cohort, "gestational hypertension")
    grave = [len(p.dates) for p in found if p.extra["form"] == "preeclampsia"]
    plain = [len(p.dates) for p in found if p.extra["form"] != "preeclampsia"]
    assert np.mean(grave) > np.mean(plain)


def test_histories_are_consistent(paper_cohort: Cohort) -> None:
    for patient in paper_cohort:
        extra = patient.extra
        assert int(extra["parity"]) < int(extra["gravidity"])
        assert (extra["previous_cesarean"] == "yes") == (patient.label in ("uterine scar", "uterine rupture"))
        assert extra["previous_cesarean"] == "no" or int(extra["parity"]) >= 1
        assert int(extra["age"]) >= 18 + 3 * int(extra["parity"])


def test_preterm_rupture_of_membranes_is_before_37_weeks(paper_cohort: Cohort) -> None:
    for patient in of(paper_cohort, "premature rupture of membranes"):
        preterm = int(patient.extra["gestational_weeks"].split("+")[0]) < 37
        assert preterm == (patient.extra["form"] == "preterm")


# The laws of the laboratory

IDENTITIES = {
    "total_bilirubin": (lambda c: c("direct_bilirubin") + c("indirect_bilirubin"), 0.05),
    "mcv": (lambda c: 10 * c("hct") / c("rbc"), 0.05),
    "mch": (lambda c: c("hgb") / c("rbc"), 0.05),
    "mchc": (lambda c: 100 * c("hgb") / c("hct"), 0.5),
    "plateletcrit": (lambda c: c("plt") * c("mpv") / 1e4, 0.005),
    "large_platelet_count": (lambda c: c("plt") * c("large_platelet_ratio") / 100, 0.5),
    **{
        f"{cell}_count": (lambda c, cell=cell: c("wbc") * c(f"{cell}_ratio") / 100, 0.005)
        for cell in ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")
    },
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_identity_holds_to_the_printed_digit_in_every_row(name: str, paper_cohort: Cohort) -> None:
    values = rows(paper_cohort)
    expected, half_digit = IDENTITIES[name]
    error = np.abs(column(values, name) - expected(lambda other: column(values, other)))
    assert np.nanmax(error) <= half_digit * (1 + 1e-9)
    assert np.isfinite(error).mean() > 0.75


def test_cell_ratios_sum_to_100(paper_cohort: Cohort) -> None:
    values = rows(paper_cohort)
    total = sum(column(values, name) for name in INDICATOR_NAMES if name.endswith("_ratio") and "platelet" not in name)
    np.testing.assert_allclose(total[~np.isnan(total)], 100)


@pytest.mark.parametrize("indicator", INDICATORS, ids=lambda indicator: indicator.name)
def test_values_are_possible(indicator, paper_cohort: Cohort) -> None:
    found = column(rows(paper_cohort), indicator.name)
    assert np.nanmin(found) >= indicator.low
    assert np.nanmax(found) <= indicator.high


@pytest.mark.parametrize("name", TONGJI_MISSING)
def test_values_are_missing_as_often_as_in_tongji(name: str, paper_cohort: Cohort) -> None:
    assert np.isnan(column(rows(paper_cohort), name)).mean() == pytest.approx(TONGJI_MISSING[name], abs=0.02)


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_is_measured_as_a_whole_but_for_single_holes(panel: str, paper_cohort: Cohort) -> None:
    measured = ~np.isnan(np.stack([column(rows(paper_cohort), name) for name in PANELS[panel]], axis=1))
    ordered = measured[measured.any(axis=1)]
    assert 0.99 < ordered.mean() < 1


def test_no_checkup_is_empty(paper_cohort: Cohort) -> None:
    assert (~np.isnan(rows(paper_cohort))).any(axis=1).all()


# Levels and spreads of healthy pregnancies


@pytest.mark.parametrize(
    ("name", "week", "median"),
    [
        ("albumin", 32, 37.4),
        ("neutrophil_count", 32, 7.0),
        ("lymphocyte_count", 32, 1.75),
        ("albumin", 16, 40.3),
        ("rbc", 24, 3.9),
        ("hgb", 32, 119),
    ],
)
def test_medians_follow_the_weeks_of_pregnancy(name: str, week: int, median: float, literature_cohort: Cohort) -> None:
    found = np.concatenate(
        [column(p.values, name)[np.abs(weeks(p) - week) < 3] for p in of(literature_cohort, "normal")]
    )
    assert np.nanmedian(found) == pytest.approx(median, rel=0.04)


@pytest.mark.parametrize(
    ("name", "within", "between"),
    [
        ("albumin", 0.029, 0.036),
        ("mcv", 0.015, 0.050),
        ("plt", 0.150, 0.180),
        ("alt", 0.26, 0.38),
        ("mpv", 0.038, 0.057),
    ],
)
def test_spread_within_and_between_women_is_as_calibrated(
    name: str, within: float, between: float, literature_cohort: Cohort
) -> None:
    women = [p for p in of(literature_cohort, "normal") + of(literature_cohort, "uterine scar") if len(p.dates) >= 6]
    # Log deviations from the mean course over pregnancy, the days after birth left out.
    week = np.concatenate([weeks(p) for p in women])
    who = np.repeat(np.arange(len(women)), [len(p.dates) for p in women])
    pregnant = np.concatenate([(p.split_date - p.dates).astype(int) > 5 for p in women])
    value = np.log(np.concatenate([column(p.values, name) for p in women]))
    keep = pregnant & ~np.isnan(value)
    value, who = value[keep] - np.polyval(np.polyfit(week[keep], value[keep], 3), week[keep]), who[keep]
    groups = [value[who == i] for i in range(len(women)) if (who == i).sum() > 2]
    inside = np.sqrt(np.mean([g.var(ddof=1) for g in groups]))
    outside = np.sqrt(np.var([g.mean() for g in groups]) - np.mean([g.var(ddof=1) / len(g) for g in groups]))
    assert inside == pytest.approx(within, rel=0.15)
    assert outside == pytest.approx(between, rel=0.15)


@pytest.mark.parametrize(
    ("a", "b", "low", "high"),
    [
        ("mpv", "pdw", 0.8, 1),
        ("plt", "mpv", -0.6, -0.3),
        ("rbc", "mcv", -0.65, -0.35),
        ("albumin", "total_protein", 0.4, 0.9),
    ],
)
def test_labs_are_correlated_as_in_patients(a: str, b: str, low: float, high: float, literature_cohort: Cohort) -> None:
    last = np.array([[column(p.values, name)[-1] for name in (a, b)] for p in of(literature_cohort, "normal")])
    assert low < stats.spearmanr(*last.T, nan_policy="omit").statistic < high


# What conditions do to the blood


@pytest.mark.parametrize(
    ("label", "name", "direction"),
    [
        ("thalassemia", "mcv", "less"),
        ("thalassemia", "mch", "less"),
        ("thalassemia", "hgb", "less"),
        ("thalassemia", "rdw_cv", "greater"),
        ("gestational hypertension", "mpv", "greater"),
        ("gestational hypertension", "pdw", "greater"),
        ("gestational hypertension", "plt", "less"),
        ("gestational hypertension", "plateletcrit", "less"),
        ("gestational diabetes", "hgb", "greater"),
        ("gestational diabetes", "wbc", "greater"),
        ("gestational diabetes", "alt", "greater"),
        ("premature rupture of membranes", "wbc", "greater"),
        ("pregnancy complicated with hypothyroidism", "hgb", "less"),
    ],
)
def test_published_shift_is_there(label: str, name: str, direction: str, literature_cohort: Cohort) -> None:
    ill, healthy = (means(of(literature_cohort, which), name) for which in (label, "normal"))
    assert stats.mannwhitneyu(ill, healthy, alternative=direction).pvalue < 0.01


def test_most_beta_carriers_and_fewer_alpha_carriers_have_small_cells(literature_cohort: Cohort) -> None:
    small = {"beta carrier": [], "alpha carrier": []}
    for patient in of(literature_cohort, "thalassemia"):
        mcv, mch = np.nanmean(column(patient.values, "mcv")), np.nanmean(column(patient.values, "mch"))
        small[patient.extra["form"]].append(mcv < 80 or mch < 27)
    # Cheng 2022: 94 % and 37 %.
    assert np.mean(small["beta carrier"]) > 0.8
    assert 0.2 < np.mean(small["alpha carrier"]) < 0.75


def antenatal(patients: list[Patient]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return whose, in which week and with what values the check-ups from 28 weeks to the last days are."""
    kept = [(weeks(p) >= 28) & ((p.split_date - p.dates).astype(int) > 6) for p in patients]
    who = np.repeat(np.arange(len(patients)), [k.sum() for k in kept])
    week = np.concatenate([weeks(p)[k] for p, k in zip(patients, kept, strict=True)])
    return who, week, np.concatenate([p.values[k] for p, k in zip(patients, kept, strict=True)])


def smallest_p_value(some: list[Patient], others: list[Patient]) -> float:
    """Return the smallest p-value of 34 rank tests between women's means, the course over the weeks taken out."""
    who, week, values = antenatal(some + others)
    p_values = []
    for x in np.delete(values, INDICATOR_NAMES.index("pH"), axis=1).T:  # blood gas is rare before admission
        there = ~np.isnan(x)
        rest = x[there] - np.polyval(np.polyfit(week[there], x[there], 2), week[there])
        n = np.bincount(who[there], minlength=len(some) + len(others))
        mean = np.bincount(who[there], rest, minlength=len(n))[n > 0] / n[n > 0]
        first = np.flatnonzero(n) < len(some)
        p_values.append(stats.mannwhitneyu(mean[first], mean[~first]).pvalue)
    return min(p_values)


@pytest.mark.parametrize(
    "label", ["uterine scar", "umbilical cord entanglement", "acute fetal distress (heart type)", "uterine rupture"]
)
def test_conditions_without_a_published_trace_leave_none(label: str, literature_cohort: Cohort) -> None:
    assert smallest_p_value(of(literature_cohort, label), of(literature_cohort, "normal")) > 0.05 / 34


@pytest.mark.parametrize("label", ["uterine scar", "umbilical cord entanglement", "acute fetal distress (heart type)"])
def test_the_default_signal_lets_them_be_seen(label: str, paper_cohort: Cohort) -> None:
    assert smallest_p_value(of(paper_cohort, label), of(paper_cohort, "normal")) < 1e-6
