"""Vectors of training patients that are no better than those of new patients."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.schema import Cohort
from pmlm_env.predictor.base import assign_folds
from pmlm_env.retrieval.encoder import PatientEncoder


def out_of_fold_vectors(
    encoder: PatientEncoder, cohort: Cohort, seed: int, n_folds: int = 5, device: str = "auto"
) -> npt.NDArray[np.float32]:
    """Return each training patient's vector as it would be, had the encoder not been trained on her label.

    An encoder puts the patients it was trained on nearer to their like than it puts new ones, so that peers
    found with ``encoder.encode`` agree with a training patient's label more often than with a new patient's.
    Here each fold is encoded by an encoder fitted to the other folds. Two encoders' spaces have nothing to
    do with each other, so each fold's is then turned into ``encoder``'s: by the rotation that best maps the
    vectors of the *other* folds onto those they have there (orthogonal Procrustes, Schönemann 1966). There is one
    space in the end, the training patients (``encoder.encode``) stay what is searched in, and these vectors are what to
    search with and what to show a policy.

    Args:
        encoder: The encoder fitted to all of ``cohort``.
        cohort: The training patients, at least two.
        seed: Draws the folds, and is the fold encoders' seed.
        n_folds: The number of folds, at least two; fewer patients than folds: one fold a patient.
        device: Where the fold encoders are trained.

    Returns:
        Shape (N, 128), float32.

    Raises:
        ValueError: Fewer than two folds or two patients.
    """
    if n_folds < 2 or len(cohort) < 2:
        raise ValueError(f"out-of-fold vectors need 2 folds and 2 patients, got {n_folds} and {len(cohort)}")
    n_folds = min(n_folds, len(cohort))
    target = encoder.encode(cohort)
    vectors = np.empty_like(target)
    folds = assign_folds(cohort.y, n_folds, np.random.default_rng(seed))
    for fold in range(n_folds):
        held_out, rest = folds == fold, folds != fold
        source = PatientEncoder.fit(cohort.take(np.flatnonzero(rest)), seed, device).encode(cohort)
        vectors[held_out] = source[held_out] @ _rotation(source[rest], target[rest])
    return vectors


def _rotation(source: npt.NDArray[np.float32], target: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the orthogonal matrix R with the least || unit(source) R - unit(target) ||."""
    source = source / np.linalg.norm(source, axis=1, keepdims=True)
    target = target / np.linalg.norm(target, axis=1, keepdims=True)
    left, _, right = np.linalg.svd(source.T @ target)
    return left @ right
