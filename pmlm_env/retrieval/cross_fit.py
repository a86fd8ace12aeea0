"""Out-of-fold vectors of training patients, comparable to those of new patients."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from pmlm_env.cohort.schema import Cohort
from pmlm_env.device import one_thread
from pmlm_env.predictors.base import assign_folds
from pmlm_env.retrieval.base import PatientEncoder
from pmlm_env.retrieval.encoder import NetworkEncoder


def out_of_fold_vectors(
    encoder: PatientEncoder, cohort: Cohort, seed: int, n_folds: int = 5, device: str = "auto"
) -> npt.NDArray[np.float32]:
    """Return each training patient's vector from an encoder that was not trained on that patient.

    An encoder places the patients it was trained on closer to patients with the same label than it places new ones, so
    peers found with ``encoder.encode`` share the label of a training patient more often than that of a new patient.
    Here each fold is encoded by an encoder fitted to the other folds. Because the spaces of two encoders are unrelated,
    the fold's vectors are then mapped into the space of ``encoder`` by the rotation and scale factor that best map the
    vectors of the *other* folds (orthogonal Procrustes, Schönemann 1966). Use these vectors as queries and as policy
    input, and ``encoder.encode`` for the training patients that are searched.

    Args:
        encoder: The network encoder fitted to all of ``cohort``.
        cohort: The training patients, at least two.
        seed: Draws the folds and seeds the fold encoders.
        n_folds: The number of folds, at least two. With fewer patients than folds, each gets a fold.
        device: Where the fold encoders are trained.

    Returns:
        Shape (N, 128), float32.

    Raises:
        ValueError: Fewer than two folds or two patients.
    """
    persons = [patient.person for patient in cohort]
    if n_folds < 2 or len(set(persons)) < 2:
        raise ValueError(f"out-of-fold vectors need 2 folds and 2 patients, got {n_folds} and {len(set(persons))}")
    n_folds = min(n_folds, len(set(persons)))
    target = encoder.encode(cohort)
    vectors = np.empty_like(target)
    folds = assign_folds(cohort.y, n_folds, np.random.default_rng(seed), persons)
    for fold in range(n_folds):
        held_out, rest = folds == fold, folds != fold
        source = NetworkEncoder.fit(cohort.take(np.flatnonzero(rest)), seed, device).encode(cohort)
        vectors[held_out] = source[held_out] @ _alignment(source[rest], target[rest])
    return vectors


def _alignment(source: npt.NDArray[np.float32], target: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the rotation that best maps the directions of ``source`` to ``target``, scaled to equal mean length."""
    source_lengths = np.linalg.norm(source, axis=1, keepdims=True)
    target_lengths = np.linalg.norm(target, axis=1, keepdims=True)
    directions = torch.from_numpy(source / source_lengths), torch.from_numpy(target / target_lengths)
    with one_thread():
        left, _, right = torch.linalg.svd(directions[0].T @ directions[1])
        rotation = (left @ right).numpy()
    return rotation * (target_lengths.mean() / source_lengths.mean())
