"""Files of replies and of spending, which workers use through the machine of the command that started them.

SQLite's files cannot be shared over a network drive: its write-ahead log is memory that all processes map
(https://www.sqlite.org/wal.html). A worker therefore has a companion: a process on the command's machine that opens
these files for that worker alone. Locks and claims are those of the companion. Ray ends the companion together with the
worker that made it, and then the operating system releases its locks, as if the worker had run on that machine.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from pmlm_env.llm.storage.database import LOCK, Database
from pmlm_env.llm.storage.location import open_files_with

#: A file: its path, its kind, and the statements that create its tables.
_File: TypeAlias = tuple[str, str, tuple[str, ...]]


class Companion:
    """Opens files for one worker; an actor on the machine of the command. Its methods run one after another."""

    def __init__(self) -> None:
        """Start with no file."""
        self._files: dict[_File, Database] = {}
        self._open: dict[_File, tuple[AbstractContextManager[sqlite3.Connection], sqlite3.Connection]] = {}

    def begin(self, file: _File) -> None:
        """Begin a transaction."""
        context = self._of(file).transaction()
        self._open[file] = context, context.__enter__()

    def execute(self, file: _File, query: str, values: Sequence[Any]) -> tuple[int, list[tuple[Any, ...]]]:
        """Run a statement of the transaction, and return the number of rows it changed and those it found."""
        try:
            cursor = self._open[file][1].execute(query, values)
            return cursor.rowcount, cursor.fetchall()
        except sqlite3.Error as error:
            context, _ = self._open.pop(file)
            context.__exit__(type(error), error, error.__traceback__)  # raises it as a DatabaseError
            raise

    def end(self, file: _File, *, commit: bool) -> None:
        """End the transaction, if there is one."""
        context, _ = self._open.pop(file, (None, None))
        if context is not None:
            error = None if commit else _GivenUpError()
            context.__exit__(type(error) if error else None, error, None)

    def call(self, file: _File, method: str, *values: Any) -> Any:
        """Call another method of the file's ``Database``."""
        return getattr(self._of(file), method)(*values)

    def _of(self, file: _File) -> Database:
        if file not in self._files:
            self._files[file] = Database(*file)
        return self._files[file]


class _GivenUpError(Exception):
    """The worker gave up a transaction."""


class Rows:
    """What a statement changed and found, as a cursor gives it.

    Attributes:
        rowcount: The number of rows that were changed.
    """

    def __init__(self, rowcount: int, rows: list[tuple[Any, ...]]) -> None:
        """Store the rows."""
        self.rowcount, self._rows = rowcount, iter(rows)

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row; None if there is none."""
        return next(self._rows, None)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the other rows."""
        return list(self._rows)


class RemoteDatabase:
    """A file that a companion opens: what ``Database`` is on the command's own machine; see ``Storage``.

    Args:
        ask: Calls a method of the companion, and returns or raises what that does.
        path: The file's absolute path.
        kind: The kind of data, for messages.
        schema: Statements that create its tables.
    """

    #: It is no file of this machine.
    path: Path | None = None

    def __init__(self, ask: Callable[..., Any], path: Path, kind: str, schema: Sequence[str]) -> None:
        """Store the arguments; nothing is opened yet."""
        self._ask, self._file = ask, (str(path), kind, tuple(schema))

    @property
    def name(self) -> str:
        """The file, for messages."""
        return self._file[0]

    @contextmanager
    def transaction(self) -> Iterator[RemoteDatabase]:
        """Run statements atomically; threads take turns."""
        with LOCK:
            try:
                self._ask("begin", self._file)
                yield self
            except BaseException:
                self._ask("end", self._file, commit=False)
                raise
            self._ask("end", self._file, commit=True)

    def execute(self, query: str, values: Sequence[Any] = (), /) -> Rows:
        """Run a statement of the transaction."""
        return Rows(*self._ask("execute", self._file, query, tuple(values)))

    def read(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query; empty if there is no file yet."""
        return self._call("read", query, tuple(values))

    def check_writable(self) -> None:
        """Create the file if missing, and check that it can be written."""
        self._call("check_writable")

    def compact(self) -> None:
        """Free the disk space of deleted rows."""
        self._call("compact")

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        self._call("close")

    def claimant(self) -> int:
        """Return the companion's number for claims; call it in a transaction."""
        return self._call("claimant")

    def is_alive(self, claimant: int) -> bool:
        """Whether the process with a number is still there; call it in a transaction."""
        return self._call("is_alive", claimant)

    def _call(self, method: str, *values: Any) -> Any:
        with LOCK:
            return self._ask("call", self._file, method, *values)


def open_files_on(node: str, folder: str) -> None:
    """Let this worker use files of replies and of spending on a machine of the cluster.

    Args:
        node: Ray's identifier of the node where the command runs.
        folder: The command's working folder there, which relative paths are in.
    """
    import ray
    from ray.exceptions import RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    @cache
    def companion() -> Any:
        here = NodeAffinitySchedulingStrategy(node, soft=False)
        return ray.remote(Companion).options(num_cpus=0, scheduling_strategy=here).remote()

    def ask(method: str, *values: Any, **named: Any) -> Any:
        try:
            return ray.get(getattr(companion(), method).remote(*values, **named))
        except RayTaskError as error:
            raise error.cause from None

    open_files_with(lambda path, kind, schema: RemoteDatabase(ask, Path(folder) / path, kind, schema))
