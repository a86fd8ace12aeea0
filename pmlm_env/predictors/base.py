"""What a predictor is (Eq. 1), and predictions for the patients it is trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.schema import Cohort

if TYPE_CHECKING:
    from typing_extensions import Self


@runtime_checkable
class Predictor(Protocol):
    """A model of a patient's label given her check-ups: Y_hat = f(X) (paper, Eq. 1)."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the patients it was fitted to, sorted; one a column of ``predict_proba``."""
        ...

    def fit(self, cohort: Cohort) -> Self:
        """Learn from the patients' check-ups and labels, and return itself."""
        ...

    def predict_proba(self, cohort: Cohort) -> npt.NDArray[np.float64]:
        """Return each label's probability for each patient, shape (N, n_labels); rows sum to 1."""
        ...

    def predict(self, cohort: Cohort) -> npt.NDArray[np.str_]:
        """Return each patient's predicted label, shape (N,)."""
        ...


def most_probable(proba: npt.NDArray[np.float64], labels: tuple[str, ...]) -> npt.NDArray[np.str_]:
    """Return the label of the largest probability in each row; of equals, the first in ``labels``."""
    return np.array(labels, dtype=np.str_)[proba.argmax(axis=1)]


def assign_folds(labels: npt.NDArray[np.str_], n_folds: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Deal patients out to folds, each label as evenly as its number of patients allows.

    The members of one label are shuffled and dealt round, and the next label goes on where the last one ended.
    So folds differ by at most one patient in size and in each label, and a label may have fewer members than
    there are folds.

    Args:
        labels: One label a patient, shape (N,).
        n_folds: The number of folds.
        rng: Draws who goes where.

    Returns:
        The fold of each patient, in 0 .. ``n_folds`` - 1, shape (N,).
    """
    dealt = np.concatenate([rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)])
    folds = np.empty(len(labels), dtype=np.intp)
    folds[dealt] = np.arange(len(labels)) % n_folds
    return folds


def out_of_fold_proba(
    make_predictor: Callable[[], Predictor], cohort: Cohort, n_folds: int = 5, *, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Predict each training patient's label with a predictor that has never seen her.

    A predictor knows the patients it was fitted to better than it will know new ones. Prompts filled with such
    predictions would be better in training than at test time; these are about as good as at test time.

    Args:
        make_predictor: Returns a new, unfitted predictor; called once a fold.
        cohort: The training patients, at least two. Fewer patients than folds: one fold a patient.
        n_folds: The number of folds, at least two.
        rng: Draws the folds.

    Returns:
        Probabilities, shape (N, n_labels), a column for each label of ``cohort`` in sorted order. Where all
        patients with a label are in one fold, as must be for a label with one patient, they get 0 for it.

    Raises:
        ValueError: Fewer than two folds or two patients.
    """
    if n_folds < 2:
        raise ValueError(f"out-of-fold predictions need at least 2 folds, got {n_folds}")
    if len(cohort) < 2:
        raise ValueError(f"out-of-fold predictions need at least 2 patients, got {len(cohort)}")
    n_folds = min(n_folds, len(cohort))
    labels = np.unique(cohort.y)
    folds = assign_folds(cohort.y, n_folds, rng)
    proba = np.zeros((len(cohort), len(labels)))
    for fold in range(n_folds):
        held_out = np.flatnonzero(folds == fold)
        predictor = make_predictor().fit(cohort.take(np.flatnonzero(folds != fold)))
        columns = np.searchsorted(labels, predictor.labels)
        proba[np.ix_(held_out, columns)] = predictor.predict_proba(cohort.take(held_out))
    return proba
