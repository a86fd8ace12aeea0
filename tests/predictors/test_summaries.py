"""Summaries of check-ups, against loops and worked examples."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from pmlm_env.cohort.schema import Cohort, Patient
from pmlm_env.predictors.summaries import STATISTICS, summarize, summary_names
from tests.schemas import INDICATOR_NAMES, N_INDICATORS, SCHEMA, cohort_of


def summary(patient: Patient) -> dict[str, float]:
    return dict(zip(summary_names(SCHEMA), summarize(cohort_of(patient))[0], strict=True))


def by_loops(patient: Patient) -> list[float]:
    """Work out one patient's summary one indicator at a time."""
    days = (patient.dates - patient.dates[0]).astype(int) if len(patient.dates) else np.array([])
    out: dict[str, list[float]] = {name: [] for name in STATISTICS}
    for j in range(N_INDICATORS):
        there = ~np.isnan(patient.values[:, j])
        y, x = patient.values[there, j], days[there]
        n = len(y)
        out["last"].append(y[-1] if n else np.nan)
        out["mean"].append(np.mean(y) if n else np.nan)
        out["min"].append(min(y) if n else np.nan)
        out["max"].append(max(y) if n else np.nan)
        out["sd"].append(np.std(y) if n else np.nan)
        out["slope"].append(np.polyfit(x, y, 1)[0] if n > 1 else np.nan)
        out["count"].append(n)
    tail = [len(days), days[-1] if len(days) else np.nan]
    return [number for name in STATISTICS for number in out[name]] + tail


def test_summaries_are_those_of_a_loop_over_patients_and_indicators() -> None:
    rng = np.random.default_rng(0)
    patients = []
    for i, n in enumerate((1, 0, 5, 2, 45, 60, 0)):
        values = rng.lognormal(3, 1, (n, N_INDICATORS))
        values[rng.random(values.shape) < 0.4] = np.nan
        dates = np.datetime64("2021-01-01") + np.sort(rng.choice(280, n, replace=False))
        patients.append(Patient(f"p{i}", "x", "", np.datetime64("2022-01-01"), dates, values))
    expected = np.array([by_loops(patient) for patient in patients])
    np.testing.assert_allclose(summarize(cohort_of(*patients)), expected, rtol=1e-6, atol=1e-9)


def test_the_columns_are_named_after_indicator_and_statistic(make_patient) -> None:
    got = summary(make_patient(days=(0, 2, 4), i0=[7.0, np.nan, 7.5], i1=[40.0, 30.0, np.nan]))
    assert INDICATOR_NAMES[:2] == ("pH", "albumin")
    assert (got["pH_last"], got["pH_min"], got["pH_max"], got["pH_mean"]) == (7.5, 7.0, 7.5, 7.25)
    assert (got["pH_sd"], got["pH_slope"], got["pH_count"]) == (0.25, 0.125, 2)
    assert (got["albumin_last"], got["albumin_slope"]) == (30.0, -5.0)
    assert (got["n_checkups"], got["span_days"]) == (3, 4)


def test_what_was_never_measured_is_nan_and_counts_0(make_patient) -> None:
    got = summary(make_patient(days=(0, 1), i0=[7.0, 7.1]))
    assert got.pop("rbc_count") == 0
    assert all(np.isnan(got[name]) for name in got if name.startswith("rbc_"))


def test_one_check_up_has_no_slope_and_no_spread(make_patient) -> None:
    got = summary(make_patient(i0=[7.0]))
    assert np.isnan(got["pH_slope"])
    assert (got["pH_sd"], got["span_days"]) == (0, 0)


@pytest.mark.parametrize("days", [(), (0,), (0, 1)])
def test_empty_columns_make_no_warning(make_patient, days) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summarize(cohort_of(make_patient(days=days), make_patient("b", days=(0,), i0=[1.0])))


def test_the_columns_are_those_of_the_schemas_indicators(men_cohort: Cohort) -> None:
    names = summary_names(men_cohort.schema)
    assert (len(names), names[:2], names[-3]) == (7 * 5 + 2, ("psa_last", "creatinine_last"), "crp_count")
    found = dict(zip(names, summarize(men_cohort)[1], strict=True))
    assert found["urate_mean"] == pytest.approx(men_cohort[1].values[:, 2].mean())
    assert (found["urate_count"], found["n_checkups"]) == (2, 2)


def test_patients_summarized_a_few_at_a_time_have_the_same_summaries(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    patients = []
    for i in range(20):
        n = int(rng.integers(6))
        values = rng.normal(size=(n, N_INDICATORS))
        values[rng.random(values.shape) < 0.4] = np.nan
        dates = np.datetime64("2021-01-01") + np.sort(rng.choice(90, n, replace=False))
        patients.append(Patient(f"P{i}", "normal", "", np.datetime64("2022-01-01"), dates, values))
    at_once = summarize(cohort_of(*patients))
    monkeypatch.setattr("pmlm_env.predictors.summaries._CHUNK", 3)
    np.testing.assert_array_equal(summarize(cohort_of(*patients)), at_once)
