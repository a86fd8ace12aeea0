"""Patient vectors for plain k-nearest neighbors: standardized summaries."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sklearn.preprocessing import StandardScaler

from pmlm_env.cohort import Cohort
from pmlm_env.predictors.summaries import STATISTICS, summarize
from pmlm_env.retrieval import SummaryEncoder, load_patient_encoder
from tests.schemas import N_INDICATORS, SCHEMA, cohort_of

WEIGHTS, CONFIG = "patient_encoder.safetensors", "patient_encoder.json"


@pytest.fixture(scope="module")
def summaries(two_groups: Cohort) -> SummaryEncoder:
    return SummaryEncoder.fit(two_groups[:40])


def test_vectors_are_summaries_standardized_by_the_training_patients(
    summaries: SummaryEncoder, two_groups: Cohort
) -> None:
    scaler = StandardScaler().fit(summarize(two_groups[:40]))
    expected = np.nan_to_num(scaler.transform(summarize(two_groups)).clip(-5, 5))
    vectors = summaries.encode(two_groups)
    assert (vectors.shape, vectors.dtype) == ((60, 7 * N_INDICATORS + 2), np.float32)
    assert summaries.vector_size == 7 * N_INDICATORS + 2
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-6)


def test_what_does_not_vary_in_training_or_was_never_measured_there_is_zero(two_groups: Cohort, make_patient) -> None:
    def changed(cohort: Cohort, first: float, second: float) -> Cohort:
        patients = []
        for patient in cohort:
            values = patient.values.copy()
            values[:, 0], values[:, 1] = first, second
            patients.append(replace(patient, values=values))
        return cohort_of(*patients)

    encoder = SummaryEncoder.fit(changed(two_groups, 0.1, np.nan))
    vectors = encoder.encode(changed(two_groups, 40.0, 40.0))
    vectors = vectors[:, :-2].reshape(60, len(STATISTICS), N_INDICATORS)
    measured = [name != "count" for name in STATISTICS]
    assert (vectors[:, measured, :2] == 0).all()
    assert np.isfinite(vectors).all()


def test_an_indicator_that_never_changes_counts_only_by_its_level(make_patient) -> None:
    rng = np.random.default_rng(0)
    patients = []
    for i in range(30):
        values = rng.lognormal(size=(9, N_INDICATORS))
        values[:, 0] = [0.1, 0.3, 1e-9][i % 3]
        patients.append(make_patient(values, f"p{i}"))
    vectors = SummaryEncoder.fit(cohort_of(*patients)).encode(cohort_of(*patients))
    first = vectors[:, :-2].reshape(30, len(STATISTICS), N_INDICATORS)[:, :, 0]
    assert (first[:, [STATISTICS.index("sd"), STATISTICS.index("slope")]] == 0).all()
    assert np.unique(first[:, STATISTICS.index("mean")].round(3)).size == 3


def test_extreme_and_missing_values_have_finite_vectors(summaries: SummaryEncoder, make_patient) -> None:
    empty, high = np.full((2, N_INDICATORS), np.nan), np.full((3, N_INDICATORS), 1e300)
    vectors = summaries.encode(cohort_of(make_patient(empty, "a"), make_patient(high, "b"), make_patient(empty[:0])))
    assert np.abs(vectors).max() <= 5
    assert np.isfinite(vectors).all()


def test_a_patient_has_the_same_vector_alone_and_among_others(summaries: SummaryEncoder, two_groups: Cohort) -> None:
    together = summaries.encode(two_groups)
    for i in range(len(two_groups)):
        np.testing.assert_array_equal(summaries.encode(two_groups[i : i + 1])[0], together[i])


def test_labels_do_not_matter(summaries: SummaryEncoder, two_groups: Cohort) -> None:
    unlabeled = cohort_of(*(replace(patient, label="") for patient in two_groups[:40]))
    np.testing.assert_array_equal(SummaryEncoder.fit(unlabeled).encode(two_groups), summaries.encode(two_groups))


def test_a_saved_encoder_gives_the_same_vectors(summaries: SummaryEncoder, two_groups: Cohort, tmp_path: Path) -> None:
    summaries.save(tmp_path)
    loaded = load_patient_encoder(tmp_path, SCHEMA)
    np.testing.assert_array_equal(loaded.encode(two_groups), summaries.encode(two_groups))


def test_patients_with_other_indicators_are_refused(
    summaries: SummaryEncoder, men_cohort: Cohort, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="differs from that of the patient encoder: there are 5 indicators, expected"):
        summaries.encode(men_cohort)
    summaries.save(tmp_path)
    with pytest.raises(ValueError, match=r"patient_encoder\.json: there are 35 indicators, expected 5: fit the encod"):
        load_patient_encoder(tmp_path, men_cohort.schema)


@pytest.mark.parametrize("bad", [{"sd": 0.0}, {"sd": np.nan}, {"sd": -1.0}, {"mean": np.nan}, {"mean": np.inf}])
def test_means_and_sds_that_cannot_be_are_refused(summaries: SummaryEncoder, tmp_path: Path, bad: dict) -> None:
    summaries.save(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    for name, value in bad.items():
        tensors[name][3] = value
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match=r"patient_encoder\.safetensors has means or SDs that no patients have: fit"):
        load_patient_encoder(tmp_path, SCHEMA)


@pytest.mark.parametrize("kind", ["forest", 3, None, ["network"]])
def test_an_encoder_of_an_unknown_kind_is_refused(summaries: SummaryEncoder, tmp_path: Path, kind: object) -> None:
    summaries.save(tmp_path)
    (tmp_path / CONFIG).write_text(json.dumps({**json.loads((tmp_path / CONFIG).read_text()), "kind": kind}))
    with pytest.raises(ValueError, match=r"patient_encoder\.json is of another version of pmlm-env: fit the encoder"):
        load_patient_encoder(tmp_path, SCHEMA)
