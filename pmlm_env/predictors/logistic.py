"""Logistic regression on summaries of the check-ups."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import QuantileTransformer

from pmlm_env.predictors.summary_model import SummaryModel

#: Inverse strength of the penalty: the best of 0.003, 0.01, 0.03 and 0.1 on the simulated cohort's validation patients.
C = 0.03

#: Points of each column's distribution function; at most one per patient.
N_QUANTILES = 200


class Logistic(SummaryModel):
    """Multinomial logistic regression with an L2 penalty on the columns of ``summarize``.

    Missing values are replaced by the training patients' median. Each column is then mapped to a normal distribution
    by its ranks among the training patients, because laboratory values are skewed, some over orders of magnitude.
    """

    trusted = ("numpy.dtype",)

    def _make_model(self, n_patients: int) -> Pipeline:
        return make_pipeline(
            SimpleImputer(strategy="median"),
            QuantileTransformer(
                n_quantiles=min(N_QUANTILES, n_patients), output_distribution="normal", random_state=self.seed
            ),
            LogisticRegression(C=C, max_iter=1000),
        )

    def _useful(self, summaries: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        # What is the same for all training patients says nothing about a patient for whom it is not.
        return np.fmin.reduce(summaries) < np.fmax.reduce(summaries)

    def _inputs(self, summaries: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the columns used after a constant one, because scikit-learn needs a column even if none is of use."""
        return np.column_stack([np.zeros(len(summaries)), super()._inputs(summaries)])

    def _is_valid(self, model: Any) -> bool:
        kinds = [SimpleImputer, QuantileTransformer, LogisticRegression]
        return type(model) is Pipeline and [type(step) for _, step in model.steps] == kinds
