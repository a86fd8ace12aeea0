"""The training patients' check-ups without padding, which for many patients takes several times their memory."""

from __future__ import annotations

import numpy as np
import torch

from pmlm_env.cohort.schema import Cohort
from pmlm_env.predictors.inputs import InputScaler


class PackedCheckups:
    """All patients' standardized check-ups one after another; those of a batch are padded when they are asked for.

    Args:
        cohort: The patients.
        scaler: Standardizes the values.
        device: Where the check-ups are stored and padded.
    """

    def __init__(self, cohort: Cohort, scaler: InputScaler, device: torch.device) -> None:
        """Standardize the check-ups."""
        self._most, n_indicators = cohort.schema.max_checkups, len(cohort.schema.indicators)
        counts = np.array([min(len(patient.dates), self._most) for patient in cohort], dtype=np.int64)
        ends = np.cumsum(counts)
        n_checkups = int(ends[-1]) if len(ends) else 0
        values = np.full((n_checkups + 1, n_indicators), np.nan, dtype=np.float32)  # the last is what pads
        for patient, end, count in zip(cohort, ends.tolist(), counts.tolist(), strict=True):
            values[end - count : end] = scaler.transform(patient.values[::-1][:count])
        self._values, self._counts, self._starts = (
            torch.from_numpy(each).to(device) for each in (values, counts, ends - counts)
        )

    def __len__(self) -> int:
        """Return the number of patients."""
        return len(self._counts)

    @property
    def size(self) -> int:
        """Length of a patient's padded check-ups: values and mask."""
        return 2 * self._most * self._values.shape[1]

    def padded(self, patients: torch.Tensor) -> torch.Tensor:
        """Return what ``InputScaler.pad`` does, for the patients at these indices, on the device."""
        number = torch.arange(self._most, device=self._values.device)
        present = number < self._counts[patients, None]
        rows = torch.where(present, self._starts[patients, None] + number, len(self._values) - 1)
        values = self._values[rows]
        measured = ~values.isnan()
        mask = measured.float() - (present[:, :, None] & ~measured).float()
        return torch.stack([torch.where(measured, values, 0.0), mask], dim=1)
