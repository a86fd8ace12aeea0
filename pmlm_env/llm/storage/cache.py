"""Cache of LLM replies, in a file or on a server that several runs can share."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pmlm_env.llm.base import Completion, Request
from pmlm_env.llm.storage.claims import Claims
from pmlm_env.llm.storage.database import DatabaseError
from pmlm_env.llm.storage.location import open_storage
from pmlm_env.llm.storage.spare import SpareSpace
from pmlm_env.weights import cache_dir

_SCHEMA = (
    "CREATE TABLE replies (key TEXT PRIMARY KEY, request TEXT NOT NULL, reply TEXT NOT NULL, "
    "created DOUBLE PRECISION NOT NULL)",
)
_INSERT = "INSERT INTO replies VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"

#: Rows per query; older versions of SQLite allow 999 variables.
_ROWS_PER_QUERY = 900

_REQUEST_FIELDS: dict[str, type | tuple[type, ...]] = {"llm": (dict, str), "prompt": str, "sample": int}
_REPLY_FIELDS: dict[str, type | tuple[type, ...]] = {
    "text": str,
    "prompt_tokens": int,
    "completion_tokens": int,
    "finish_reason": str,
    "model": str,
}


@dataclass(frozen=True, slots=True)
class CachedReply:
    """One cached reply.

    Attributes:
        request: ``llm`` (the identity, as an object if it is JSON), ``prompt``, ``sample``.
        reply: ``text``, ``prompt_tokens``, ``completion_tokens``, ``finish_reason``, ``model``.
        created: Time of storing, in seconds since 1970.
    """

    request: dict[str, Any]
    reply: dict[str, Any]
    created: float

    def __post_init__(self) -> None:
        """Check all fields.

        Raises:
            ValueError: A field is invalid; the message names it and does not quote the prompt.
        """
        _check_fields("request", self.request, _REQUEST_FIELDS)
        _check_fields("reply", self.reply, _REPLY_FIELDS)
        if self.reply["finish_reason"] not in ("stop", "length"):
            raise ValueError("reply.finish_reason should be stop or length")
        if isinstance(self.created, bool) or not isinstance(self.created, (int, float)):
            raise ValueError("created should be a number")
        if not 0 <= self.created < 1e11:  # the year 5138
            raise ValueError("created should be seconds since 1970")

    @property
    def key(self) -> str:
        """SHA-256 of the request as canonical JSON."""
        return _key(_canonical(self.request))

    @property
    def identity(self) -> str:
        """The LLM's identity as readable text."""
        llm = self.request["llm"]
        return llm if isinstance(llm, str) else json.dumps(llm, sort_keys=True, ensure_ascii=False)

    @property
    def completion(self) -> Completion:
        """The reply as a ``Completion`` marked as cached."""
        return Completion(**self.reply, cached=True)


