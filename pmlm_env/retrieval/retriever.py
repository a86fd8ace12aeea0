"""Eq. 4: the training patients whose vectors point most nearly the same way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: Patients compared at once with all training patients; bounds the memory.
CHUNK = 1024

#: Cosines are rounded to so many decimals before they are sorted: equal vectors are equally near, whatever the
#: order in which a matrix product adds up.
DECIMALS = 9


@dataclass(frozen=True, slots=True)
class Peer:
    """A training patient like the one asked about.

    Attributes:
        patient_id: Who she is.
        label: Her true label.
        similarity: Cosine of the two patients' vectors (Eq. 4), in [-1, 1].
    """

    patient_id: str
    label: str
    similarity: float


class Retriever:
    """Finds peers among the training patients: exact, and the same on every call."""

    def __init__(self, vectors: npt.NDArray[np.float32], ids: Sequence[str], labels: Sequence[str]) -> None:
        """Keep the training patients.

        Args:
            vectors: One vector a training patient, shape (N, d).
            ids: Their patient ids, all different.
            labels: Their true labels.

        Raises:
            ValueError: There are not as many ids and labels as vectors, an id is there twice, or a vector is not
                finite.
        """
        if not len(vectors) == len(ids) == len(labels):
            raise ValueError(
                f"got {len(vectors)} vectors, {len(ids)} ids and {len(labels)} labels: not as many of each"
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
        """Return each patient's ``k`` nearest training patients, nearest first; of equally near ones, the earlier.

        A training patient (by her id) is never her own peer, whatever her vector.

        Args:
            vectors: One vector a patient asked about, shape (M, d). A vector of zeros has cosine 0 with all.
            ids: Their patient ids.
            k: The number of peers of each; the paper takes 10.

        Raises:
            ValueError: A patient has fewer than ``k`` other training patients, ``k`` is not positive, or a vector
                is not finite.
        """
        if len(vectors) != len(ids):
            raise ValueError(f"got {len(vectors)} vectors and {len(ids)} ids: not as many of each")
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
    """Return the vectors at length 1, those of zeros as they are.

    Raises:
        ValueError: A vector is not finite.
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise ValueError(f"the vector of patient {ids[row]} has a value that is not finite")
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1.0)
