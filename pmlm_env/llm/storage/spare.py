"""Room on the disk for what arrives once there is none left."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

#: Bytes held: replies to the requests that can be under way have a few thousand each.
_SIZE = 1 << 20


class Spare:
    """A file of zeros that is filled in place: lines written into it need no more room on the disk.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        """Name the file."""
        self.path = path

    def hold(self) -> None:
        """Take the room, if it is not held already.

        Raises:
            OSError: There is none.
        """
        with suppress(FileNotFoundError):
            if self.path.stat().st_size >= _SIZE:
                return
        with os.fdopen(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600), "r+b") as file:
            try:
                file.seek(0, os.SEEK_END)
                file.write(bytes(max(0, _SIZE - file.tell())))
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                if not self._lines(file):
                    self.path.unlink()  # a part of it would be of no use
                raise

    def put(self, lines: Sequence[str]) -> None:
        """Write lines of ASCII after those that are there.

        Raises:
            OSError: There is no such file, or there are more of them than the disk takes.
        """
        with self._opened() as file:
            file.seek(sum(map(len, self._lines(file))))
            file.write("".join(f"{line}\n" for line in lines).encode("ascii"))
            file.flush()
            os.fsync(file.fileno())

    def lines(self) -> list[str]:
        """Return the lines that are there."""
        try:
            with self._opened() as file:
                return [line.decode("ascii", "replace") for line in self._lines(file)]
        except OSError:
            return []

    def clear(self) -> None:
        """Forget the lines, and hold their room again."""
        with self._opened() as file:
            length = sum(map(len, self._lines(file)))
            file.seek(0)
            file.write(bytes(length))

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        with self.path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # let go of when the file is closed
            yield file

    @staticmethod
    def _lines(file: BinaryIO) -> list[bytes]:
        file.seek(0)
        if file.read(1) in (b"", b"\0"):
            return []
        file.seek(0)
        return file.read().partition(b"\0")[0].splitlines(keepends=True)
