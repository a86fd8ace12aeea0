"""Atomic file writes and locks; files are readable by their owner only, because they may contain patients' texts."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from filelock import FileLock, Timeout

#: The state of a file or folder; see ``stamp``.
Stamp: TypeAlias = tuple[tuple[str, int, int, int], ...]


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces ``path`` atomically once it is complete and flushed to disk.

    Readers of ``path`` see the old file or the new one, never a part; if writing fails, the old one stays. Of a link,
    the file that it leads to is replaced. A device or pipe, such as /dev/stdout, is written directly.

    Raises:
        OSError: The file cannot be written; the error names ``path``.
    """
    with _named(path):
        if path.exists() and not path.is_file() and not path.is_dir():
            with path.open("wb") as file:
                yield file
            return
        target = path.resolve()
        number, part = tempfile.mkstemp(prefix=".pmlm-", suffix=".part", dir=target.parent)  # of mode 600
        try:
            with os.fdopen(number, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, target)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(part)
            raise


def write(path: Path, content: str | bytes) -> None:
    """Write ``content`` to ``path`` atomically; see ``replacing``."""
    with replacing(path) as file:
        file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON value to ``path`` atomically; see ``replacing``."""
    write(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def append(path: Path, line: str) -> None:
    """Append a line to a file, completely or not at all, and flush it to disk.

    Raises:
        OSError: The line cannot be written; the error names ``path``.
    """
    with _named(path), os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600), "wb", 0) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            rest = memoryview((line + "\n").encode(errors="backslashreplace"))
            while rest:  # a full disk may accept a part first
                rest = rest[file.write(rest) or 0 :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise


def make_folder(folder: Path) -> None:
    """Create a folder that only its owner can access, unless it exists.

    Raises:
        ValueError: ``folder``, or one of its parents, is a file.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"{folder} is a file, or is inside one: choose a folder") from None


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder, which replaces ``folder`` once it is complete; only its owner can access it.

    If writing fails, the old folder stays. If the process is killed at the very end, ``folder`` may be missing; the old
    one is then beside it, with ``.old`` added to its name. Only one process may write the same folder at a time.

    Raises:
        ValueError: A parent of ``folder`` is a file.
    """
    scratch, old = (folder.with_name(folder.name + suffix) for suffix in (".part", ".old"))
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        make_folder(scratch)
        yield scratch
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)  # an incomplete folder is useless, and the disk may be full
        raise
    if folder.exists():  # otherwise the old one is the only one, and must be kept
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
    os.replace(scratch, folder)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create a folder unless it exists, and lock it against other processes and threads.

    The operating system releases the lock when the process ends, even by kill -9. The same thread may lock a folder
    more than once. On network drives, this works only if the drive supports locks.

    Raises:
        ValueError: Another process or thread holds the lock.
        OSError: The folder cannot be written, or its drive does not support locks.
    """
    new = not folder.exists()
    make_folder(folder)
    with _held(folder / ".lock", folder):
        try:
            yield
        except BaseException:
            if new and os.listdir(folder) == [".lock"]:  # a failed command leaves no empty folder behind
                shutil.rmtree(folder)
            raise


@contextmanager
def locked_file(file: Path, *, wait: bool = False) -> Iterator[None]:
    """Lock a file that is to be written, as ``locked`` does; its folder is created unless it exists.

    Args:
        file: The file.
        wait: Wait until no other process or thread holds the lock.

    Raises:
        ValueError: Another process or thread holds the lock.
        OSError: The folder cannot be written, or its drive does not support locks.
    """
    make_folder(file.parent)
    with _held(file.with_name(f".{file.name}.lock"), file, wait):
        yield


@contextmanager
def _held(path: Path, what: Path, wait: bool = False) -> Iterator[None]:
    try:
        lock = _lock(str(path.resolve())).acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise ValueError(f"{what} is in use by another pmlm command: wait until it ends, or stop it") from None
    with lock:
        yield


@cache
def _lock(path: str) -> FileLock:
    return FileLock(path, mode=0o600)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def stamp(path: Path) -> Stamp:
    """Return names, inodes, sizes and times of a file or of a folder's files; empty if there are none.

    A path that begins with ``~`` is in the home folder, as for what loads models and settings by name.
    """
    path = Path(os.path.expanduser(path))
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        states = [(str(file.absolute()), file.stat()) for file in files]
    except (OSError, ValueError):  # a name that no file can have
        return ()
    return tuple((name, state.st_ino, state.st_size, state.st_mtime_ns) for name, state in states)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Make an ``OSError`` name ``path``; errors of writes and of temporary files do not."""
    try:
        yield
    except OSError as error:
        if error.errno is None or (error.filename is not None and not str(error.filename).endswith(".part")):
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from None
