"""Stage 1 (self-informed): predicting a patient's label from their check-ups."""

from pmlm_env.predictors.base import Predictor, out_of_fold_proba
from pmlm_env.predictors.boosted import BoostedTrees
from pmlm_env.predictors.metrics import PredictorReport, evaluate

__all__ = ["BoostedTrees", "Predictor", "PredictorReport", "evaluate", "out_of_fold_proba"]
