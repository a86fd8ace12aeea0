"""Gradient-boosted trees on summaries of the check-ups, in place of the paper's fine-tuned LLM."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor

from pmlm_env.predictors.summary_model import SummaryModel

#: Trees per label.
N_ITERATIONS = 100


class BoostedTrees(SummaryModel):
    """Histogram gradient boosting (Ke et al. 2017, LightGBM) on the columns of ``summarize``.

    Missing values need no imputation: at each split they go to the side with the larger gain. Trees are small and each
    split considers a random subset of the columns, because about 1,700 patients have 12 labels and 247 columns.
    """

    #: The last reads outside of its nodes if they are wrong; ``_is_tree`` checks them.
    trusted = (
        "sklearn._loss.link.Interval",
        "sklearn._loss.link.LogitLink",
        "sklearn._loss.link.MultinomialLogit",
        "sklearn._loss.loss.HalfBinomialLoss",
        "sklearn._loss.loss.HalfMultinomialLoss",
        "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    )

    def _make_model(self, n_patients: int) -> HistGradientBoostingClassifier:
        return HistGradientBoostingClassifier(
            learning_rate=0.1,
            max_iter=N_ITERATIONS,
            max_leaf_nodes=4,
            min_samples_leaf=min(10, max(1, n_patients // 10)),
            l2_regularization=1.0,
            max_features=0.1,
            early_stopping=False,
            random_state=self.seed,
        )

    def _useful(self, summaries: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        return ~np.isnan(np.fmax.reduce(summaries))  # scikit-learn cannot bin all-NaN columns

    def _packed(self) -> HistGradientBoostingClassifier:
        """Return the classifier with all trees as one, and how many nodes each had, shape (n_iterations, n_trees).

        skops takes time quadratic in the number of trees: three minutes for 100 labels.
        """
        trees = self._model._predictors
        packed = copy(self._model)
        packed._predictors = [[_tree(np.concatenate([each.nodes for row in trees for each in row]))]]
        packed._n_nodes = np.array([[len(each.nodes) for each in row] for row in trees])
        return packed

    def _unpacked(self, model: Any) -> Any:
        if not hasattr(model, "_n_nodes"):  # a folder from before they were packed
            return model
        sizes, nodes = model._n_nodes, model._predictors[0][0].nodes
        if sizes.sum() != len(nodes):
            raise ValueError
        trees = iter(np.split(nodes, np.cumsum(sizes)[:-1]))
        model._predictors = [[_tree(next(trees)) for _ in row] for row in sizes]
        del model._n_nodes
        return model

    def _is_valid(self, model: Any) -> bool:
        return type(model) is HistGradientBoostingClassifier and all(
            _is_tree(tree.nodes, len(self._columns)) for trees in model._predictors for tree in trees
        )


def _tree(nodes: npt.NDArray[np.void]) -> TreePredictor:
    """Return a tree without splits by category."""
    none = np.empty((0, 8), dtype=np.uint32)
    return TreePredictor(nodes, none, none)


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
