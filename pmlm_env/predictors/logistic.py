"""Logistic regression on summaries of the check-ups."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import QuantileTransformer
from threadpoolctl import threadpool_limits

from pmlm_env.cohort.schema import Cohort
from pmlm_env.predictors.label_model import LabelModel
from pmlm_env.predictors.summaries import summarize

#: Inverse strength of the penalty; chosen on the simulated cohort's validation patients among 0.003, 0.01, 0.03, 0.1.
C = 0.03

#: Points of each column's distribution function, at most one per patient.
N_QUANTILES = 200


class Logistic(LabelModel):
    """Multinomial logistic regression with an L2 penalty on the columns of ``summarize``.

    Missing values are replaced by the training patients' median. Each column is mapped to a normal distribution by its
    ranks among the training patients, because laboratory values are skewed, some over orders of magnitude.
    """

    def _fit(self, cohort: Cohort, codes: npt.NDArray[np.intp]) -> None:
        summaries = summarize(cohort)
        with np.errstate(invalid="ignore"):
            low, high = np.fmin.reduce(summaries), np.fmax.reduce(summaries)
        self._columns = np.flatnonzero(high > low)  # what has one value in training says nothing of another one
        self._model: Pipeline = make_pipeline(
            SimpleImputer(strategy="median"),
            QuantileTransformer(
                n_quantiles=min(N_QUANTILES, len(cohort)), output_distribution="normal", random_state=self.seed
            ),
            LogisticRegression(C=C, max_iter=1000),
        )
        with threadpool_limits(limits=1):
            self._model.fit(self._inputs(summaries), codes)

    def _scores(self, cohort: Cohort) -> npt.NDArray[np.float32]:
        """Return the scores, computed in float64: its rounding errors, which depend on the batch, do not survive."""
        with threadpool_limits(limits=1):
            scores = self._model.decision_function(self._inputs(summarize(cohort)))
        if scores.ndim == 1:  # of the second of two labels
            scores = np.column_stack([np.zeros(len(scores)), scores])
        return scores.astype(np.float32)

    def _inputs(self, summaries: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the columns used, and a constant, so that there is one at all if the patients have no values."""
        return np.column_stack([np.zeros(len(summaries)), summaries[:, self._columns]])

    def _save(self, folder):
        raise NotImplementedError

    def _load(self, folder, fitted):
        raise NotImplementedError
