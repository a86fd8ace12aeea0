"""Interfaces of patient encoders (Eq. 2) and retrievers (Eq. 4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.schema import Cohort


class PatientEncoder(Protocol):
    """Interface of what maps a patient's check-ups to the patient vector x_hat (Eq. 2).

    A patient must get the same vector alone and among others, to the last digit.
    """

    @property
    def vector_size(self) -> int:
        """The length of a vector."""
        ...

    def encode(self, cohort: Cohort) -> npt.NDArray[np.float32]:
        """Return the patients' vectors, shape (N, vector_size).

        Raises:
            ValueError: The cohort's schema is not that of the training patients.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write ``CONFIG_FILE`` and ``WEIGHTS_FILE`` into a folder, for ``load_patient_encoder``."""
        ...


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


def checked_peers(found: Any, n_patients: int, name: str) -> list[list[Peer]]:
    """Return the peers that somebody's retriever returned, as lists.

    Args:
        found: What it returned: for each patient, their peers.
        n_patients: The number of patients it was asked about.
        name: The retriever's name, for messages.

    Raises:
        ValueError: It returned something else than peers, a similarity that is not a finite number, or the peers of
            another number of patients.
    """
    several = found if isinstance(found, Iterable) else [None]
    rows: list[list[Any]] = [[*peers] if isinstance(peers, Iterable) else [None] for peers in several]
    if not all(_is_peer(peer) for peers in rows for peer in peers):
        raise ValueError(
            f"the retriever {name} returned something else than peers: its method peers should return a list of "
            "pmlm_env.retrieval.Peer(patient_id, label, similarity) for each patient, the similarity a finite number"
        )
    if len(rows) != n_patients:
        raise ValueError(f"the retriever {name} returned the peers of {len(rows)} patients, not of {n_patients}")
    return rows


def _is_peer(peer: Any) -> bool:
    return isinstance(peer, Peer) and isinstance(peer.similarity, Real) and isfinite(peer.similarity)
