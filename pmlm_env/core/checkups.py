"""Patients' check-ups, as a patient encoder reads them (Eq. 3)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

_CURE = "prepare it again with `pmlm prepare`"


#: Limit on the length of padded check-ups; a form may be read from an untrusted folder.
_LARGEST = 2**20


@dataclass(frozen=True)
class CheckupForm:
    """What check-ups measure.

    Attributes:
        indicators: The indicators.
        units: Their units.
        max_checkups: Number of check-ups that an encoder reads of a patient, the latest.
    """

    indicators: tuple[str, ...]
    units: tuple[str, ...]
    max_checkups: int

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: They do not fit each other, or there are too many.
        """
        if len(self.units) != len(self.indicators) or not 1 <= self.size <= _LARGEST:
            raise ValueError(
                f"{len(self.indicators)} indicators, {len(self.units)} units and {self.max_checkups} check-ups: there "
                f"should be as many units as indicators, and at most {_LARGEST // 2:,} values"
            )

    @property
    def size(self) -> int:
        """Length of a patient's padded check-ups: values and mask."""
        return 2 * self.max_checkups * len(self.indicators)


@dataclass(frozen=True, eq=False)
class Checkups:
    """One patient's check-ups.

    Attributes:
        values: Standardized values, the latest check-up first, at most ``max_checkups``; NaN where nothing was
            measured. Shape (n, n_indicators), float32; read-only.
        form: What they measure.
        statistics: Of the training patients, by which values were standardized: median, mean and SD of each indicator,
            shape (3, n_indicators), float64; see ``InputScaler``.
    """

    values: npt.NDArray[np.float32]
    form: CheckupForm
    statistics: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        """Check the shapes, and make the values read-only.

        Raises:
            ValueError: A shape or the dtype is another.
        """
        most, n = self.form.max_checkups, len(self.form.indicators)
        if self.values.ndim != 2 or len(self.values) > most or self.values.shape[1] != n:
            raise ValueError(f"check-ups of shape {self.values.shape}: expected at most {most} of {n} values")
        if self.values.dtype != np.float32 or self.statistics.shape != (3, n):
            raise ValueError(
                f"{self.values.dtype} values, statistics of shape {self.statistics.shape}: expected "
                f"float32 and (3, {n})"
            )
        object.__setattr__(self, "values", self.values.view())
        self.values.flags.writeable = False


def padded(
    checkups: Sequence[npt.NDArray[np.floating]], max_checkups: int, n_indicators: int
) -> npt.NDArray[np.float32]:
    """Return x' of Eq. 3 with a mask of missing values, of equal size for all patients.

    The mask is 1 = measured, -1 = not measured at this check-up (value 0), 0 = no such check-up (value 0). Without it,
    a missing value would look like the training mean.

    Args:
        checkups: Each patient's standardized values, the latest check-up first, NaN where nothing was measured; at most
            ``max_checkups`` of them.
        max_checkups: Number of check-ups.
        n_indicators: Number of indicators.

    Returns:
        Shape (N, 2, max_checkups, n_indicators): values, then mask. Zeros follow the earliest check-up.
    """
    found = np.zeros((len(checkups), 2, max_checkups, n_indicators), dtype=np.float32)
    for row, values in zip(found, checkups, strict=True):
        n = len(values)
        row[0, :n] = np.nan_to_num(values)
        row[1, :n] = np.where(np.isnan(values), -1.0, 1.0)
    return found


def to_bytes(checkups: Sequence[Checkups]) -> bytes:
    """Return the content of a safetensors file with patients' check-ups, all of the same form and statistics."""
    first = checkups[0]
    tensors = {
        "values": np.concatenate([each.values for each in checkups]),
        "counts": np.array([len(each.values) for each in checkups], dtype=np.int64),
        "statistics": first.statistics,
    }
    return save(tensors, metadata={"form": json.dumps(asdict(first.form), ensure_ascii=False)})


def read_checkups(path: Path, n_patients: int) -> list[Checkups]:
    """Read a file of what ``to_bytes`` returned.

    Raises:
        ValueError: The file is damaged, or is of another number of patients.
    """
    try:
        with safe_open(str(path), "np") as file:
            form = _form(json.loads(file.metadata()["form"]))
            values, counts, statistics = (file.get_tensor(name) for name in ("values", "counts", "statistics"))
        if len(counts) != n_patients or (counts < 0).any() or counts.sum() != len(values):
            raise ValueError
        return [Checkups(each, form, statistics) for each in np.split(values, np.cumsum(counts)[:-1])]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError):
        raise ValueError(f"{path} is damaged, or of other patients: {_CURE}") from None


def _form(described: Mapping[str, Any]) -> CheckupForm:
    indicators, units, most = (described[each.name] for each in fields(CheckupForm))
    if not all(isinstance(each, str) for each in (*indicators, *units)) or type(most) is not int:
        raise ValueError
    return CheckupForm(tuple(indicators), tuple(units), most)
