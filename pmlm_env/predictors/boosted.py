"""Gradient-boosted trees on summaries of the check-ups, in place of the paper's fine-tuned LLM."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from pmlm_env.cohort.schema import Cohort
from pmlm_env.predictors.base import most_probable
from pmlm_env.predictors.summaries import summarize

if TYPE_CHECKING:
    from typing_extensions import Self


class BoostedTrees:
    """Histogram gradient boosting (Ke et al. 2017, LightGBM) on the columns of ``summarize``.

    Missing values need no imputation: at each split they go to the side with the larger gain. Trees are small and each
    split considers a random subset of the columns, because about 1,700 patients have 12 labels and 247 columns.
    """

    def __init__(self, seed: int = 0) -> None:
        """Make an unfitted predictor.

        Args:
            seed: Draws the columns that each split considers. The same seed and cohort give the same predictions.
        """
        self.seed = seed
        self._labels: tuple[str, ...] = ()
        self._model: HistGradientBoostingClassifier | None = None
        self._columns = np.empty(0, dtype=np.intp)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the training patients, sorted; empty before ``fit``."""
        return self._labels

    def fit(self, cohort: Cohort) -> Self:
        """Fit to the patients' check-ups and labels. If there is only one label, it is always predicted.

        Raises:
            ValueError: The cohort is empty.
        """
        if not len(cohort):
            raise ValueError("a predictor cannot be fitted to an empty cohort")
        self._labels = tuple(str(label) for label in np.unique(cohort.y))
        self._model = None
        if len(self._labels) > 1:
            self._model = HistGradientBoostingClassifier(
                learning_rate=0.1,
                max_iter=100,
                max_leaf_nodes=4,
                min_samples_leaf=min(10, max(1, len(cohort) // 10)),
                l2_regularization=1.0,
                max_features=0.1,
                early_stopping=False,
                random_state=self.seed,
            )
            summaries = summarize(cohort)
            self._columns = np.flatnonzero(~np.isnan(summaries).all(axis=0))  # scikit-learn cannot bin all-NaN columns
            # On shared cores, spinning threads cost more than they gain.
            with threadpool_limits(limits=1, user_api="openmp"), warnings.catch_warnings():
                # Due to rare labels, of which build_episodes warns once.
                warnings.filterwarnings("ignore", "The number of unique classes is greater", UserWarning)
                self._model.fit(summaries[:, self._columns], cohort.y)
        return self

    def predict_proba(self, cohort: Cohort) -> npt.NDArray[np.float64]:
        """Return each label's probability for each patient, shape (N, n_labels).

        Raises:
            RuntimeError: ``fit`` has not been called.
        """
        if not self._labels:
            raise RuntimeError("BoostedTrees has not been fitted: call fit(cohort) first")
        if self._model is None or not len(cohort):
            return np.ones((len(cohort), len(self._labels)))
        with threadpool_limits(limits=1, user_api="openmp"):
            return self._model.predict_proba(summarize(cohort)[:, self._columns])

    def predict(self, cohort: Cohort) -> npt.NDArray[np.str_]:
        """Return each patient's most probable label, shape (N,)."""
        return most_probable(self.predict_proba(cohort), self._labels)
