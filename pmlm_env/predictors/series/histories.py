"""Check-ups as time series of equal length, and what the models of such series have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.schema import Cohort
from pmlm_env.io.checked_files import file_in, read_tensors
from pmlm_env.predictors.inputs import SCALER_ARRAYS, InputScaler
from pmlm_env.predictors.label_model import CURE, LabelModel

if TYPE_CHECKING:
    import torch

#: Of a model and its scaler.
WEIGHTS_FILE = "weights.safetensors"

#: Patients predicted at once; limits the memory.
CHUNK = 256


@dataclass(frozen=True, eq=False)
class Histories:
    """Patients' check-ups, the earliest first, followed by zeros.

    Attributes:
        channels: Shape (N, T, C), float32; T is ``Schema.max_checkups``.
        lengths: What a model reads of each history, 1 to T, shape (N,).
    """

    channels: npt.NDArray[np.float32]
    lengths: npt.NDArray[np.int64]


def zero_padded(cohort: Cohort, scaler: InputScaler, *, true_lengths: bool, missingness: bool) -> Histories:
    """Return the patients' standardized check-ups, zero where nothing was measured (paper, Table A1).

    Args:
        cohort: N patients. Of more check-ups than ``Schema.max_checkups``, the latest are used.
        scaler: Standardizes the values.
        true_lengths: Whether ``lengths`` are the numbers of check-ups, so that a model can ignore the zeros after them;
            otherwise all are T, as in the paper. A patient without check-ups counts as one with an empty check-up.
        missingness: Whether to add a channel for each indicator: 1 where it was measured, else 0 (Lipton et al.,
            MLHC 2016). Otherwise, a missing value looks like the training patients' mean.
    """
    latest_first, marks = np.moveaxis(scaler.pad(cohort), 1, 0)
    n_steps = latest_first.shape[1]
    steps, n_checkups = np.arange(n_steps), (marks != 0).any(axis=2).sum(axis=1)
    order = np.where(steps < n_checkups[:, None], n_checkups[:, None] - 1 - steps, steps)[:, :, None]
    channels = np.take_along_axis(latest_first, order, axis=1)
    if missingness:
        measured = np.take_along_axis(marks == 1, order, axis=1).astype(np.float32)
        channels = np.concatenate([channels, measured], axis=2)
    lengths = np.maximum(n_checkups, 1) if true_lengths else np.full(len(cohort), n_steps)
    return Histories(channels, lengths.astype(np.int64))


class SeriesModel(LabelModel):
    """A predictor that reads check-ups as a time series; see ``zero_padded`` for the two switches."""

    def __init__(self, seed: int = 0, *, true_lengths: bool = True, missingness: bool = True) -> None:
        """Make an unfitted predictor.

        Args:
            seed: Seeds everything that is random. The same seed and cohort give the same predictions.
            true_lengths: Whether the model ignores the zeros after the last check-up; in the paper it does not.
            missingness: Whether the model reads what was measured; in the paper it does not.

        Raises:
            ValueError: A switch is not True or False.
        """
        super().__init__(seed)
        for name, value in (("true_lengths", true_lengths), ("missingness", missingness)):
            if not isinstance(value, bool):
                raise ValueError(f"{name} is {value!r}: use true or false")
        self.true_lengths, self.missingness = true_lengths, missingness
        self._scaler: InputScaler | None = None

    def _arguments(self) -> dict[str, Any]:
        return {"true_lengths": self.true_lengths, "missingness": self.missingness}

    def _fit(self, cohort: Cohort, codes: npt.NDArray[np.intp]) -> None:
        self._scaler = InputScaler.fit(cohort)
        self._fit_series(self._histories(cohort), codes, [patient.person for patient in cohort])

    def _histories(self, cohort: Cohort) -> Histories:
        assert self._scaler is not None
        return zero_padded(cohort, self._scaler, true_lengths=self.true_lengths, missingness=self.missingness)

    def _scores(self, cohort: Cohort) -> npt.NDArray[np.float64]:
        chunks = [cohort[start : start + CHUNK] for start in range(0, len(cohort), CHUNK)]
        return np.concatenate([self._scores_of(self._histories(chunk)) for chunk in chunks])

    @property
    def _n_channels(self) -> int:
        return len(self._indicators) * (1 + self.missingness)

    def _read_tensors(self, folder: Path, shapes: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
        """Read the model's tensors and its scaler.

        Raises:
            ValueError: The file is missing or damaged, or contains others.
        """
        shapes = {**shapes, **dict.fromkeys(SCALER_ARRAYS, (len(self._indicators),))}
        tensors = read_tensors(file_in(folder, WEIGHTS_FILE), shapes, doubles=SCALER_ARRAYS, cure=CURE)
        self._scaler = InputScaler(*(tensors.pop(name).numpy() for name in SCALER_ARRAYS))
        return tensors

    @abstractmethod
    def _fit_series(self, histories: Histories, codes: npt.NDArray[np.intp], persons: Sequence[str]) -> None:
        """Fit to histories, the positions of their labels, and whose they are."""

    @abstractmethod
    def _scores_of(self, histories: Histories) -> npt.NDArray[np.float64]:
        """Return scores of shape (N, n_labels), computed in float64."""
