"""What is said of the data at `prepare`: coverage, histories that are cut, labels never seen in training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pmlm_env.cohort import Cohort, Indicator, Patient, Schema
from pmlm_env.pipeline import PipelineConfig, PipelineReport, build_episodes
from pmlm_env.pipeline.report import Coverage, unseen_labels
from pmlm_env.predictors import evaluate

SCHEMA = Schema((Indicator("hgb", "g/L"), Indicator("crp", "mg/L"), Indicator("psa", "ug/L")), max_checkups=3)


def patient(number: int, label: str, rows: list[list[float]], year: int = 2021) -> Patient:
    dates = np.datetime64(f"{year}-01-01") + np.arange(len(rows))
    return Patient(f"P{number}", label, "Rest.", np.datetime64(f"{year}-12-01"), dates, np.array(rows, dtype=float))


def test_an_indicator_counts_once_for_each_patient_who_has_it() -> None:
    cohort = Cohort(
        (
            patient(0, "gout", [[120, np.nan, np.nan], [130, 4, np.nan]]),
            patient(1, "gout", [[110, np.nan, np.nan]]),
        ),
        SCHEMA,
    )
    found = Coverage.of(cohort)
    assert found.indicators == {"hgb": 1.0, "crp": 0.5, "psa": 0.0}
    assert str(found) == "a patient has 50% of the 3 indicators on average; fewest patients have psa 0%, crp 50%"


def test_histories_longer_than_the_schemas_are_counted() -> None:
    cohort = Cohort((patient(0, "gout", [[120, 4, 1]] * 5), patient(1, "gout", [[120, 4, 1]] * 3)), SCHEMA)
    found = Coverage.of(cohort)
    assert (found.cut_patients, found.cut_checkups) == (1, 2)
    assert "more than 3 check-ups" in str(found)
    assert "of which the network of stage 2 and predictors of time series read the latest" in str(found)
    assert "1 of 2 patients, 2 check-ups not read" in str(found)


def test_labels_without_a_training_patient_are_counted_the_most_frequent_first() -> None:
    labels = np.array(["gout", "sepsis", "", "asthma", "sepsis"])
    assert unseen_labels(labels, ["gout"]) == {"sepsis": 2, "asthma": 1}
    assert unseen_labels(labels, ["gout", "sepsis", "asthma"]) == {}


def test_the_report_says_which_labels_of_a_split_are_never_predicted() -> None:
    metrics = evaluate(np.ones((2, 1)), ["gout"], np.array(["gout", "sepsis"]), np.array(["gout"]))
    report = PipelineReport({"test": metrics}, {"test": 0.5}, {"test": 0.5}, {"test": {"sepsis": 1}})
    assert "test: labels that no training patient has, so that they are never predicted (patients): 'sepsis' (1)" in (
        str(report).splitlines()
    )
    assert "calibration error" in str(report)
    assert "never predicted" not in str(replace(report, unseen={}))


def test_prepare_reports_the_coverage_and_the_unseen_labels() -> None:
    rng = np.random.default_rng(0)
    labels = ["gout", "asthma"] * 20 + ["sepsis"]
    people = [
        patient(i, label, [[rng.normal(130 - 30 * (label == "gout"), 5), 4, np.nan]] * 4, 2021 if i < 30 else 2023)
        for i, label in enumerate(labels)
    ]
    config = PipelineConfig(k=3, n_folds=3)
    _, report, _ = build_episodes(Cohort(tuple(people), SCHEMA), config, device="cpu")
    assert report.unseen == {"test": {"sepsis": 1}}
    assert report.coverage == Coverage(41, {"hgb": 1.0, "crp": 1.0, "psa": 0.0}, 3, 41, 41)
