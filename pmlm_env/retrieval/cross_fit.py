"""Vectors of training patients that are no better than those of new patients."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from pmlm_env.cohort.schema import Cohort
from pmlm_env.predictors.base import assign_folds
from pmlm_env.retrieval.encoder import PatientEncoder
from pmlm_env.retrieval.network import one_thread


def out_of_fold_vectors(
    encoder: PatientEncoder, cohort: Cohort, seed: int, n_folds: int = 5, device: str = "auto"
) -> npt.NDArray[np.float32]:
    """Return each training patient's vector as it would be, had the encoder not been trained on her label.

    An encoder puts the patients it was trained on nearer to their like than it puts new ones, so that peers found with
    ``encoder.encode`` share a training patient's label more often than a new patient's. Here each fold is encoded by an
    encoder fitted to the other folds. Two encoders' spaces have nothing to do with each other, so each fold's is then
    turned into ``encoder``'s by the rotation, and one factor for length, that best map the vectors of the *other* folds
    to those they have there (orthogonal Procrustes, Schönemann 1966). So there is one space in the end: the training
    patients' own vectors (``encoder.encode``) are what is searched in, and these are what to search with and to
    show a policy.

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
        vectors[held_out] = source[held_out] @ _alignment(source[rest], target[rest])
    return vectors


def _alignment(source: npt.NDArray[np.float32], target: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the matrix, a rotation times a number, that best turns ``source``'s directions into ``target``'s.

    The number makes the mean lengths equal.
    """
    source_lengths = np.linalg.norm(source, axis=1, keepdims=True)
    target_lengths = np.linalg.norm(target, axis=1, keepdims=True)
    directions = torch.from_numpy(source / source_lengths), torch.from_numpy(target / target_lengths)
    with one_thread():
        left, _, right = torch.linalg.svd(directions[0].T @ directions[1])
        rotation = (left @ right).numpy()
    return rotation * (target_lengths.mean() / source_lengths.mean())
