"""Eq. 4: finding the training patients whose vectors have the largest cosine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pmlm_env.retrieval.base import Peer

#: Cosines computed at once; limits memory.
CHUNK = 2**22

#: Cosines are rounded to this many decimals before sorting.
DECIMALS = 9


class CosineRetriever:
    """Finds peers among the training patients by exact, deterministic search."""

    def __init__(self, vectors: npt.NDArray[np.float32], ids: Sequence[str], labels: Sequence[str]) -> None:
        """Store the training patients.

        Args:
            vectors: One vector per training patient, shape (N, d).
            ids: Their patient ids, all different.
            labels: Their true labels.

        Raises:
            ValueError: The numbers of vectors, ids and labels differ, an id occurs twice, or a vector is not finite.
        """
        if not len(vectors) == len(ids) == len(labels):
            raise ValueError(
                f"got {len(vectors)} vectors, {len(ids)} ids and {len(labels)} labels; the numbers must be equal"
            )
        self._ids = tuple(str(patient_id) for patient_id in ids)
        self._labels = tuple(str(label) for label in labels)
        self._index = {patient_id: i for i, patient_id in enumerate(self._ids)}
        if len(self._index) < len(self._ids):
            twice = next(patient_id for i, patient_id in enumerate(self._ids) if self._index[patient_id] != i)
            raise ValueError(f"patient {twice} is among the training patients more than once")
        self._units = _unit(vectors, self._ids)

    def __len__(self) -> int:
        """Return the number of training patients."""
        return len(self._ids)

    def peers(self, vectors: npt.NDArray[np.float32], ids: Sequence[str], k: int = 10) -> list[list[Peer]]:
        """Return each patient's ``k`` nearest training patients, nearest first; ties in training order.

        A training patient (by id) is never their own peer.

        Args:
            vectors: One vector per query patient, shape (M, d). A vector of zeros has cosine 0 with all.
            ids: Their patient ids.
            k: The number of peers per patient; 10 in the paper.

        Raises:
            ValueError: A patient has fewer than ``k`` other training patients, ``k`` is not positive, or a vector
                is not finite.
        """
        if len(vectors) != len(ids):
            raise ValueError(f"got {len(vectors)} vectors and {len(ids)} ids; the numbers must be equal")
        if k < 1:
            raise ValueError(f"the number of peers must be at least 1, got {k}")
        for patient_id in ids:
            if k > (available := len(self) - (patient_id in self._index)):
                raise ValueError(f"patient {patient_id} has {available} other training patients, too few for {k} peers")
        units = _unit(vectors, ids)
        own = np.array([self._index.get(patient_id, -1) for patient_id in ids], dtype=np.intp)
        rows, cosines = self._nearest(units, own, k)
        return [
            [Peer(self._ids[j], self._labels[j], float(cosine)) for j, cosine in zip(*found, strict=True)]
            for found in zip(rows, cosines, strict=True)
        ]

    def _nearest(
        self, units: npt.NDArray[np.float64], own: npt.NDArray[np.intp], k: int
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
        """Return the rows of each patient's peers, nearest first, and their cosines; both of shape (M, k).

        Args:
            units: The patients' vectors, of length 1 or 0, shape (M, d).
            own: The patients' own rows among the training patients, -1 for others, shape (M,).
            k: The number of peers.
        """
        rows = np.empty((len(units), k), dtype=np.intp)
        cosines = np.empty((len(units), k))
        step = max(1, CHUNK // len(self))
        for start in range(0, len(units), step):
            several = rounded(units[start : start + step] @ self._units.T)
            for i, row in enumerate(several, start):
                if own[i] >= 0:
                    row[own[i]] = -np.inf
                near = np.flatnonzero(row >= np.partition(row, -k)[-k])
                rows[i] = near[np.argsort(-row[near], kind="stable")[:k]]
                cosines[i] = row[rows[i]]
        return rows, cosines


def rounded(cosines: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Round cosines, so that those of equal vectors are equal despite rounding errors of matrix products."""
    return np.round(cosines, DECIMALS).clip(-1.0, 1.0)


def _unit(vectors: npt.NDArray[np.float32], ids: Sequence[str]) -> npt.NDArray[np.float64]:
    """Scale the vectors to length 1; vectors of zeros stay unchanged.

    Raises:
        ValueError: A vector is not finite.
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise ValueError(f"the vector of patient {ids[row]} has a value that is not finite")
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1.0)
