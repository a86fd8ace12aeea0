"""The file ``runs.jsonl``: one line for each complete run of a benchmark or an experiment."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Hashable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from pmlm_env.io.files import write

Key = TypeVar("Key", bound=Hashable)


def complete_runs(file: Path, key: Callable[[Any], Key], command: str) -> dict[Key, Any]:
    """Return the runs in a file, and remove an incomplete last line from it; the caller holds the folder's lock.

    Args:
        file: The file; a missing one has no runs.
        key: Returns what identifies the run of a line. ValueError, KeyError, TypeError and AttributeError mean that the
            line is damaged.
        command: The command that writes the file, for messages.

    Returns:
        The lines by key, in the order of the file; of lines with the same key, the last one.

    Raises:
        ValueError: A line is damaged.
    """
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        write(file, whole)
    done = {}
    for number, text in enumerate(whole.split("\n")[:-1], start=1):
        try:
            line = json.loads(text)
            done[key(line)] = line
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ValueError(
                f"{file}, line {number} was not written by `{command}`: restore the file from a copy, or remove "
                "the line, and its run will be repeated"
            ) from None
    return done


def put_in_order(file: Path, done: Mapping[Key, Any], keys: Iterable[Key]) -> dict[Key, Any]:
    """Write the lines of complete runs in the order of their keys, if a cluster has ended them in another order.

    Args:
        file: The file, whose folder's lock the caller holds.
        done: The lines in the file, by key.
        keys: The keys of the command's runs, all of which are complete.

    Returns:
        The lines in the order of the file. Those of other commands' runs come first if it was changed.
    """
    ours = dict.fromkeys(keys)
    if [key for key in done if key in ours] == [*ours]:
        return dict(done)
    ordered = {key: done[key] for key in (*(key for key in done if key not in ours), *ours)}
    write(file, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in ordered.values()))
    return ordered


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the machine, the version of Python, and those of the packages that are installed.

    The machine includes its GPU if this process uses it.
    """
    import torch  # takes a second, which commands that only show their options need not wait for

    gpu = [torch.cuda.get_device_name()] if torch.cuda.is_initialized() else []
    installed = {}
    for name in packages:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "machine": ", ".join([platform.machine(), f"{os.cpu_count()} cores", *gpu]),
        "python": platform.python_version(),
        **installed,
    }