class ReplyCache:
    """Stores replies by request: LLM (endpoint, model, all sampling parameters), prompt and sample number.

    Processes may share a file, and machines a server. A reply survives a kill of the process once ``put`` has returned.
    The first reply to a request is never replaced. Errors are not stored.

    Args:
        location: A file, created when the first reply is stored; or ``postgresql://...``, see ``PostgresDatabase``;
            None = in memory.

    Raises:
        ValueError: The URL contains a password or is invalid, or psycopg is not installed.
    """

    def __init__(self, location: str | Path | None = None) -> None:
        """Store the location; nothing is opened yet."""
        self._database = open_storage(location, "reply cache", _SCHEMA)
        file = self._database.path
        if location is not None and file is None:  # beside what else this user keeps on this machine
            file = cache_dir() / f"replies-{hashlib.sha256(str(location).encode()).hexdigest()[:16]}"
        self._spare = None if file is None else SpareSpace(file.with_name(f"{file.name}-spare"))
        self._claims = None if location is None else Claims(self._database)

    @property
    def path(self) -> Path | None:
        """The file; None = in memory or on a server."""
        return self._database.path

    @property
    def name(self) -> str:
        """Where the replies are, for messages."""
        return self._database.name if self._claims is not None else "the cache in memory"

    def __len__(self) -> int:
        """Return the number of replies."""
        self._move_from_spare()
        rows = self._database.read("SELECT COUNT(*) FROM replies")
        return int(rows[0][0]) if rows else 0

    def get(self, identity: str, requests: Sequence[Request]) -> dict[int, Completion]:
        """Return the stored replies, by their requests' indices, marked as cached.

        Raises:
            DatabaseError: The file or a reply in it is damaged.
        """
        self._move_from_spare()
        llm = _identity_object(identity)
        indices: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            indices.setdefault(_key(_request_text(llm, request)), []).append(index)
        keys = list(indices)
        found: dict[int, Completion] = {}
        for start in range(0, len(keys), _ROWS_PER_QUERY):
            chunk = keys[start : start + _ROWS_PER_QUERY]
            placeholders = ",".join("?" * len(chunk))
            for row in self._database.read(f"SELECT * FROM replies WHERE key IN ({placeholders})", chunk):
                completion = self._validated(row).completion
                found.update(dict.fromkeys(indices[row[0]], completion))
        return found

    def holds(self, keys: Sequence[str]) -> set[str]:
        """Return those of some ``CachedReply.key`` whose replies are stored.

        Raises:
            DatabaseError: The file is damaged.
        """
        self._move_from_spare()
        found: set[str] = set()
        for start in range(0, len(keys), _ROWS_PER_QUERY):
            chunk = keys[start : start + _ROWS_PER_QUERY]
            placeholders = ",".join("?" * len(chunk))
            found.update(
                row[0] for row in self._database.read(f"SELECT key FROM replies WHERE key IN ({placeholders})", chunk)
            )
        return found

    def put(self, identity: str, completions: Mapping[Request, Completion]) -> dict[Request, Completion]:
        """Store replies, all or none.

        Returns:
            The replies that are stored now. If another process has stored a reply first, this is its reply, which a
            replay will return.

        Raises:
            DatabaseError: The file cannot be written or is damaged.
        """
        if not completions:
            return {}
        llm, now = _identity_object(identity), time.time()
        stored = dict(completions)
        with self._database.transaction() as connection:
            # In the order of the keys in every process: PostgreSQL locks rows one by one.
            for key, text, request in sorted(_keyed(llm, completions)):
                completion = completions[request]
                if not connection.execute(_INSERT, (key, text, _canonical(_reply_fields(completion)), now)).rowcount:
                    row = connection.execute("SELECT * FROM replies WHERE key = ?", (key,)).fetchone()
                    stored[request] = replace(self._validated(row).completion, cached=completion.cached)
        return stored

    @contextmanager
    def claimed(self, identity: str, requests: Sequence[Request]) -> Iterator[list[Request]]:
        """Claim requests, so that no other process sends them, and give the claims up at the end.

        Read the cache after claiming and before sending: another process may have stored a reply just before.

        Args:
            identity: The LLM's identity.
            requests: The requests.

        Yields:
            Those requests that no other process has claimed.

        Raises:
            DatabaseError: The claims cannot be stored.
        """
        if self._claims is None:
            yield list(requests)
            return
        keys = {request: key for key, _, request in _keyed(_identity_object(identity), requests)}
        taken = self._claims.take(keys.values())
        try:
            yield [request for request, key in keys.items() if key in taken]
        finally:
            with suppress(DatabaseError):  # then they end with the process
                self._claims.release(taken)

    def check_writable(self) -> None:
        """Check that replies can be stored, before they are paid for.

        Raises:
            DatabaseError: The file or the spare space cannot be written.
        """
        self._database.check_writable()
        if self._spare is not None:
            try:
                self._spare.reserve()
            except OSError as error:
                raise DatabaseError(
                    f"{self._spare.path} cannot be written ({error.strerror}), so no more requests are sent: free some "
                    "disk space, then run the command again"
                ) from None

    def put_in_spare(self, identity: str, completions: Mapping[Request, Completion]) -> None:
        """Store replies in the spare space if the file cannot be written; they are moved to the file later.

        Raises:
            DatabaseError: The spare space cannot be written either, so the replies are lost.
        """
        llm, now = _identity_object(identity), time.time()
        lines = []
        for request, completion in completions.items():
            stored = {
                "request": json.loads(_request_text(llm, request)),
                "reply": _reply_fields(completion),
                "created": now,
            }
            lines.append(_canonical(stored))
        try:
            if self._spare is None:
                raise OSError
            self._spare.put(lines)
        except OSError:
            raise DatabaseError(
                f"{self.name} cannot be written, and {len(lines)} replies that were paid for "
                "are lost: see whether its disk is full or failing, then run the command again"
            ) from None

    def _move_from_spare(self) -> None:
        """Move replies from the spare space to the file."""
        if self._spare is None:
            return
        # No spare space, or the disk is still full: they stay there.
        with suppress(DatabaseError, OSError), self._spare.moved() as lines:
            replies = []
            for line in lines:
                with suppress(ValueError, TypeError):  # the last line may be incomplete
                    replies.append(CachedReply(**json.loads(line)))
            if replies:
                self.add(replies)

    def __iter__(self) -> Iterator[CachedReply]:
        """Iterate over all replies, sorted by key, reading a few rows at a time.

        Raises:
            DatabaseError: The file or a reply in it is damaged.
        """
        self._move_from_spare()
        last = ""
        while rows := self._database.read(
            f"SELECT * FROM replies WHERE key > ? ORDER BY key LIMIT {_ROWS_PER_QUERY}", (last,)
        ):
            for row in rows:
                yield self._validated(row)
            last = rows[-1][0]

    def of(self, identity: str) -> Iterator[CachedReply]:
        """Iterate over the replies of one LLM, sorted by key; see ``__iter__``."""
        llm = _identity_object(identity)
        return (stored for stored in self if stored.request["llm"] == llm)

    def add(self, replies: Iterable[CachedReply]) -> int:
        """Store replies from another cache, all or none, and return the number of new ones.

        Raises:
            DatabaseError: The file cannot be written or is damaged.
        """
        with self._database.transaction() as connection:
            return sum(
                connection.execute(
                    _INSERT, (reply.key, _canonical(reply.request), _canonical(reply.reply), reply.created)
                ).rowcount
                for reply in replies
            )

    def remove(self, keys: Sequence[str]) -> int:
        """Delete replies, free their disk space, and return the number deleted.

        Raises:
            DatabaseError: The file cannot be written or is damaged.
        """
        with self._database.transaction() as connection:
            n = sum(connection.execute("DELETE FROM replies WHERE key = ?", (key,)).rowcount for key in keys)
        self._database.compact()
        return n

    def close(self) -> None:
        """Close the file; the next use opens it again. A cache in memory is emptied."""
        self._database.close()

    def _validated(self, row: tuple[Any, ...]) -> CachedReply:
        key, request, reply, created = row
        try:
            stored = CachedReply(json.loads(request), json.loads(reply), created)
            if stored.key != key:
                raise ValueError("the request does not match the key")
            return stored
        except (ValueError, TypeError, RecursionError) as error:
            what = "not JSON" if isinstance(error, json.JSONDecodeError) else error
            raise DatabaseError(
                f"{self.name}: the reply with key {key} is damaged ({what}): restore the "
                "file from a copy, or move it elsewhere"
            ) from None


