"""A predictor, a retriever and a source of one's own, as a user would write them, and broken ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort import Cohort, ReadReport, Schema, read_cohort
from pmlm_env.predictors import BoostedTrees
from pmlm_env.retrieval import Peer


class Shares:
    """Predicts each label with its share of the training patients, to a power; needs no seed."""

    def __init__(self, power: float = 1.0) -> None:
        self.power = power
        self.shares: dict[str, float] = {}

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.shares)

    def fit(self, cohort: Cohort) -> None:
        names, counts = np.unique(cohort.y, return_counts=True)
        shares = (counts / counts.sum()) ** self.power
        self.shares = dict(zip(names.tolist(), (shares / shares.sum()).tolist(), strict=True))

    def predict_proba(self, cohort: Cohort) -> npt.NDArray[np.float64]:
        return np.tile([*self.shares.values()], (len(cohort), 1))

    def predict(self, cohort: Cohort) -> npt.NDArray[np.str_]:
        return np.array([max(self.shares, key=self.shares.__getitem__)] * len(cohort))

    def save(self, folder: Path) -> None:
        (folder / "shares.json").write_text(json.dumps(self.shares))

    @classmethod
    def load(cls, folder: Path) -> Shares:
        made = cls()
        made.shares = json.loads((folder / "shares.json").read_text())
        return made


class Nothing(Shares):
    """Returns no probabilities for the last patient."""

    def predict_proba(self, cohort: Cohort) -> npt.NDArray[np.float64]:
        return super().predict_proba(cohort)[:-1]


class Boastful(BoostedTrees):
    """Says everything with far too much confidence."""

    def predict_proba(self, cohort: Cohort) -> npt.NDArray[np.float64]:
        powers = super().predict_proba(cohort) ** 20
        return powers / powers.sum(axis=1, keepdims=True)


class Lost(Shares):
    """Has no labels."""

    @property
    def labels(self) -> Any:
        return None


class Backwards(Shares):
    """Names its labels in the wrong order."""

    @property
    def labels(self) -> tuple[str, ...]:
        return super().labels[::-1]


class Unsaved:
    """Cannot be saved."""

    def fit(self, cohort: Cohort) -> Unsaved:
        raise AssertionError("it was fitted")

    def predict_proba(self, cohort: Cohort) -> Any:
        raise AssertionError("it was used")


class First:
    """Finds the first training patients, whoever asks."""

    def __init__(self, vectors: npt.NDArray[np.float32], ids: Sequence[str], labels: Sequence[str], skip: int = 0):
        self.peers_of_all = [Peer(*each, 1.0) for each in zip(ids, labels, strict=True)][skip:]

    def peers(self, vectors: npt.NDArray[np.float32], ids: Sequence[str], k: int) -> list[list[Peer]]:
        return [[peer for peer in self.peers_of_all if peer.patient_id != own][:k] for own in ids]


class Selfish(First):
    """Finds the patients themselves, if they are training patients."""

    def peers(self, vectors: npt.NDArray[np.float32], ids: Sequence[str], k: int) -> list[list[Peer]]:
        return [self.peers_of_all[:k] for _ in ids]


class Forgetful(First):
    """Finds no peers of the last patient."""

    def peers(self, vectors: npt.NDArray[np.float32], ids: Sequence[str], k: int) -> list[list[Peer]]:
        return super().peers(vectors, ids, k)[:-1]


class Nameless(First):
    """Returns something else than peers."""

    def __init__(self, *arguments: Any, returns: str = "") -> None:
        super().__init__(*arguments)
        self.returns = returns

    def peers(self, vectors: npt.NDArray[np.float32], ids: Sequence[str], k: int) -> Any:
        found = super().peers(vectors, ids, k)
        match self.returns:
            case "nothing":
                return None
            case "flat":
                return found[0]
            case "tuples":
                return [[(peer.patient_id, peer.label, peer.similarity) for peer in peers] for peers in found]
            case "unlike":
                return [[replace(peer, similarity=None) for peer in peers] for peers in found]  # type: ignore[arg-type]
            case "nan":
                return [[replace(peer, similarity=float("nan")) for peer in peers] for peers in found]
        return ((replace(peer, similarity=np.float32(1)) for peer in peers) for peers in found)


class Halving(First):
    """Halves the vectors that it gets, in place."""

    def __init__(self, vectors: npt.NDArray[np.float32], ids: Sequence[str], labels: Sequence[str]):
        vectors /= 2
        super().__init__(vectors, ids, labels)

    def peers(self, vectors: npt.NDArray[np.float32], ids: Sequence[str], k: int) -> list[list[Peer]]:
        vectors /= 2
        return super().peers(vectors, ids, k)


class Filling(Shares):
    """Fills the gaps in patients' values in place."""

    def fit(self, cohort: Cohort) -> None:
        for patient in cohort:
            patient.values[np.isnan(patient.values)] = 0.0
        super().fit(cohort)


def only(path: Path, schema: Schema, most: int = 1_000_000) -> tuple[Cohort, ReadReport]:
    """Read the first patients of tables."""
    cohort, _ = read_cohort(path, schema)
    return cohort[:most], ReadReport(min(most, len(cohort)), 0)


def twice(path: Path, schema: Schema) -> tuple[Cohort, ReadReport]:
    """Read the first patient twice."""
    cohort, report = read_cohort(path, schema)
    return cohort.take([0, 0]), report


def bare_cohort(path: Path, schema: Schema) -> Cohort:
    """Return no report."""
    return read_cohort(path, schema)[0]
