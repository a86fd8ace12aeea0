"""Training patients are predicted by predictors that have not seen them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from pmlm_env.cohort.schema import Cohort, Patient
from pmlm_env.predictors.base import assign_folds, out_of_fold_proba
from tests.schemas import SCHEMA


class Memory:
    """Gives the true label of patients it was fitted to, and of others a label that nobody has first."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(sorted(set(self._known.values())))

    def fit(self, cohort: Cohort) -> Memory:
        self._known = {patient.patient_id: patient.label for patient in cohort}
        return self

    def predict_proba(self, cohort: Cohort) -> npt.NDArray[np.float64]:
        proba = np.full((len(cohort), len(self.labels)), 1 / len(self.labels))
        for row, patient in zip(proba, cohort, strict=True):
            if patient.patient_id in self._known:
                row[:] = np.array(self.labels) == self._known[patient.patient_id]
        return proba

    def predict(self, cohort: Cohort) -> npt.NDArray[np.str_]:
        return np.array(self.labels)[self.predict_proba(cohort).argmax(axis=1)]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def cohort_of(make_patient, labels: str) -> Cohort:
    patients: list[Patient] = [make_patient(f"p{i}", label) for i, label in enumerate(labels)]
    return Cohort(tuple(patients), SCHEMA)


def test_the_memory_would_know_a_patient_it_has_seen(make_patient) -> None:
    cohort = cohort_of(make_patient, "aaaabbbb")
    assert (Memory().fit(cohort).predict_proba(cohort).max(axis=1) == 1).all()


def test_no_patient_is_predicted_by_a_predictor_that_has_seen_her(make_patient, rng) -> None:
    proba = out_of_fold_proba(Memory, cohort_of(make_patient, "aaaaaabbbbbb"), rng=rng)
    assert (proba == 0.5).all()


def test_each_predictor_sees_everyone_outside_its_fold(make_patient, rng) -> None:
    seen: list[set[str]] = []

    class Spy(Memory):
        def fit(self, cohort: Cohort) -> Memory:
            seen.append({patient.patient_id for patient in cohort})
            return super().fit(cohort)

    cohort = cohort_of(make_patient, "aaaaabbbbb")
    out_of_fold_proba(Spy, cohort, n_folds=5, rng=rng)
    everyone = {patient.patient_id for patient in cohort}
    left_out = [everyone - ids for ids in seen]
    assert [len(ids) for ids in left_out] == [2] * 5
    assert set().union(*left_out) == everyone


def test_a_label_with_one_patient_gets_probability_0_for_her_and_not_for_others(make_patient, rng) -> None:
    proba = out_of_fold_proba(Memory, cohort_of(make_patient, "aaaaabbbbbc"), rng=rng)
    assert proba.shape == (11, 3)
    assert proba[10, 2] == 0
    assert (proba[:10, 2] > 0).sum() >= 8
    np.testing.assert_allclose(proba.sum(axis=1), 1)


def test_folds_hold_each_label_as_evenly_as_can_be(rng) -> None:
    labels = np.array(list("aaaaaaaaaaaaabbbbbbbcc"))
    folds = assign_folds(labels, 5, rng)
    for members in (labels == "a", labels == "b", labels == "c", labels != ""):
        counts = np.bincount(folds[members], minlength=5)
        assert counts.max() - counts.min() <= 1


def test_folds_are_drawn_by_the_generator_given() -> None:
    labels = np.array(["a"] * 50)
    one, same, other = (assign_folds(labels, 5, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


@pytest.mark.parametrize("returned", [np.array([np.nan, 1.0]), np.array([-0.5, 1.5]), np.array([0.0, 0.0])])
def test_what_are_no_probabilities_are_told_in_each_fold(returned: npt.NDArray[np.float64], make_patient, rng) -> None:
    class Unsure(Memory):
        def predict_proba(self, cohort: Cohort) -> npt.NDArray[np.float64]:
            return np.tile(returned, (len(cohort), 1))

    cohort = cohort_of(make_patient, "aaaabbbb")
    with pytest.raises(ValueError, match=r"^the predictor .*Unsure returned an array of shape \(2, 2\) or values that"):
        out_of_fold_proba(Unsure, cohort, n_folds=4, rng=rng)


def test_one_row_is_not_taken_for_those_of_all_patients_of_a_fold(make_patient, rng) -> None:
    class Single(Memory):
        def predict_proba(self, cohort: Cohort) -> npt.NDArray[np.float64]:
            return super().predict_proba(cohort)[:1]

    with pytest.raises(ValueError, match=r"^the predictor mine returned an array of shape \(1, 2\)"):
        out_of_fold_proba(Single, cohort_of(make_patient, "aaaabbbb"), n_folds=4, rng=rng, name="mine")


def test_two_patients_are_enough(make_patient, rng) -> None:
    assert out_of_fold_proba(Memory, cohort_of(make_patient, "ab"), rng=rng).tolist() == [[0, 1], [1, 0]]


def test_one_patient_is_too_few(make_patient, rng) -> None:
    with pytest.raises(ValueError, match="at least 2 patients, got 1"):
        out_of_fold_proba(Memory, cohort_of(make_patient, "a"), rng=rng)


def test_one_fold_is_too_few(make_patient, rng) -> None:
    with pytest.raises(ValueError, match="at least 2 folds, got 1"):
        out_of_fold_proba(Memory, cohort_of(make_patient, "ab"), n_folds=1, rng=rng)
