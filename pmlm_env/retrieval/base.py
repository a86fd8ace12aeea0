"""Interface of retrievers (Eq. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Peer:
    """A training patient similar to the query patient.

    Attributes:
        patient_id: The peer's id.
        label: The peer's true label.
        similarity: How similar the two patients' vectors are; for ``cosine``, their cosine (Eq. 4), in [-1, 1].
    """

    patient_id: str
    label: str
    similarity: float


class Retriever(Protocol):
    """Interface of a search for similar training patients.

    It is made as ``Class(vectors, ids, labels, **retriever_kwargs)``: one vector per training patient, shape (N, d),
    float32, their ids, all different, and their true labels; the last from ``PipelineConfig``. It is made anew from
    these whenever a pipeline is loaded, so it saves nothing itself, and should be deterministic.
    """

    def peers(self, vectors: npt.NDArray[np.float32], ids: Sequence[str], k: int) -> list[list[Peer]]:
        """Return each patient's ``k`` nearest training patients, nearest first.

        A training patient (by id) must never be their own peer.

        Args:
            vectors: One vector per query patient, shape (M, d).
            ids: Their patient ids.
            k: The number of peers per patient.

        Raises:
            ValueError: A patient has fewer than ``k`` other training patients.
        """
        ...
