"""Stage 1 (self-informed): predicting a patient's label from their check-ups."""

from pmlm_env.predictors.base import Predictor, out_of_fold_proba
from pmlm_env.predictors.boosted import BoostedTrees
from pmlm_env.predictors.metrics import PredictorReport, evaluate
from pmlm_env.registry import Registry

#: Predictors by name.
PREDICTORS = Registry(
    "predictor",
    "pmlm.predictors",
    {
        "boosted-trees": "pmlm_env.predictors.boosted:BoostedTrees",
        "logistic": "pmlm_env.predictors.logistic:Logistic",
        "lstm": "pmlm_env.predictors.series.lstm:Lstm",
        "cnn": "pmlm_env.predictors.series.cnn:Cnn",
        "transformer": "pmlm_env.predictors.series.transformer:Transformer",
        "rocket": "pmlm_env.predictors.series.rocket:Rocket",
        "lora-llm": "pmlm_env.predictors.lora_llm:LoraLLM",
    },
    ["fit", "predict_proba", "save", "load"],
)

__all__ = ["PREDICTORS", "BoostedTrees", "Predictor", "PredictorReport", "evaluate", "out_of_fold_proba"]
