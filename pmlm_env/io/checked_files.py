"""Reading JSON and tensors from untrusted folders, with size limits and checks."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any, NoReturn

from safetensors import SafetensorError, safe_open

if TYPE_CHECKING:
    import torch

#: Limit on the bytes of a JSON file; the settings of a policy take a few thousand.
_MAX_JSON = 16 * 2**20


def file_in(folder: Path, name: str) -> Path:
    """Return the path of a regular file in a folder.

    Raises:
        ValueError: The file is missing, not a regular file, or a link to outside the folder. (Folders of the Hugging
            Face cache may link to the blobs beside them.)
    """
    path = folder / name
    if not path.is_file():
        raise ValueError(f"{path} is missing" if not path.exists() else f"{path} is not a regular file")
    within = [folder.resolve()]
    if folder.resolve().parent.name == "snapshots":
        within.append(folder.resolve().parent.parent / "blobs")
    target = path.resolve()
    if not any(target.is_relative_to(each) for each in within):
        raise ValueError(f"{path} is a link to a file outside its folder: copy the file itself there")
    return path


def read_object(path: Path, cure: str = "", largest: int = _MAX_JSON) -> dict[str, Any]:
    """Read a JSON file that contains an object.

    Args:
        path: The file.
        cure: What to do if it is missing or damaged, for messages.
        largest: Limit on its bytes.

    Raises:
        ValueError: The file is missing, is larger than ``largest``, is not JSON, is nested too deeply, does not contain
            an object, or repeats a key.
    """
    cure = f": {cure}" if cure else ""
    try:
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing{cure}") from None
    if len(content) > largest:
        raise ValueError(f"{path} is larger than {largest // 2**20} MiB: it was not written by pmlm-env")
    try:
        value = json.loads(
            content.decode("utf-8"), object_pairs_hook=_without_repeated_keys, parse_constant=_reject_constant
        )
    except _ContentError as error:
        raise ValueError(f"{path}: {error}{cure}") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is damaged: it is not JSON{cure}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged: it contains {shortened(value)} instead of an object{cure}")
    return value


def read_tensors(
    path: Path,
    shapes: Mapping[str, Sequence[int]] | None,
    *,
    doubles: Collection[str] = (),
    cure: str = "copy it again, or train again",
) -> dict[str, torch.Tensor]:
    """Read a safetensors file.

    Args:
        path: The file.
        shapes: The names and shapes of exactly the tensors that it must contain; the header is checked against them
            before any tensor is read. None = any, which the caller then has to check.
        doubles: The tensors that are float64, in which NaN is allowed; the others are float32.
        cure: What to do about a damaged file, for messages.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is damaged, contains other tensors, or has a number that is not finite.
    """
    try:
        with safe_open(str(path), "pt") as file:
            found = {name: file.get_slice(name) for name in file.keys()}
            shapes = {name: part.get_shape() for name, part in found.items()} if shapes is None else shapes
            expected = {name: ("F64" if name in doubles else "F32", [*shape]) for name, shape in shapes.items()}
            _compare(path, {name: (part.get_dtype(), part.get_shape()) for name, part in found.items()}, expected, cure)
            # Copies, because the tensors are memory-mapped and the file may be overwritten.
            tensors = {name: file.get_tensor(name).clone() for name in found}
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError):
        raise ValueError(f"{path} is damaged: {cure}") from None
    for name, tensor in tensors.items():
        if name not in doubles and not bool(tensor.isfinite().all()):
            raise ValueError(f"{path}: {shortened(name)} has numbers that are not finite: {cure}")
    return tensors


def _compare(
    path: Path, found: Mapping[str, tuple[str, list[int]]], expected: Mapping[str, tuple[str, list[int]]], cure: str
) -> None:
    """Compare a file's header with the expected tensors.

    Raises:
        ValueError: They differ; the message names the first difference.
    """
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            raise ValueError(f"{path} lacks the tensor {name}: {cure}")
        if name not in expected:
            raise ValueError(
                f"{path} has an unexpected tensor {shortened(name)}; expected {', '.join(expected) or 'none'}: {cure}"
            )
        if found[name] != expected[name]:
            (dtype, shape), (wanted, size) = found[name], expected[name]
            raise ValueError(f"{path}: {name} is {dtype} {shape}, expected {wanted} {size}: {cure}")


class _ContentError(ValueError):
    """JSON that parses but has content that is not allowed."""


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise _ContentError(f"{shortened(key)} occurs twice")
        content[key] = value
    return content


def _reject_constant(text: str) -> NoReturn:
    raise _ContentError(f"it contains {text}, which is not a number")
