"""A retriever with another distance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import NearestNeighbors

from pmlm_env.retrieval import Peer


class NearestPatients:
    """Finds the training patients at the smallest distance.

    Args:
        vectors: One vector per training patient, float32 (N, d).
        ids: Their ids.
        labels: Their labels.
        metric: A distance of scikit-learn, such as ``euclidean`` or ``manhattan``.
    """

    def __init__(
        self, vectors: npt.NDArray[np.float32], ids: Sequence[str], labels: Sequence[str], metric: str = "euclidean"
    ) -> None:
        """Store the training patients."""
        self.ids, self.labels = ids, labels
        self.search = NearestNeighbors(algorithm="brute", metric=metric).fit(vectors)

    def peers(self, vectors: npt.NDArray[np.float32], ids: Sequence[str], k: int = 10) -> list[list[Peer]]:
        """Return the ``k`` nearest training patients of each patient, nearest first; nobody is their own peer."""
        found = []
        n = min(k + 1, len(self.ids))  # one more, in case the patient is among them
        for own_id, far, rows in zip(ids, *self.search.kneighbors(vectors, n), strict=True):
            peers = [Peer(self.ids[j], self.labels[j], float(1 / (1 + d))) for d, j in zip(far, rows, strict=True)]
            found.append([peer for peer in peers if peer.patient_id != own_id][:k])
        return found
