"""Growing and mapped arrays are those of the safetensors library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pmlm_env.core.arrays import GrowingArray, loaded, mapped


@pytest.mark.parametrize("batches", [[], [0], [3, 0, 5]])
@pytest.mark.parametrize("metadata", [None, {"form": '{"ü": "' + "x" * 5000 + '"}'}])
def test_the_library_reads_what_grew_row_by_row(tmp_path: Path, batches: list[int], metadata: dict | None) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "a.safetensors"
    rows = [rng.normal(size=(n, 4)).astype(np.float32) for n in batches]
    others = {"counts": np.arange(3), "statistics": rng.normal(size=(3, 4))}
    with path.open("wb") as file:
        array = GrowingArray(file, "values", 4, metadata)
        for each in rows:
            array.add(each)
        array.close(others)
    whole = np.concatenate([np.empty((0, 4), dtype=np.float32), *rows])
    read = load_file(path)
    assert read.keys() == {"values", *others}
    for name, expected in {"values": whole, **others}.items():
        np.testing.assert_array_equal(read[name], expected)
        np.testing.assert_array_equal(mapped(path, name), expected)


def test_arrays_that_the_library_wrote_are_mapped_and_read_only(tmp_path: Path) -> None:
    arrays = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.arange(4), "c": np.ones(2)}
    save_file(arrays, tmp_path / "a.safetensors")
    for name, array in arrays.items():
        found = mapped(tmp_path / "a.safetensors", name)
        assert isinstance(found, np.memmap)
        assert not found.flags.writeable
        np.testing.assert_array_equal(found, array)
        whole = loaded(tmp_path / "a.safetensors", name)
        assert whole.base is None
        assert not whole.flags.writeable
        np.testing.assert_array_equal(whole, array)


def test_damaged_files_and_unknown_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": np.arange(4), "h": np.ones(2, dtype=np.float16)}, path)
    for name in ("b", "h"):  # of the second, the dtype is none of ours
        with pytest.raises(KeyError):
            mapped(path, name)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SafetensorError):
        mapped(path, "a")
