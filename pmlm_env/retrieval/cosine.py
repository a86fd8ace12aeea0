"""Eq. 4: finding the training patients whose vectors have the largest cosine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pmlm_env.retrieval.base import Peer

#: Patients compared with all training patients at once; limits memory.
CHUNK = 1024

#: Cosines are rounded to this many decimals before sorting, so that equal vectors tie despite rounding errors of the
#: matrix product.
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
        found: list[list[Peer]] = []
        for start in range(0, len(ids), CHUNK):
            cosines = np.round(units[start : start + CHUNK] @ self._units.T, DECIMALS).clip(-1.0, 1.0)
            for row, patient_id in zip(cosines, ids[start : start + CHUNK], strict=True):
                order = np.argsort(-row, kind="stable")[: k + 1]
                others = order[order != self._index.get(patient_id, -1)][:k]
                found.append([Peer(self._ids[j], self._labels[j], float(row[j])) for j in others])
        return found


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
