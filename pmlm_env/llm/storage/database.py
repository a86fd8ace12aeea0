"""SQLite files that many processes share and that survive a kill at any moment."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

#: Seconds to wait for another process that writes.
_PATIENCE = 60.0

#: The layout of our files; a file with a later one is refused. Goes up when a table changes.
_LAYOUT = 1

# One lock for all databases: whoever forks takes it, and so finds none of them in the middle of something.
_LOCK = threading.RLock()
_OPEN: weakref.WeakSet[Database] = weakref.WeakSet()


class DatabaseError(RuntimeError):
    """A file that should be one of our databases is not, or cannot be used. The message says what to do."""


class Database:
    """One SQLite file in write-ahead mode (or one in memory), its connection opened at the first use.

    What a transaction has committed is there after a kill -9; a power cut may take the last moments, not the whole file
    (waiting for the disk at every commit would cost milliseconds a call). Threads take turns; a forked child
    and a pickle's twin open connections of their own (in memory: the child starts with a copy, the twin with nothing).
    A new file is readable by its owner alone, for it may hold prompts. A file or folder that cannot be written can
    still be read. An existing file that is none of ours is refused and left as it is.

    Args:
        path: The file, made by the first transaction if it is not there; None for one in memory.
        kind: What the file is, as in "is no KIND"; kept in it, so that one is not taken for another.
        schema: Statements that make the tables of a new file.
    """

    def __init__(self, path: str | Path | None, kind: str, schema: Sequence[str]) -> None:
        """Remember what to open."""
        # Absolute, for whoever changes the working directory between two connections.
        self.path = None if path is None else Path(path).absolute()
        self._kind, self._schema = kind, tuple(schema)
        self._connection: sqlite3.Connection | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the connection behind."""
        return {**self.__dict__, "_connection": None}

    def __del__(self) -> None:
        """Close the connection, or Python 3.13 warns of it."""
        # No lock: nobody else can be using it, and a lock in __del__ may be waited for by whoever collects garbage.
        if getattr(self, "_connection", None) is not None:
            self._connection.close()  # type: ignore[union-attr]

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Do all that is done with the connection, or nothing; no other process writes meanwhile.

        Raises:
            DatabaseError: The file is not one of ours, is damaged, or cannot be written.
        """
        with _LOCK, self._plain_errors():
            connection = self._connected()
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def check_writable(self) -> None:
        """Make the file, if it is not there, and see that it can be written.

        Raises:
            DatabaseError: It cannot.
        """
        with self.transaction():
            pass

    def read(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query; none where there is no file yet.

        Raises:
            DatabaseError: The file is not one of ours, or is damaged.
        """
        with _LOCK, self._plain_errors():
            if self._connection is None and self.path is not None and not os.path.lexists(self.path):
                return []
            return self._connected().execute(query, values).fetchall()

    def compact(self) -> None:
        """Give the room of deleted rows back to the disk.

        Raises:
            DatabaseError: The file is not one of ours, is damaged, or cannot be written.
        """
        with _LOCK, self._plain_errors():
            self._connected().execute("VACUUM")
            self._connected().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close the connection; the next use opens another. One in memory is gone then."""
        with _LOCK:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = self._connect()
            try:
                self._claim(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
            _OPEN.add(self)
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        if self.path is None:
            return _sqlite(":memory:")
        if self.path.is_dir():
            raise DatabaseError(f"{self.path} is a folder: give a file")
        if not os.path.lexists(self.path):
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                # SQLite's journals take the file's mode. Only a file that is new may be opened and closed by hand:
                # closing any other would let go of all locks this process has on it.
                with suppress(FileExistsError):
                    os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            except OSError as error:
                raise DatabaseError(f"{self.path} cannot be made ({error.strerror}): give another path") from None
        if os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK):
            return _sqlite(str(self.path))
        return self._connect_to_read()

    def _connect_to_read(self) -> sqlite3.Connection:
        assert self.path is not None
        uri = self.path.as_uri()
        connection = _sqlite(f"{uri}?mode=ro", uri=True)
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchall()
            return connection
        except sqlite3.OperationalError:
            connection.close()
        log = self.path.with_name(self.path.name + "-wal")
        if log.exists() and log.stat().st_size:
            raise DatabaseError(f"{self.path} was not closed, and cannot be written: copy it and {log.name} elsewhere")
        # Where nothing can be written SQLite cannot lock either; nor need it.
        return _sqlite(f"{uri}?immutable=1", uri=True)

    def _claim(self, connection: sqlite3.Connection) -> None:
        """See whether the file is ours, and only then touch it."""
        if not self._is_ours(connection):
            connection.execute("BEGIN IMMEDIATE")
            if not self._is_ours(connection):  # another process may have been faster
                connection.execute("CREATE TABLE pmlm (kind TEXT NOT NULL)")
                connection.execute("INSERT INTO pmlm VALUES (?)", (self._kind,))
                for statement in self._schema:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {_LAYOUT}")
            connection.execute("COMMIT")
        connection.execute("PRAGMA synchronous = NORMAL")
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL").fetchall()
                return
            except sqlite3.OperationalError as error:
                # SQLite does not wait by itself here for others who open the same new file; a file that can only be
                # read stays as it is.
                if "readonly" in str(error):
                    return
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _is_ours(self, connection: sqlite3.Connection) -> bool:
        """Whether it is; False for an empty file, an error for anything else."""
        alone = not connection.in_transaction
        if alone:
            connection.execute("BEGIN")  # so that both looks are at one state of the file
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        ((layout,),) = connection.execute("PRAGMA user_version").fetchall()
        if alone:
            connection.execute("COMMIT")
        if not tables and not layout:
            return False
        kinds = connection.execute("SELECT kind FROM pmlm").fetchall() if "pmlm" in tables else []
        if len(kinds) != 1:
            raise DatabaseError(f"{self.path} is no {self._kind}, but an SQLite file of something else: give another")
        if kinds[0][0] != self._kind:
            raise DatabaseError(f"{self.path} is a {kinds[0][0]}, no {self._kind}: give another file")
        if layout > _LAYOUT:
            raise DatabaseError(
                f"{self.path} has layout {layout}, and this pmlm-env knows {_LAYOUT}: update pmlm-env, or give another"
            )
        return True

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise DatabaseError(f"{self.path or 'the database in memory'} {self._explained(str(error))}") from None

    def _explained(self, error: str) -> str:
        restore = "restore it from a copy, or move it elsewhere"
        if "not a database" in error:
            return f"is no {self._kind}: give another file, {restore}"
        if "locked" in error:
            return f"has been in use by another process for {_PATIENCE:.0f} s: wait for it, or stop it"
        if "readonly" in error:
            return "cannot be written: change its permissions, or copy it elsewhere"
        if "is full" in error or "I/O" in error or "unable to open" in error:
            return (
                f"cannot be written or read ({error}): see whether its disk is full, over quota or failing; make room, "
                "then run the command again (pmlm train with --resume)"
            )
        if "decode" in error:  # SQLite's own message would quote the text
            return f"is damaged (it holds what is no text): {restore}"
        return f"is damaged ({error}): {restore}"


def _sqlite(target: str, uri: bool = False) -> sqlite3.Connection:
    # Transactions are ours to begin (isolation_level), and threads take turns by the lock (check_same_thread).
    return sqlite3.connect(target, timeout=_PATIENCE, isolation_level=None, check_same_thread=False, uri=uri)


def _before_fork() -> None:
    """Close all connections to files.

    A child that inherits one and opens another believes that it holds locks which only its parent holds, so that
    what it writes can be lost when the parent closes.
    """
    _LOCK.acquire()
    for database in list(_OPEN):
        if database.path is not None:
            database.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)
