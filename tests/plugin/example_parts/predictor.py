"""A predictor from scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pmlm_env.cohort import Cohort
from pmlm_env.predictors.skops_files import load_model, save_model
from pmlm_env.predictors.summaries import summarize


class LogisticPredictor:
    """Logistic regression on summaries of the check-ups; what was never measured counts as average.

    Args:
        C: Inverse strength of the regularization.
    """

    def __init__(self, C: float = 0.1) -> None:
        """Make an unfitted predictor."""
        average = SimpleImputer(keep_empty_features=True)
        self.model = make_pipeline(average, StandardScaler(), LogisticRegression(C=C, max_iter=1000))

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the training patients, sorted."""
        return tuple(map(str, self.model.classes_))

    def fit(self, cohort: Cohort) -> LogisticPredictor:
        """Fit to the patients' check-ups and labels."""
        self.model.fit(summarize(cohort), cohort.y)
        return self

    def predict_proba(self, cohort: Cohort) -> npt.NDArray[np.float64]:
        """Return each label's probability for each patient, shape (N, n_labels)."""
        return self.model.predict_proba(summarize(cohort))

    def save(self, folder: Path) -> None:
        """Write the fitted model, without pickling anything."""
        save_model(self.model, folder / "model.skops")

    @classmethod
    def load(cls, folder: Path) -> LogisticPredictor:
        """Read what ``save`` wrote; a file with other types than scikit-learn's is refused."""
        predictor = cls()
        predictor.model = load_model(folder / "model.skops", ["numpy.dtype"], "fit it again with `pmlm prepare`")
        return predictor
