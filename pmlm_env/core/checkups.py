"""Patients' check-ups, as a patient encoder reads them (Eq. 3)."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from pmlm_env.core.arrays import GrowingArray, loaded, mapped, read_only

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
            measured. Shape (n, n_indicators), float32; read-only, a copy of an array that others could change.
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
        object.__setattr__(self, "values", read_only(self.values))


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


class CheckupsFile:
    """Writes patients' check-ups, all of the same form and statistics, one patient after another.

    Args:
        file: The file, open for writing.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Wait for the first patient."""
        self._file, self._counts = file, array("q")
        self._first: Checkups | None = None

    def add(self, checkups: Checkups) -> None:
        """Append those of a patient.

        Raises:
            ValueError: They are of another form than the first, or standardized in another way.
        """
        if self._first is None:
            self._first = checkups
            form = {"form": json.dumps(asdict(checkups.form), ensure_ascii=False)}
            self._values = GrowingArray(self._file, "values", checkups.values.shape[1], form)
        check_alike(checkups, self._first)
        self._values.add(checkups.values)
        self._counts.append(len(checkups.values))

    def close(self) -> None:
        """Write what follows the values; at least one patient was added."""
        assert self._first is not None
        self._values.close({"counts": np.array(self._counts), "statistics": self._first.statistics})


def check_alike(checkups: Checkups, first: Checkups) -> None:
    """Check that two patients' check-ups measure the same, and are standardized in the same way.

    Raises:
        ValueError: They do not.
    """
    same = checkups.statistics is first.statistics or np.array_equal(
        checkups.statistics, first.statistics, equal_nan=True
    )
    if not same or checkups.form != first.form:
        raise ValueError("these episodes' check-ups are of different cohorts: prepare them as one")


class StoredCheckups(Sequence[Checkups]):
    """The check-ups of a file of ``CheckupsFile``.

    Args:
        path: The file.
        n_patients: The number of patients.
        in_memory: Whether to read the values now, or those of a patient when they are asked for.

    Raises:
        ValueError: The file is damaged, or is of another number of patients.
    """

    def __init__(self, path: Path, n_patients: int, *, in_memory: bool = True) -> None:
        """Read the file, or map it into memory."""
        try:
            with safe_open(str(path), "np") as file:
                self._form = _form(json.loads(file.metadata()["form"]))
                counts, self._statistics = (file.get_tensor(name) for name in ("counts", "statistics"))
                self._values = loaded(path, "values") if in_memory else mapped(path, "values")
            if len(counts) != n_patients or (counts < 0).any() or counts.sum() != len(self._values):
                raise ValueError
            self._ends = np.cumsum(counts)
            self._starts = self._ends - counts
            self[:1]  # checks the shapes
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError):
            raise ValueError(f"{path} is damaged, or of other patients: {_CURE}") from None

    def __len__(self) -> int:
        """Return the number of patients."""
        return len(self._ends)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        """Return one patient's check-ups, or those of a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        values = self._values[self._starts[index] : self._ends[index]].view(np.ndarray)
        return Checkups(values, self._form, self._statistics)


def _form(described: Mapping[str, Any]) -> CheckupForm:
    indicators, units, most = (described[each.name] for each in fields(CheckupForm))
    if not all(isinstance(each, str) for each in (*indicators, *units)) or type(most) is not int:
        raise ValueError
    return CheckupForm(tuple(indicators), tuple(units), most)
