"""Stage 1 (self-informed): predicting a patient's label from their check-ups."""

from pmlm_env.predictors.base import Predictor, out_of_fold_proba
from pmlm_env.predictors.boosted import BoostedTrees
from pmlm_env.predictors.metrics import PredictorReport, evaluate
from pmlm_env.registry import Registry

#: Predictors by name.
PREDICTORS = Registry(
    "predictor",
    "pmlm.predictors",
    {"boosted-trees": "pmlm_env.predictors.boosted:BoostedTrees"},
    ["fit", "predict_proba", "save", "load"],
)

__all__ = ["PREDICTORS", "BoostedTrees", "Predictor", "PredictorReport", "evaluate", "out_of_fold_proba"]
