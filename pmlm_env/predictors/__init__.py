"""Stage 1, self-informed: from a patient's check-ups to her label."""

from pmlm_env.predictors.base import Predictor, out_of_fold_proba
from pmlm_env.predictors.boosted import BoostedTrees
from pmlm_env.predictors.metrics import PredictorReport, evaluate

__all__ = ["BoostedTrees", "Predictor", "PredictorReport", "evaluate", "out_of_fold_proba"]
