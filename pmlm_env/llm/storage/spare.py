"""Disk space reserved for replies that arrive when the disk is full."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

#: Reserved bytes; each reply in flight takes a few thousand.
_SIZE = 1 << 20


class SpareSpace:
    """A file of zeros that is overwritten in place, so that writing lines into it needs no further disk space.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        """Store the path; nothing is created yet."""
        self.path = path

    def reserve(self) -> None:
        """Create the file, unless it exists.

        Raises:
            OSError: There is not enough disk space.
        """
        with suppress(FileNotFoundError):
            if self.path.stat().st_size >= _SIZE:
                return
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600), "r+b") as file:
            try:
                file.seek(0, os.SEEK_END)
                file.write(bytes(max(0, _SIZE - file.tell())))
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                if not self._lines(file):
                    self.path.unlink()  # a smaller file is useless
                raise

    def put(self, lines: Sequence[str]) -> None:
        """Write ASCII lines after the existing ones, over an incomplete last one of a writer that was stopped.

        Raises:
            OSError: The file does not exist, or the lines do not fit and the disk is full.
        """
        with self._opened() as file:
            existing = self._lines(file)
            rest = existing.pop() if existing and not existing[-1].endswith(b"\n") else b""
            file.seek(sum(map(len, existing)))
            content = "".join(f"{line}\n" for line in lines).encode("ascii")
            file.write(content.ljust(len(rest), b"\0"))
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def moved(self) -> Iterator[list[str]]:
        """Yield the lines, and delete them at the end, so that their space can be used again.

        Meanwhile other processes wait with their lines. If the block raises an error, nothing is deleted.

        Raises:
            OSError: The file does not exist, or cannot be read or written.
        """
        with self._opened() as file:
            lines = self._lines(file)
            yield [line.decode("ascii", "replace") for line in lines]
            file.seek(0)
            file.write(bytes(sum(map(len, lines))))

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        with self.path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed
            yield file

    @staticmethod
    def _lines(file: BinaryIO) -> list[bytes]:
        file.seek(0)
        if file.read(1) in (b"", b"\0"):
            return []
        file.seek(0)
        return file.read().partition(b"\0")[0].splitlines(keepends=True)
