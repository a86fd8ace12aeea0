"""SQLite files that several processes can share and that survive a kill at any time."""

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

from pmlm_env.llm.storage.process_lock import ProcessLock

#: Seconds to wait for another process's lock.
_TIMEOUT = 60.0

#: Version of the tables, increased when a table changes. Files with a later version are rejected.
LAYOUT = 1

#: The table of claims (see ``Claims``), which files of earlier versions lack. Those versions do not mind it.
CLAIMS = "CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, claimant BIGINT NOT NULL)"

# One lock for all databases, taken by a fork, so that none of them is in use when the process forks.
LOCK = threading.RLock()
_OPEN: weakref.WeakSet[Database] = weakref.WeakSet()


class DatabaseError(RuntimeError):
    """A file is not a database of pmlm-env or cannot be used. The message says what to do."""


class Database:
    """An SQLite file in write-ahead mode, or a database in memory; the connection is opened at first use.

    Committed transactions survive kill -9. A power failure may lose the most recent ones but does not damage the file
    (waiting for the disk at every commit would take milliseconds per call). Threads take turns. A forked child and an
    unpickled copy open connections of their own (in memory: the child has a copy of the data, the unpickled copy is
    empty). A new file is readable only by its owner, because it may contain prompts. A file or folder that is not
    writable can still be read. An existing file that pmlm-env did not create is rejected and left unchanged.

    Args:
        path: The file, created by the first transaction if missing; None = in memory.
        kind: The kind of data, stored in the file and used in messages ("is not a KIND").
        schema: Statements that create the tables of a new file.
    """

    def __init__(self, path: str | Path | None, kind: str, schema: Sequence[str]) -> None:
        """Store the settings; nothing is opened yet."""
        # Absolute, because the working directory may change between two connections.
        self.path = None if path is None else Path(path).absolute()
        self._kind, self._schema = kind, tuple(schema)
        self._connection: sqlite3.Connection | None = None
        self._lock: ProcessLock | None = None

    @property
    def name(self) -> str:
        """The file, for messages."""
        return "the database in memory" if self.path is None else str(self.path)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the connection."""
        return {**self.__dict__, "_connection": None, "_lock": None}

    def __del__(self) -> None:
        """Close the connection; otherwise Python 3.13 warns."""
        # Without the lock: no one else uses the connection, and a lock in __del__ might deadlock garbage collection.
        if getattr(self, "_connection", None) is not None:
            self._connection.close()  # type: ignore[union-attr]

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run statements atomically, while no other process writes.

        Raises:
            DatabaseError: The file is not a database of this kind, is damaged, or cannot be written.
        """
        with LOCK, self._readable_errors():
            connection = self._open_connection()
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def check_writable(self) -> None:
        """Create the file if missing, and check that it can be written.

        Raises:
            DatabaseError: It cannot be written.
        """
        with self.transaction():
            pass

    def read(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query; empty if there is no file yet.

        Raises:
            DatabaseError: The file is not a database of this kind, or is damaged.
        """
        with LOCK, self._readable_errors():
            if self._connection is None and self.path is not None and not os.path.lexists(self.path):
                return []
            return self._open_connection().execute(query, values).fetchall()

    def compact(self) -> None:
        """Free the disk space of deleted rows.

        Raises:
            DatabaseError: The file is not a database of this kind, is damaged, or cannot be written.
        """
        with LOCK, self._readable_errors():
            self._open_connection().execute("VACUUM")
            self._open_connection().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close the connection; the next use opens another. Data in memory is lost."""
        with LOCK:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def claimant(self) -> int:
        """Return this process's number for claims, which is locked until the process ends; call it in a transaction.

        Raises:
            DatabaseError: The file of locks cannot be written.
        """
        assert self._connection is not None
        self._connection.execute(CLAIMS)  # missing in a file of an earlier version
        return self._process_lock().number

    def is_alive(self, claimant: int) -> bool:
        """Whether the process with a number is still there."""
        return self._process_lock().is_alive(claimant)

    def _process_lock(self) -> ProcessLock:
        if self._lock is None or self._lock.pid != os.getpid():
            assert self.path is not None
            path = self.path.with_name(f"{self.path.name}-claims")
            try:
                self._lock = ProcessLock.of_this_process(path)
            except OSError as error:
                why = f"{path} cannot be locked ({error.strerror})"
                raise DatabaseError(f"{why}: choose a cache on a local disk") from None
        return self._lock

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = self._connect()
            try:
                self._initialize(connection)
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
            raise DatabaseError(f"{self.path} is a folder: choose a file")
        if not os.path.lexists(self.path):
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                # SQLite's journals get the file's mode. Only a new file may be opened and closed here: closing an
                # existing one would release all locks that this process holds on it.
                with suppress(FileExistsError):
                    os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            except OSError as error:
                raise DatabaseError(f"{self.path} cannot be created ({error.strerror}): choose another path") from None
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
            raise DatabaseError(
                f"{self.path} was not closed and cannot be written: copy it together with {log.name} to another folder"
            )
        # Without write access, SQLite can take no locks, and needs none.
        return _sqlite(f"{uri}?immutable=1", uri=True)

    def _initialize(self, connection: sqlite3.Connection) -> None:
        """Check that the file is of this kind, or empty, before changing it."""
        if not self._is_of_this_kind(connection):
            connection.execute("BEGIN IMMEDIATE")
            if not self._is_of_this_kind(connection):  # another process may have created the tables
                connection.execute("CREATE TABLE pmlm (kind TEXT NOT NULL)")
                connection.execute("INSERT INTO pmlm VALUES (?)", (self._kind,))
                for statement in (*self._schema, CLAIMS):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {LAYOUT}")
            connection.execute("COMMIT")
        connection.execute("PRAGMA synchronous = NORMAL")
        deadline = time.monotonic() + _TIMEOUT
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL").fetchall()
                return
            except sqlite3.OperationalError as error:
                # SQLite does not wait here for other processes that open the same new file. A read-only file keeps
                # its mode.
                if "readonly" in str(error):
                    return
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _is_of_this_kind(self, connection: sqlite3.Connection) -> bool:
        """Return whether the file is of this kind; False if it is empty; raise ``DatabaseError`` otherwise."""
        own_transaction = not connection.in_transaction
        if own_transaction:
            connection.execute("BEGIN")  # so that both queries see the same state of the file
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        ((layout,),) = connection.execute("PRAGMA user_version").fetchall()
        if own_transaction:
            connection.execute("COMMIT")
        if not tables and not layout:
            return False
        kinds = connection.execute("SELECT kind FROM pmlm").fetchall() if "pmlm" in tables else []
        if len(kinds) != 1:
            raise DatabaseError(
                f"{self.path} is not a {self._kind} but an SQLite file of another program: choose another file"
            )
        if kinds[0][0] != self._kind:
            raise DatabaseError(f"{self.path} is a {kinds[0][0]}, not a {self._kind}: choose another file")
        if layout > LAYOUT:
            raise DatabaseError(
                f"{self.path} has layout {layout}, but this pmlm-env reads {LAYOUT}: update it, or choose another file"
            )
        return True

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise DatabaseError(f"{self.name} {self._explain(str(error))}") from None

    def _explain(self, error: str) -> str:
        restore = "restore it from a backup, or move it away"
        if "not a database" in error:
            return f"is not a {self._kind}: choose another file, {restore}"
        if "locked" in error:
            return f"has been locked by another process for {_TIMEOUT:.0f} s: wait until it ends, or stop it"
        if "readonly" in error:
            return "cannot be written: change its permissions, or copy it to another folder"
        if "is full" in error or "I/O" in error or "unable to open" in error:
            return (
                f"cannot be written or read ({error}): check whether the disk is full, over quota or failing, and free "
                "some space, then run the command again"
            )
        if "decode" in error:  # SQLite's message would quote the text
            return f"is damaged (it contains bytes that are not text): {restore}"
        return f"is damaged ({error}): {restore}"


def _sqlite(target: str, uri: bool = False) -> sqlite3.Connection:
    # ``transaction`` begins transactions (isolation_level), and LOCK serializes threads (check_same_thread).
    return sqlite3.connect(target, timeout=_TIMEOUT, isolation_level=None, check_same_thread=False, uri=uri)


def _before_fork() -> None:
    """Close all connections to files.

    A child that inherited a connection and opened another would act as if it held its parent's locks, so that its
    writes could be lost when the parent closes the file.
    """
    LOCK.acquire()
    for database in list(_OPEN):
        if database.path is not None:
            database.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=LOCK.release, after_in_child=LOCK.release)
