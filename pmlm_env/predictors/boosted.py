"""Gradient-boosted trees on summaries of the check-ups, in place of the paper's fine-tuned LLM."""

from __future__ import annotations

import logging
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import sklearn
from scipy.special import softmax
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from pmlm_env.cohort.schema import Cohort
from pmlm_env.io.checked_files import file_in, read_object
from pmlm_env.io.files import write_json
from pmlm_env.predictors.base import most_probable
from pmlm_env.predictors.skops_files import load_model, save_model
from pmlm_env.predictors.summaries import summarize

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

#: Trees per label.
N_ITERATIONS = 100

CONFIG_FILE, MODEL_FILE = "boosted_trees.json", "boosted_trees.skops"

#: The types in ``MODEL_FILE`` that some version of skops does not trust by itself. The last reads outside of its nodes
#: if they are wrong; ``_is_tree`` checks them.
_TRUSTED = (
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.link.MultinomialLogit",
    "sklearn._loss.loss.HalfBinomialLoss",
    "sklearn._loss.loss.HalfMultinomialLoss",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
)

_CURE = "fit the predictor again with `pmlm prepare`"


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
        self._n_summaries = 0
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
                max_iter=N_ITERATIONS,
                max_leaf_nodes=4,
                min_samples_leaf=min(10, max(1, len(cohort) // 10)),
                l2_regularization=1.0,
                max_features=0.1,
                early_stopping=False,
                random_state=self.seed,
            )
            summaries = summarize(cohort)
            self._n_summaries = summaries.shape[1]
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
            ValueError: The patients have another number of indicators than those of ``fit``.
        """
        if not self._labels:
            raise RuntimeError("BoostedTrees has not been fitted: call fit(cohort) first")
        if self._model is None or not len(cohort):
            return np.ones((len(cohort), len(self._labels)))
        summaries = summarize(cohort)
        if summaries.shape[1] != self._n_summaries:
            raise ValueError("these patients have other indicators than those that the predictor was fitted to")
        return softmax(_scores(self._model, summaries[:, self._columns]), axis=1)

    def predict(self, cohort: Cohort) -> npt.NDArray[np.str_]:
        """Return each patient's most probable label, shape (N,)."""
        return most_probable(self.predict_proba(cohort), self._labels)

    def save(self, folder: Path) -> None:
        """Write ``boosted_trees.json`` and, unless there is only one label, ``boosted_trees.skops``.

        Raises:
            RuntimeError: ``fit`` has not been called.
        """
        if not self._labels:
            raise RuntimeError("BoostedTrees has not been fitted: call fit(cohort) first")
        content = {
            "format": 1,
            "scikit-learn": sklearn.__version__,
            "seed": self.seed,
            "labels": self._labels,
            "n_summaries": self._n_summaries,
            "columns": self._columns.tolist(),
        }
        write_json(folder / CONFIG_FILE, content)
        if self._model is not None:
            save_model(self._model, folder / MODEL_FILE)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what ``save`` wrote. With another version of scikit-learn, a warning is logged.

        Raises:
            ValueError: A file is missing or damaged, was not written by ``save``, or needs another version of
                scikit-learn.
        """
        path = file_in(folder, CONFIG_FILE)
        content = read_object(path, _CURE)
        made = cls()
        try:
            version, labels, columns = content["scikit-learn"], content["labels"], content["columns"]
            if not re.fullmatch(r"[\w.+-]{1,40}", version):
                raise ValueError
            if content["format"] != 1 or not all(isinstance(each, str) for each in labels) or not labels:
                raise ValueError
            made.seed, made._labels, made._n_summaries = (
                int(content["seed"]),
                tuple(labels),
                int(content["n_summaries"]),
            )
            if [*labels] != sorted({*labels}) or not all(each in range(made._n_summaries) for each in columns):
                raise ValueError
            made._columns = np.array(columns, dtype=np.intp)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise ValueError(f"{path} is damaged, or of another version of pmlm-env: {_CURE}") from None
        if len(labels) > 1:
            other = version != sklearn.__version__
            versions = f"fitted with scikit-learn {version}, and this is {sklearn.__version__}"
            model = file_in(folder, MODEL_FILE)
            made._model = load_model(model, _TRUSTED, f"it was {versions}: {_CURE}" if other else _CURE)
            if not _is_whole(made._model, made._labels, len(columns)):
                raise ValueError(f"{model} is not the model that {CONFIG_FILE} describes: {_CURE}")
            if other:
                logger.warning("%s was %s: its predictions may differ in the last digits", model, versions)
        return made


def _scores(model: HistGradientBoostingClassifier, summaries: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return each label's score before the softmax, shape (N, n_labels).

    Not ``predict_proba``: how it rounds the sum over the labels depends on the number of patients. Rows that lie one
    after the other in memory are summed in the same way, however many there are.
    """
    with threadpool_limits(limits=1, user_api="openmp"):
        scores = model.decision_function(summaries)
    return np.column_stack([np.zeros(len(scores)), scores]) if scores.ndim == 1 else np.ascontiguousarray(scores)


def _is_whole(model: Any, labels: tuple[str, ...], n_columns: int) -> bool:
    """Whether a loaded model can predict these labels; scikit-learn itself would read outside of a damaged tree."""
    try:
        return (
            type(model) is HistGradientBoostingClassifier
            and tuple(model.classes_) == labels
            and all(_is_tree(tree.nodes, n_columns) for trees in model._predictors for tree in trees)
            and _scores(model, np.full((1, n_columns), np.nan)).shape == (1, len(labels))
        )
    except Exception:  # any of its attributes may be missing, or anything
        return False


def _is_tree(nodes: npt.NDArray[np.void], n_columns: int) -> bool:
    """Whether each inner node compares an existing column and leads to two later nodes."""
    inner = nodes[nodes["is_leaf"] == 0]
    index = np.flatnonzero(nodes["is_leaf"] == 0)
    children = np.stack([inner["left"], inner["right"]])
    return bool(
        len(nodes)
        and ((children > index) & (children < len(nodes))).all()
        and ((inner["feature_idx"] >= 0) & (inner["feature_idx"] < n_columns)).all()
        and not inner["is_categorical"].any()
    )
