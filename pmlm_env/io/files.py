"""Files that are there whole or not at all, readable by their owner alone, for they may hold patients' texts."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO, TypeAlias

from filelock import FileLock, Timeout

#: What tells one state of a file or folder from another: see ``stamp``.
Stamp: TypeAlias = tuple[tuple[str, int, int, int], ...]


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of ``path`` once it is whole and on the disk.

    Whoever reads ``path`` finds the old file or the new one, never a part; where writing fails the old one stays. A
    device or a pipe, such as /dev/stdout, is written as it is.

    Raises:
        OSError: It cannot be written; the error names ``path``.
    """
    with _named(path):
        if path.exists() and not path.is_file() and not path.is_dir():
            with path.open("wb") as file:
                yield file
            return
        number, part = tempfile.mkstemp(prefix=".pmlm-", suffix=".part", dir=path.parent)  # of mode 600
        try:
            with os.fdopen(number, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(part)
            raise


def write(path: Path, content: str | bytes) -> None:
    """Put a file of this content in the place of ``path``; see ``replacing``."""
    with replacing(path) as file:
        file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


def append(path: Path, line: str) -> None:
    """Add a line to a file, all of it or nothing, and wait until it is on the disk.

    Raises:
        OSError: It cannot be written; the error names ``path``.
    """
    with _named(path), os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600), "wb", 0) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            left = memoryview((line + "\n").encode(errors="backslashreplace"))
            while left:  # a full disk may take a part before it takes no more
                left = left[file.write(left) or 0 :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise


def make_folder(folder: Path) -> None:
    """Make a folder for its owner alone, if it is not there.

    Raises:
        ValueError: A file is in the way.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"{folder} is a file, or lies below one: give a folder") from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder if it is not there, and let no other process or thread take it until the end.

    The system itself lets go of the lock when the process ends, be it by kill -9. The same thread may take a folder
    again. On network drives this holds as far as the drive has locks.

    Raises:
        ValueError: Another has it.
        OSError: The folder cannot be written, or its drive has no locks.
    """
    new = not folder.exists()
    make_folder(folder)
    try:
        lock = _lock(str(folder.resolve() / ".lock")).acquire(timeout=0)
    except Timeout:
        raise ValueError(f"{folder} is in use by another pmlm command: wait until it ends, or stop it") from None
    with lock:
        try:
            yield
        except BaseException:
            if new and os.listdir(folder) == [".lock"]:  # what came to nothing leaves nothing
                shutil.rmtree(folder)
            raise


@cache
def _lock(path: str) -> FileLock:
    return FileLock(path, mode=0o600)


def stamp(path: Path) -> Stamp:
    """Return names, inodes, sizes and times of a file, or of the files in a folder; nothing where there is none."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        states = [(str(file.absolute()), file.stat()) for file in files]
    except OSError:
        return ()
    return tuple((name, state.st_ino, state.st_size, state.st_mtime_ns) for name, state in states)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let an error of the system name ``path``, which errors of writing and of temporary files do not."""
    try:
        yield
    except OSError as error:
        if error.errno is None or (error.filename is not None and not str(error.filename).endswith(".part")):
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from None
