"""Where replies are stored: in memory, in an SQLite file, or on a PostgreSQL server that a URL names."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from pmlm_env.llm.storage.database import Database

_SCHEMES = ("postgresql://", "postgres://")


class Statements(Protocol):
    """What a transaction yields: it runs SQL that both SQLite and PostgreSQL understand, with ``?`` for values."""

    def execute(self, query: str, values: Sequence[Any] = (), /) -> Any:
        """Run a statement, and return a cursor with ``rowcount``, ``fetchone`` and ``fetchall``."""


class Storage(Protocol):
    """A database of one kind of data, as ``Database`` (SQLite) and ``PostgresDatabase`` implement it.

    All methods raise ``DatabaseError`` if the database cannot be used.
    """

    @property
    def name(self) -> str:
        """What messages call it; it contains no password."""

    @property
    def path(self) -> Path | None:
        """The file, if it is one."""

    def transaction(self) -> AbstractContextManager[Statements]:
        """Run statements atomically. They survive a kill of this process once the transaction has ended."""

    def read(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query; empty if the tables do not exist yet."""

    def check_writable(self) -> None:
        """Create the tables if missing, and check that they can be written."""

    def compact(self) -> None:
        """Free the disk space of deleted rows."""

    def close(self) -> None:
        """Close the connection; the next use opens another."""

    def claimant(self) -> int:
        """Return the number under which this process makes claims; call it in a transaction."""

    def is_alive(self, claimant: int) -> bool:
        """Whether the process that makes claims under a number is still there; call it in a transaction."""


#: Opens a file, given its path, the kind of data, and the statements that create its tables.
Opener: TypeAlias = Callable[[Path, str, Sequence[str]], Storage]
_openers: list[Opener] = []


def open_files_with(opener: Opener) -> None:
    """Make this process the worker of a command that opens the files for it; see ``agents.cluster.files``."""
    _openers[:] = [opener]


def is_worker() -> bool:
    """Whether this process is the worker of a command, which holds the locks of folders and opens files for it."""
    return bool(_openers)


def is_url(location: object) -> bool:
    """Whether a location is the URL of a PostgreSQL server."""
    return isinstance(location, str) and location.startswith(_SCHEMES)


def check_location(location: object) -> None:
    """Check that a location can be shown and stored.

    Raises:
        ValueError: It is a URL with a password, which is not quoted, or one of another kind of server.
    """
    text = str(location)
    if not is_url(location):
        scheme, separator, _ = text.partition("://")
        if separator and scheme.isalpha():
            raise ValueError(
                f"a cache on a {scheme} server is not possible: name a file, or postgresql://HOST/DATABASE"
            )
        return
    try:
        url = urlsplit(text)
        names = {name for name, _ in parse_qsl(url.query, keep_blank_values=True)}
        secret = url.password is not None or bool(names & {"password", "sslpassword"})
    except ValueError:
        raise ValueError("the URL of the cache is invalid: it should look like postgresql://HOST/DATABASE") from None
    if secret:
        raise ValueError(
            "the URL of the cache contains a password, which would be stored with the run: leave it out, and put the "
            "password into the environment variable PGPASSWORD or the file ~/.pgpass"
        )


def check_given(given: Any, saved: Any, file: Path) -> None:
    """Check that the user names the server on which a run stores its replies, because it gets prompts and replies.

    Args:
        given: ``--cache``.
        saved: Where the run stores its replies.
        file: The run's ``config.json``, for the message.

    Raises:
        ValueError: It is a server, and ``given`` is None.
    """
    if is_url(saved) and given is None:
        raise ValueError(
            f"{file} says that replies are stored on the server {saved}, and a run folder may come from somebody else: "
            f"nothing was sent. If you trust it, add --cache {shlex.quote(saved)}"
        )


def open_storage(location: str | Path | None, kind: str, schema: Sequence[str]) -> Storage:
    """Return the database at a location; nothing is opened yet.

    Of a command's worker, files are those of the command's machine; see ``open_files_with``.

    Args:
        location: A file, ``postgresql://...``, or None for memory.
        kind: The kind of data, for messages.
        schema: Statements that create its tables.

    Raises:
        ValueError: The URL contains a password, or is invalid.
    """
    check_location(location)
    if not is_url(location):
        if location is not None and _openers:
            return _openers[0](Path(location), kind, schema)
        return Database(location, kind, schema)
    from pmlm_env.llm.storage.postgres import PostgresDatabase

    return PostgresDatabase(str(location), kind, schema)