def request_key(identity: str, request: Request) -> str:
    """Return the ``CachedReply.key`` of the reply to a request.

    Args:
        identity: The LLM's identity.
        request: The request.
    """
    return _key(_request_text(_identity_object(identity), request))


def _check_fields(name: str, value: Any, fields: Mapping[str, type | tuple[type, ...]]) -> None:
    if not isinstance(value, dict) or set(value) != set(fields):
        raise ValueError(f"{name} should be an object of {', '.join(fields)}")
    for field, kind in fields.items():
        if not isinstance(value[field], kind) or isinstance(value[field], bool):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            names = {dict: "an object", str: "text", int: "a whole number"}
            raise ValueError(f"{name}.{field} should be {' or '.join(names[k] for k in kinds)}")


def _identity_object(identity: str) -> Any:
    """Return the identity as an object if it is JSON, so that the order of its fields does not matter."""
    try:
        value = json.loads(identity)
    except (ValueError, RecursionError):
        return identity
    return value if isinstance(value, dict) else identity


def _canonical(value: Any) -> str:
    # ASCII, because prompts may contain lone surrogates, which UTF-8 cannot encode, and NULs, which SQLite's tools
    # reject.
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _reply_fields(completion: Completion) -> dict[str, Any]:
    return {field: getattr(completion, field) for field in _REPLY_FIELDS}


def _keyed(llm: Any, requests: Iterable[Request]) -> list[tuple[str, str, Request]]:
    """Return the key, the text and the request itself of each request."""
    texts = [(_request_text(llm, request), request) for request in requests]
    return [(_key(text), text, request) for text, request in texts]


def _request_text(llm: Any, request: Request) -> str:
    return _canonical({"llm": llm, "prompt": request.prompt, "sample": request.sample})


def _key(request: str) -> str:
    return hashlib.sha256(request.encode()).hexdigest()
