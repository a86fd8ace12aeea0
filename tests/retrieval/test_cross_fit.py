"""Training patients are encoded by encoders that have not seen them, in the space of one that has."""

from __future__ import annotations

import numpy as np
import pytest

from pmlm_env.cohort.schema import Cohort
from pmlm_env.retrieval import NetworkEncoder, out_of_fold_vectors


class Turned:
    """Stands in for an encoder fitted anew: the given one, in a space turned at random and stretched."""

    def __init__(self, encoder: NetworkEncoder, seed: int) -> None:
        self._encoder = encoder
        self._turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((128, 128)))[0].astype(np.float32)

    def encode(self, cohort: Cohort) -> np.ndarray:
        return 3.0 * self._encoder.encode(cohort) @ self._turn


def test_spaces_that_differ_by_a_turn_and_a_length_are_made_one(encoder, simulated, monkeypatch) -> None:
    cohort = simulated.train[:400]  # enough to span the 128 dimensions
    monkeypatch.setattr(NetworkEncoder, "fit", lambda cohort, *_: Turned(encoder, seed=len(cohort)))
    own = encoder.encode(cohort)
    np.testing.assert_allclose(out_of_fold_vectors(encoder, cohort, seed=0), own, atol=0.01 * np.abs(own).max())


def test_no_patient_is_encoded_by_an_encoder_that_has_seen_her(encoder, two_groups, monkeypatch) -> None:
    class Spy:
        def __init__(self, cohort: Cohort, *_: object) -> None:
            self._seen = {patient.patient_id for patient in cohort}

        def encode(self, cohort: Cohort) -> np.ndarray:
            """Give the patients it has seen their own vectors, and the others vectors of length 1,000."""
            vectors = encoder.encode(cohort)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors[[patient.patient_id not in self._seen for patient in cohort]] *= 1000
            return vectors

    monkeypatch.setattr(NetworkEncoder, "fit", Spy)
    lengths = np.linalg.norm(out_of_fold_vectors(encoder, two_groups, seed=0), axis=1)
    assert lengths.min() > 500


def test_they_are_float32_vectors_of_the_same_shape(encoder, two_groups) -> None:
    vectors = out_of_fold_vectors(encoder, two_groups[:2], seed=0, device="cpu")
    assert (vectors.shape, vectors.dtype) == ((2, 128), np.float32)
    assert np.isfinite(vectors).all()


@pytest.mark.parametrize(("n_patients", "n_folds"), [(1, 5), (10, 1)])
def test_one_patient_or_one_fold_is_too_few(encoder, two_groups, n_patients, n_folds) -> None:
    with pytest.raises(ValueError, match="need 2 folds and 2 patients"):
        out_of_fold_vectors(encoder, two_groups[:n_patients], seed=0, n_folds=n_folds)
