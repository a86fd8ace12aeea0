"""Read-only arrays, and arrays in safetensors files that need not fit into memory.

The format of these files: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from mmap import mmap
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8"), "I64": np.dtype("<i8")}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
#: Room in a header for the sizes, which are known last.
_ROOM = 1024


class GrowingArray:
    """Writes a safetensors file whose first array, of float32, gets its rows one batch after another.

    Args:
        file: The file, open for writing.
        name: The name of the array.
        width: The length of a row.
        metadata: What else the header says.
    """

    def __init__(self, file: BinaryIO, name: str, width: int, metadata: Mapping[str, str] | None = None) -> None:
        """Leave room for the header."""
        self.rows = 0
        self._file, self._name, self._width = file, name, width
        self._header: dict[str, Any] = {"__metadata__": {**metadata}} if metadata else {}
        self._room = -(-(len(json.dumps(self._header)) + _ROOM) // 8) * 8
        file.write(bytes(8 + self._room))

    def add(self, rows: npt.NDArray[np.float32]) -> None:
        """Append rows, shape (n, width)."""
        self._file.write(np.ascontiguousarray(rows, dtype="<f4").tobytes())
        self.rows += len(rows)

    def close(self, others: Mapping[str, npt.NDArray[Any]] | None = None) -> None:
        """Write the other arrays and the header."""
        end = 4 * self.rows * self._width
        self._header[self._name] = {"dtype": "F32", "shape": [self.rows, self._width], "data_offsets": [0, end]}
        for name, array in (others or {}).items():
            start, end = end, end + array.nbytes
            about = {"dtype": _NAMES[array.dtype], "shape": array.shape, "data_offsets": [start, end]}
            self._header[name] = about
            self._file.write(np.ascontiguousarray(array).tobytes())
        header = json.dumps(self._header).encode().ljust(self._room)
        self._file.seek(0)
        self._file.write(len(header).to_bytes(8, "little") + header)


def mapped(path: Path, name: str) -> npt.NDArray[Any]:
    """Return an array of a safetensors file, of which only what is read is in memory; read-only.

    Raises:
        SafetensorError: The file is damaged.
        KeyError: The file has no such array, or it is of another dtype.
        OSError: The file cannot be read.
    """
    with safe_open(str(path), "np") as file:  # checks that the header and the size of the file fit
        shape = tuple(file.get_slice(name).get_shape()) if name in file.keys() else None
    if shape is None:
        raise KeyError(name)
    with path.open("rb") as raw:
        size = int.from_bytes(raw.read(8), "little")
        about = json.loads(raw.read(size))[name]
    start = 8 + size + about["data_offsets"][0]
    if not np.prod(shape):  # an empty file cannot be mapped
        return np.empty(shape, dtype=_DTYPES[about["dtype"]])
    return np.memmap(path, dtype=_DTYPES[about["dtype"]], mode="r", offset=start, shape=shape)


def loaded(path: Path, name: str) -> npt.NDArray[Any]:
    """Return an array of a safetensors file, all of it in memory; read-only. It raises what ``mapped`` raises."""
    return _owned(mapped(path, name))


def read_only(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array that nobody can change: this one if that is so already, otherwise a copy."""
    owner: Any = values
    while isinstance(owner, np.ndarray) and not owner.flags.writeable:
        owner = owner.base
    return values if owner is None or isinstance(owner, bytes | mmap) else _owned(values)


def _owned(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    copy = np.array(values)
    copy.flags.writeable = False
    return copy


__all__ = ["GrowingArray", "SafetensorError", "loaded", "mapped", "read_only"]
