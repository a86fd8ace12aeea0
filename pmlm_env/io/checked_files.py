"""JSON and tensors from a folder that somebody else may have made: read within bounds, and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from reprlib import repr as shortened
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open

#: Bytes of a JSON file, at most; the settings of a policy are a few thousand.
_MOST_JSON = 16 * 2**20


def file_in(folder: Path, name: str) -> Path:
    """Return the path of a regular file of a folder.

    Raises:
        ValueError: It is missing, or no regular file, or a link that leads out of the folder. (A folder of the Hugging
            Face cache consists of links to the blobs beside it.)
    """
    path = folder / name
    if not path.is_file():
        raise ValueError(f"{path} is missing" if not path.exists() else f"{path} is not a regular file")
    within = [folder.resolve()]
    if folder.resolve().parent.name == "snapshots":
        within.append(folder.resolve().parent.parent / "blobs")
    target = path.resolve()
    if not any(target.is_relative_to(each) for each in within):
        raise ValueError(f"{path} is a link that leads out of its folder: put the file itself there")
    return path


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        ValueError: It is larger than 16 MiB, no JSON, nested too deeply, holds something else than an object, or names
            a key twice.
    """
    with path.open("rb") as file:
        content = file.read(_MOST_JSON + 1)
    if len(content) > _MOST_JSON:
        raise ValueError(f"{path} is larger than {_MOST_JSON // 2**20} MiB: it is not what pmlm-env writes")
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_without_twins, parse_constant=_no_number)
    except _FoundError as error:
        raise ValueError(f"{path}: {error}") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is damaged: it is no JSON") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged: it holds {shortened(value)} instead of an object")
    return value


def read_tensors(path: Path, shapes: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
    """Read a safetensors file.

    Args:
        path: The file.
        shapes: The names and shapes of the float32 tensors that it must have, and no others; its header is compared
            with them before anything is read.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or has other tensors, or a number that is not finite.
    """
    try:
        with safe_open(str(path), "pt") as file:
            found = {name: file.get_slice(name) for name in file.keys()}
            _compare(path, {name: (part.get_dtype(), part.get_shape()) for name, part in found.items()}, shapes)
            # Copies, for what is read is mapped, and the file may be written over.
            tensors = {name: file.get_tensor(name).clone() for name in found}
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError):
        raise ValueError(f"{path} is damaged: copy it again, or train anew") from None
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{path}: {shortened(name)} has numbers that are not finite: copy it again, or train anew")
    return tensors


def _compare(path: Path, found: Mapping[str, tuple[str, list[int]]], shapes: Mapping[str, Sequence[int]]) -> None:
    """See that a header is as it should be.

    Raises:
        ValueError: It is not; the message names the first difference.
    """
    advice = "copy the whole folder again, or train anew"
    for name in sorted(shapes.keys() | found.keys()):
        if name not in found:
            raise ValueError(f"{path} lacks the tensor {name}: {advice}")
        if name not in shapes:
            raise ValueError(f"{path} has a tensor {shortened(name)}, but should have {', '.join(shapes)}: {advice}")
        dtype, shape = found[name]
        if (dtype, shape) != ("F32", list(shapes[name])):
            raise ValueError(f"{path}: {name} is {dtype} {shape}, and should be F32 {list(shapes[name])}: {advice}")


class _FoundError(ValueError):
    """What is wrong with JSON that can be read."""


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise _FoundError(f"{shortened(key)} stands there twice")
        content[key] = value
    return content


def _no_number(text: str) -> NoReturn:
    raise _FoundError(f"it holds {text}, which is no number")
