"""A database on a PostgreSQL server, which processes on many machines can share."""

from __future__ import annotations

import ipaddress
import os
import secrets
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmlm_env.llm.storage.database import CLAIMS, LAYOUT, LOCK, DatabaseError

if TYPE_CHECKING:
    import psycopg

#: Seconds to wait for a server that this process has used before, such as one that restarts.
_PATIENCE = 60.0
#: Key of the lock under which tables are created.
_CREATION = 0x706D6C6D
#: The server notices within about a minute that a client's machine is gone, and ends its session.
_SESSION = (
    "SET client_encoding = 'UTF8'",
    "SET tcp_keepalives_idle = 30",
    "SET tcp_keepalives_interval = 10",
    "SET tcp_keepalives_count = 3",
)
_OPEN: weakref.WeakSet[PostgresDatabase] = weakref.WeakSet()
_INHERITED: list[psycopg.Connection] = []  # kept, because deleting them would end the parent's sessions


class _Statements:
    """Runs SQL with ``?`` for values on a connection."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def execute(self, query: str, values: Sequence[Any] = (), /) -> psycopg.Cursor:
        return self._connection.execute(query.replace("?", "%s").encode(), values)


class PostgresDatabase:
    """Tables in a PostgreSQL database; see ``Storage``. The connection is opened at first use.

    A password comes from ``PGPASSWORD``, ``~/.pgpass`` or a service file, and is not stored. A connection that was lost
    is opened again. Threads take turns; a forked child and an unpickled copy open connections of their own. Unless
    ``sslmode`` is set, a connection to another machine must be encrypted, because the tables contain prompts.

    Args:
        url: ``postgresql://USER@HOST:PORT/DATABASE?...``, as libpq understands it, without a password.
        kind: The kind of data, stored in the database and used in messages.
        schema: Statements that create the tables.

    Raises:
        ValueError: psycopg is not installed.
    """

    path: Path | None = None

    def __init__(self, url: str, kind: str, schema: Sequence[str]) -> None:
        """Store the settings; nothing is opened yet."""
        try:
            import psycopg  # noqa: F401
        except ImportError as error:
            raise ValueError(f"a cache on a server needs psycopg ({error}): pip install 'pmlm-env[postgres]'") from None
        self._url, self._kind, self._schema = url, kind, tuple(schema)
        self._connection: psycopg.Connection | None = None
        self._claimant: int | None = None
        self._has_tables = self._was_connected = False

    @property
    def name(self) -> str:
        """The URL."""
        return self._url

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the connection."""
        return {**self.__dict__, "_connection": None, "_claimant": None}

    def __del__(self) -> None:
        """Close the connection; otherwise psycopg warns."""
        if getattr(self, "_connection", None) is not None:
            self._connection.close()  # type: ignore[union-attr]

    @contextmanager
    def transaction(self) -> Iterator[_Statements]:
        """Run statements atomically. Each sees what other processes have committed before it.

        Raises:
            DatabaseError: The server cannot be reached or used, or its tables are not of this kind.
        """
        with LOCK, self._readable_errors():
            self._create_tables()
            with self._begun() as statements:
                yield statements

    def check_writable(self) -> None:
        """Create the tables if missing, and check that they can be written.

        Raises:
            DatabaseError: They cannot.
        """
        with self.transaction() as statements:
            # Also notices a server that only follows another one, or a role that may only read.
            statements.execute("DELETE FROM claims WHERE claimant = -1")

    def read(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query; empty if the tables do not exist yet.

        Raises:
            DatabaseError: The server cannot be reached or used, or its tables are not of this kind.
        """
        with LOCK, self._readable_errors(), self._begun() as statements:
            self._has_tables = self._has_tables or self._is_of_this_kind(statements)
            return statements.execute(query, values).fetchall() if self._has_tables else []

    def compact(self) -> None:
        """Do nothing: the server frees the space of deleted rows by itself."""

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        with LOCK:
            connection, self._connection, self._claimant = self._connection, None, None
            if connection is not None:
                connection.close()

    def claimant(self) -> int:
        """Return a number that the server locks until this session ends, however it ends; call it in a transaction."""
        assert self._connection is not None
        if self._claimant is None:
            number = secrets.randbelow(2**62)
            self._connection.execute("SELECT pg_advisory_lock(%s)", (number,))
            self._claimant = number
        return self._claimant

    def is_alive(self, claimant: int) -> bool:
        """Whether the session with a number is still there; call it in a transaction."""
        assert self._connection is not None
        row = self._connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (claimant,)).fetchone()
        return row is not None and not row[0]

    @contextmanager
    def _begun(self) -> Iterator[_Statements]:
        """Run statements in a transaction, on a new connection if the old one is lost."""
        import psycopg

        # Statements see what others have committed meanwhile, whatever the role's default is.
        begin = "BEGIN ISOLATION LEVEL READ COMMITTED"
        try:
            connection = self._open_connection()
            connection.execute(begin)
        except psycopg.OperationalError:
            if self._connection is None or not self._connection.broken:
                raise
            self.close()
            connection = self._open_connection()
            connection.execute(begin)
        try:
            yield _Statements(connection)
            connection.execute("COMMIT")
        except BaseException:
            with suppress(psycopg.Error):
                connection.execute("ROLLBACK")
            raise

    def _open_connection(self) -> psycopg.Connection:
        import psycopg

        deadline = time.monotonic() + _PATIENCE
        while self._connection is None:
            try:
                self._connection = self._connect()
            except psycopg.OperationalError:
                if not self._was_connected or time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
        self._was_connected = True
        return self._connection

    def _connect(self) -> psycopg.Connection:
        import psycopg

        usual: dict[str, Any] = {"connect_timeout": 10, "application_name": "pmlm"}
        given = psycopg.conninfo.conninfo_to_dict(self._url)
        connection = psycopg.connect(psycopg.conninfo.make_conninfo("", **{**usual, **given}), autocommit=True)
        info = connection.info
        if not (connection.pgconn.ssl_in_use or _is_local(info) or "sslmode" in info.get_parameters()):
            connection.close()
            raise DatabaseError(
                f"{self.name} is on another machine and does not encrypt connections, so that nothing was sent: turn "
                "SSL on there, or add ?sslmode=disable to the URL if the network between is trusted"
            )
        for statement in _SESSION:
            connection.execute(statement.encode())
        _OPEN.add(self)
        return connection

    def _create_tables(self) -> None:
        if self._has_tables:
            return
        with self._begun() as statements:
            statements.execute("SELECT pg_advisory_xact_lock(?)", (_CREATION,))  # another process may do the same
            if not self._is_of_this_kind(statements):
                statements.execute("CREATE TABLE pmlm (kind TEXT NOT NULL, layout INTEGER NOT NULL)")
                for statement in (*self._schema, CLAIMS):
                    statements.execute(statement)
                statements.execute("INSERT INTO pmlm VALUES (?, ?)", (self._kind, LAYOUT))
        self._has_tables = True

    def _is_of_this_kind(self, statements: _Statements) -> bool:
        """Return whether the tables are of this kind; False if there are none; raise ``DatabaseError`` otherwise."""
        # Not to_regclass, which may remember from before a lock was waited for that there was no such table.
        query = "SELECT 1 FROM pg_class WHERE relname = 'pmlm' AND relkind = 'r' AND pg_table_is_visible(oid)"
        if not statements.execute(query).fetchall():
            return False
        rows = statements.execute("SELECT kind, layout FROM pmlm").fetchall()
        if len(rows) != 1 or rows[0][0] != self._kind:
            raise DatabaseError(f"{self.name} has tables of another kind, not a {self._kind}: choose another database")
        if rows[0][1] > LAYOUT:
            raise DatabaseError(
                f"{self.name} has layout {rows[0][1]}, but this pmlm-env reads {LAYOUT}: update it, or choose another "
                "database"
            )
        return True

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        import psycopg

        try:
            yield
        except psycopg.Error as error:
            # The rest of a server's message may quote values.
            said = error.diag.message_primary or ("" if error.sqlstate else " ".join(str(error).split()))
            raise DatabaseError(f"{self.name} {_advice(error)} ({said or type(error).__name__})") from None

    def _leave_to_parent(self) -> None:
        """In a forked child: close the inherited socket without ending the parent's session."""
        connection, self._connection, self._claimant = self._connection, None, None
        if connection is not None:
            _INHERITED.append(connection)
            with suppress(Exception):
                os.close(connection.fileno())


def _advice(error: psycopg.Error) -> str:
    import psycopg

    if isinstance(error, psycopg.errors.DuplicateTable | psycopg.errors.DuplicateObject):
        return "has a table of another program with a name that is needed: choose another database"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return "does not let this user create or change its tables: grant the user that, or choose another database"
    if isinstance(error, psycopg.errors.DeadlockDetected | psycopg.errors.SerializationFailure):
        return "was written by another command at the same moment: run the command again"
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return "cannot be written: it may be a copy that follows another server; name that one"
    if isinstance(error, psycopg.OperationalError):
        return "cannot be reached or used: check the URL, PGPASSWORD or ~/.pgpass, and whether the server is up"
    return "cannot be used"


def _is_local(info: psycopg.ConnectionInfo) -> bool:
    try:
        return info.host.startswith("/") or ipaddress.ip_address(info.hostaddr).is_loopback
    except ValueError:
        return False


def _after_fork_in_child() -> None:
    for database in list(_OPEN):
        database._leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
