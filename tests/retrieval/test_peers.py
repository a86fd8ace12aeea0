"""Whether peers share a patient's label: simulated patients, and the real ones of Tongji Hospital."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from pmlm_env.cohort.schema import Cohort
from pmlm_env.retrieval import CosineRetriever, NetworkEncoder, out_of_fold_vectors
from tests.schemas import cohort_of

pytestmark = pytest.mark.once

K = 10


def agreement(retriever: CosineRetriever, vectors: npt.NDArray[np.float32], cohort: Cohort) -> npt.NDArray[np.float64]:
    """Return the share of each patient's peers with her own label."""
    found = retriever.peers(vectors, [patient.patient_id for patient in cohort], K)
    return np.array(
        [np.mean([peer.label == patient.label for peer in peers]) for patient, peers in zip(cohort, found, strict=True)]
    )


def by_chance(train: Cohort, cohort: Cohort) -> npt.NDArray[np.float64]:
    """Return the same, expected of peers drawn from ``train`` at random."""
    return np.array([np.mean(train.y == label) for label in cohort.y])


def fitted(train: Cohort) -> tuple[NetworkEncoder, CosineRetriever]:
    encoder = NetworkEncoder.fit(train, seed=0, device="cpu")
    return encoder, CosineRetriever(encoder.encode(train), [patient.patient_id for patient in train], list(train.y))


@pytest.fixture(scope="module")
def on_simulated(simulated) -> tuple[NetworkEncoder, CosineRetriever]:
    return fitted(simulated.train)


def test_simulated_peers_share_the_label_twice_as_often_as_chance(simulated, on_simulated) -> None:
    encoder, retriever = on_simulated
    shared = agreement(retriever, encoder.encode(simulated.test), simulated.test)
    assert shared.mean() >= 2 * by_chance(simulated.train, simulated.test).mean()


def test_training_patients_have_no_better_peers_than_new_ones(simulated, on_simulated) -> None:
    encoder, retriever = on_simulated
    later = cohort_of(*simulated.validation, *simulated.test)
    new = agreement(retriever, encoder.encode(later), later).mean()
    vectors = out_of_fold_vectors(encoder, simulated.train, seed=0, n_folds=3, device="cpu")
    assert agreement(retriever, vectors, simulated.train).mean() == pytest.approx(new, abs=0.06)


def test_real_peers_share_the_label_more_often_than_chance(tongji) -> None:
    encoder, retriever = fitted(tongji.train)
    gain = agreement(retriever, encoder.encode(tongji.test), tongji.test) - by_chance(tongji.train, tongji.test)
    resampled = np.random.default_rng(0).integers(0, len(gain), (2000, len(gain)))
    assert np.quantile(gain[resampled].mean(axis=1), 0.025) > 0
