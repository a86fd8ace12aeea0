"""Boosted regression trees as arrays, so that they can be saved without pickle and read with any scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from sklearn.ensemble import GradientBoostingRegressor

#: No value in a row is greater; infinity is not read from files.
_GREATEST = np.finfo(np.float32).max

#: Rows that are predicted at once, which bounds the memory.
_ROWS = 2048


@dataclass(frozen=True)
class Forest:
    """T complete binary trees of depth D; a prediction is the sum of the leaves that a row falls into.

    The children of node k are the nodes 2k + 1, for values up to the threshold, and 2k + 2.

    Attributes:
        feature: The column that each inner node looks at, int64 (T, 2**D - 1).
        threshold: What it is compared with, float32 (T, 2**D - 1).
        value: The leaves, float32 (T, 2**D).
    """

    feature: npt.NDArray[np.int64]
    threshold: npt.NDArray[np.float32]
    value: npt.NDArray[np.float32]

    @classmethod
    def empty(cls, n_trees: int, depth: int) -> Forest:
        """Return trees that predict 0, and send every row to the left."""
        inner = n_trees, 2**depth - 1
        threshold = np.full(inner, _GREATEST, dtype=np.float32)
        return cls(np.zeros(inner, dtype=np.int64), threshold, np.zeros((n_trees, 2**depth), dtype=np.float32))

    @classmethod
    def of(cls, model: GradientBoostingRegressor, depth: int) -> Forest:
        """Return the trees of a fitted model whose ``max_depth`` is at most ``depth``.

        A leaf above the last level becomes a subtree whose leaves are equal.
        """
        forest = cls.empty(len(model.estimators_), depth)
        for number, estimator in enumerate(model.estimators_[:, 0]):
            forest._copy(number, estimator.tree_, model.learning_rate)
        forest.value[0] += float(np.ravel(model.init_.constant_)[0])
        return forest

    def __call__(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return a prediction for each row, float64 (N,); ``rows`` is (N, number of columns)."""
        predicted = np.zeros(len(rows))
        n_trees, n_inner = self.feature.shape
        first = np.arange(n_trees) * n_inner
        leaf = np.arange(n_trees) * (n_inner + 1) - n_inner
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            row = (np.arange(len(part)) * part.shape[1])[:, None]
            node = np.zeros((len(part), n_trees), dtype=np.int64)
            for _ in range(n_inner.bit_length()):
                at = node + first
                right = part.reshape(-1)[row + self.feature.reshape(-1)[at]] > self.threshold.reshape(-1)[at]
                node = 2 * node + 1 + right
            predicted[start : start + _ROWS] = self.value.reshape(-1)[node + leaf].sum(axis=1)
        return predicted

    def _copy(self, number: int, tree: Any, rate: float) -> None:
        n_inner = self.feature.shape[1]
        places = [(0, 0)]  # a node of ``tree``, and where it goes
        for node, at in places:
            if at >= n_inner:
                self.value[number, at - n_inner] = rate * tree.value[node, 0, 0]
            elif tree.children_left[node] < 0:  # a leaf
                places += [(node, 2 * at + 1), (node, 2 * at + 2)]
            else:
                self.feature[number, at], self.threshold[number, at] = tree.feature[node], tree.threshold[node]
                places += [(tree.children_left[node], 2 * at + 1), (tree.children_right[node], 2 * at + 2)]
