"""Eq. 3: a patient's check-ups as an array of fixed size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from pmlm_env.cohort.schema import Cohort, Schema
from pmlm_env.core.checkups import CheckupForm, Checkups, padded
from pmlm_env.io.checked_files import read_tensors
from pmlm_env.io.files import write

#: Standardized values are clipped to this many SDs, so that no outlier dominates.
CLIP = 5.0

#: Smaller medians are as good as 0: division by one might overflow.
_TINY = 1e-200

#: Names of a scaler's statistics in a file of tensors.
SCALER_ARRAYS = ("scaler.median", "scaler.mean", "scaler.sd")


@dataclass(frozen=True, eq=False)
class InputScaler:
    """Standardizes indicators by the statistics of the *training* patients, and pads.

    Laboratory values are skewed, some (ALT, bile acid) over orders of magnitude. What is standardized is therefore
    log(1 + value / median), which is nearly linear below the median and logarithmic above. For a negative value, such
    as a base excess, it is -log(1 - value / median): the transformation is odd, so that an excess and a deficit of
    equal size are equally far from 0, and any real value has a place in it.

    Attributes:
        median: Median of each indicator's absolute values, positive, shape (n_indicators,); NaN if it was never
            measured in training.
        mean: Mean of the transformed values, shape (n_indicators,).
        sd: Their standard deviation, positive, shape (n_indicators,).
    """

    median: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    sd: npt.NDArray[np.float64]

    @classmethod
    def fit(cls, cohort: Cohort) -> InputScaler:
        """Return the scaler of the training patients' check-ups."""
        n_indicators = len(cohort.schema.indicators)
        median, mean, sd = np.full(n_indicators, np.nan), np.zeros(n_indicators), np.ones(n_indicators)
        for j in range(n_indicators):
            # One indicator after another, because all values of many patients would take gigabytes twice.
            column = np.concatenate([np.empty(0), *(patient.values[:, j] for patient in cohort)])
            column = column[~np.isnan(column)]
            if len(column):
                size = np.abs(column)
                median[j] = np.median(size) if np.median(size) > _TINY else size.mean() or 1.0
                logs = _logs(column, median[j])
                mean[j], sd[j] = logs.mean(), logs.std() if logs.std() > 1e-9 else 1.0
        return cls(median, mean, sd)

    def transform(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Standardize values of shape (..., n_indicators).

        NaN stays NaN; indicators never measured in training become NaN.
        """
        return np.clip((_logs(values, self.median) - self.mean) / self.sd, -CLIP, CLIP)

    def pad(self, cohort: Cohort) -> npt.NDArray[np.float32]:
        """Return each patient's x' of Eq. 3 with a mask of missing values; see ``pmlm_env.core.checkups.padded``.

        The latest check-up comes first, so that it is always at the same index. Of more than ``Schema.max_checkups``
        (45 in the paper), the latest are used.

        Returns:
            Shape (N, 2, max_checkups, n_indicators), float32: values, then mask.
        """
        values = [checkups.values for checkups in self.checkups(cohort)]
        return padded(values, cohort.schema.max_checkups, len(cohort.schema.indicators))

    def checkups(self, cohort: Cohort) -> list[Checkups]:
        """Return each patient's standardized check-ups, of which ``padded`` makes the same arrays as ``pad``."""
        form, statistics = checkup_form(cohort.schema), np.stack([self.median, self.mean, self.sd])
        latest = (self.transform(patient.values[::-1][: form.max_checkups]) for patient in cohort)
        return [Checkups(values.astype(np.float32), form, statistics) for values in latest]

    def arrays(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return the statistics by the names in ``SCALER_ARRAYS``, for a file of tensors."""
        return dict(zip(SCALER_ARRAYS, (self.median, self.mean, self.sd), strict=True))

    def save(self, path: Path) -> None:
        """Write the statistics."""
        write(path, save(self.arrays()))

    @classmethod
    def load(cls, path: Path, n_indicators: int, cure: str) -> InputScaler:
        """Read what ``save`` wrote.

        Args:
            path: The file.
            n_indicators: Number of indicators.
            cure: What to do about a damaged file, for messages.

        Raises:
            ValueError: The file is damaged, or has another number of indicators.
        """
        shapes = dict.fromkeys(SCALER_ARRAYS, (n_indicators,))
        tensors = read_tensors(path, shapes, doubles=SCALER_ARRAYS, cure=cure)
        return cls(*(tensors[name].numpy() for name in SCALER_ARRAYS))


def _logs(values: npt.NDArray[np.float64], median: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.copysign(np.log1p(np.abs(values) / median), values)


def checkup_form(schema: Schema) -> CheckupForm:
    """Return what a cohort's check-ups measure."""
    units = tuple(indicator.unit for indicator in schema.indicators)
    return CheckupForm(schema.names, units, schema.max_checkups)
