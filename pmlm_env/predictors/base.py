"""Interface of predictors (Eq. 1), and out-of-fold predictions for the training patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.schema import Cohort

if TYPE_CHECKING:
    from typing_extensions import Self


@runtime_checkable
class Predictor(Protocol):
    """Interface of a model that predicts a patient's label from their check-ups: Y_hat = f(X) (paper, Eq. 1).

    It is made as ``Class(seed=seed, **predictor_kwargs)``, without the seed if the class has no such parameter; the
    other arguments come from ``PipelineConfig``. The same seed, arguments and cohort should give the same predictions,
    and a patient the same ones alone and among others. The arrays of patients are read-only: change copies.
    """

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the training patients, sorted; the columns of ``predict_proba``."""
        ...

    def fit(self, cohort: Cohort) -> Self:
        """Fit to the patients' check-ups and labels, and return ``self``."""
        ...

    def predict_proba(self, cohort: Cohort) -> npt.NDArray[np.float64]:
        """Return each label's probability for each patient, shape (N, n_labels); rows sum to 1."""
        ...

    def save(self, folder: Path) -> None:
        """Write the fitted model into an empty folder.

        Nothing may be pickled: a file that somebody else made must not run code when it is loaded. What a library can
        only pickle has to be refused here, or kept in a safe format of its own (skops for scikit-learn).
        """
        ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what ``save`` wrote: a model that makes the same predictions to the last digit.

        Raises:
            ValueError: A file is missing or damaged, or was not written by ``save``; one line that names it.
        """
        ...


def most_probable(proba: npt.NDArray[np.float64], labels: tuple[str, ...]) -> npt.NDArray[np.str_]:
    """Return the most probable label of each row; ties go to the first in ``labels``."""
    return np.array(labels, dtype=np.str_)[proba.argmax(axis=1)]


def assign_folds(
    labels: npt.NDArray[np.generic], n_folds: int, rng: np.random.Generator, persons: Sequence[str] | None = None
) -> npt.NDArray[np.intp]:
    """Assign patients to stratified folds.

    The patients of each label are shuffled and assigned to the folds in turn; the next label continues where the last
    one ended. Folds thus differ by at most one patient in size and in each label. A label may have fewer patients than
    there are folds.

    Args:
        labels: One label per patient, shape (N,).
        n_folds: The number of folds.
        rng: Shuffles the patients.
        persons: The person of each patient, whose stays are all in one fold, stratified by the label of the first;
            None = all are different.

    Returns:
        The fold of each patient, in 0 .. ``n_folds`` - 1, shape (N,).
    """
    if persons is not None and len(set(persons)) < len(persons):
        _, first, stay_of = np.unique(np.array(persons, dtype=np.str_), return_index=True, return_inverse=True)
        in_order = np.argsort(first)  # people in the order of their first stays
        of_person = np.empty(len(first), dtype=np.intp)
        of_person[in_order] = assign_folds(labels[first[in_order]], n_folds, rng)
        return of_person[stay_of]
    order = np.concatenate([rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)])
    folds = np.empty(len(labels), dtype=np.intp)
    folds[order] = np.arange(len(labels)) % n_folds
    return folds


def checked_proba(predictor: Predictor, cohort: Cohort, name: str) -> npt.NDArray[np.float64]:
    """Return the probabilities that somebody's predictor returns for patients, float64 (N, n_labels).

    Args:
        predictor: The fitted predictor.
        cohort: The patients.
        name: The predictor's name, for messages.

    Raises:
        ValueError: It returned something else.
    """
    proba = np.ascontiguousarray(predictor.predict_proba(cohort), dtype=np.float64)
    expected = (len(cohort), len(predictor.labels))
    if proba.shape != expected or not (np.isfinite(proba) & (proba >= 0)).all() or not proba.any(axis=1).all():
        raise ValueError(
            f"the predictor {name} returned an array of shape {proba.shape} or values that are negative or not finite, "
            f"or nothing but zeros; probabilities of shape {expected} are needed"
        )
    return proba


def out_of_fold_proba(
    make_predictor: Callable[[], Predictor],
    cohort: Cohort,
    n_folds: int = 5,
    *,
    rng: np.random.Generator,
    name: str | None = None,
) -> npt.NDArray[np.float64]:
    """Predict each training patient's label with a predictor that was not fitted to that patient.

    A predictor is more accurate on the patients it was fitted to than on new ones. Prompts filled with such predictions
    would be better in training than at test time; out-of-fold predictions are about as good as at test time.

    Args:
        make_predictor: Returns a new, unfitted predictor; called once per fold.
        cohort: The training patients, at least two. With fewer patients than folds, each gets a fold.
        n_folds: The number of folds, at least two.
        rng: Draws the folds.
        name: The predictor's name, for messages; None = that of its class.

    Returns:
        Probabilities, shape (N, n_labels), one column per label of ``cohort`` in sorted order. If all patients with a
        label are in one fold, as for a label with one patient, they get probability 0 for it.

    Raises:
        ValueError: Fewer than two folds or two patients, or a predictor returned something else than probabilities.
    """
    if n_folds < 2:
        raise ValueError(f"out-of-fold predictions need at least 2 folds, got {n_folds}")
    if (n_people := len({patient.person for patient in cohort})) < 2:
        raise ValueError(f"out-of-fold predictions need at least 2 patients, got {n_people}")
    n_folds = min(n_folds, n_people)
    labels = np.unique(cohort.y)
    folds = assign_folds(cohort.y, n_folds, rng, [patient.person for patient in cohort])
    proba = np.zeros((len(cohort), len(labels)))
    for fold in range(n_folds):
        held_out = np.flatnonzero(folds == fold)
        predictor = make_predictor()
        predictor.fit(cohort.take(np.flatnonzero(folds != fold)))
        columns = np.searchsorted(labels, predictor.labels)
        proba[np.ix_(held_out, columns)] = checked_proba(
            predictor, cohort.take(held_out), name or type(predictor).__qualname__
        )
    return proba
