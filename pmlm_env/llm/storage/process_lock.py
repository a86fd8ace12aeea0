"""A number for a process, by which others see whether it still lives."""

from __future__ import annotations

import fcntl
import os
import secrets
import weakref
from pathlib import Path

# By process and file, because closing a file releases all locks that the process holds on it.
_OPEN: weakref.WeakValueDictionary[tuple[int, Path], ProcessLock] = weakref.WeakValueDictionary()


class ProcessLock:
    """A random number, and a lock on the byte of an empty file at that offset.

    The operating system releases the lock when the process ends, even by kill -9. A forked child does not inherit it.

    Args:
        path: The file, shared by all processes that want to know of one another; created if missing.

    Attributes:
        number: The number, from 0 to 2^62.

    Raises:
        OSError: The file cannot be created, or its drive does not support locks.
    """

    def __init__(self, path: Path) -> None:
        """Create the file and take the lock."""
        self.pid, self.number = os.getpid(), secrets.randbelow(2**62)
        self._file = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self.number)

    @classmethod
    def of_this_process(cls, path: Path) -> ProcessLock:
        """Return the lock of this process; the same one as long as somebody holds it."""
        lock = _OPEN.get((os.getpid(), path))
        if lock is None:
            _OPEN[os.getpid(), path] = lock = cls(path)
        return lock

    def is_alive(self, number: int) -> bool:
        """Whether the process with a number lives and still holds its lock."""
        if number == self.number:
            return True
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except (BlockingIOError, PermissionError):  # POSIX allows both errors
            return True
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)
        return False

    def __del__(self) -> None:
        """Close the file, which releases the lock."""
        if hasattr(self, "_file"):
            os.close(self._file)
