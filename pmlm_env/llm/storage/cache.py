"""Ask nothing twice: replies kept in a file that many runs can share."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pmlm_env.llm.base import LLM, Completion, Reply, Request, StopAsking
from pmlm_env.llm.storage.database import Database, DatabaseError
from pmlm_env.llm.storage.spare import Spare

_SCHEMA = (
    "CREATE TABLE replies (key TEXT PRIMARY KEY, request TEXT NOT NULL, reply TEXT NOT NULL, created REAL NOT NULL)",
)
_INSERT = "INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?)"

#: How many rows a query asks for: SQLite's older limit on variables is 999.
_CHUNK = 900

_REQUEST_PARTS: dict[str, type | tuple[type, ...]] = {"llm": (dict, str), "prompt": str, "sample": int}
_REPLY_PARTS: dict[str, type | tuple[type, ...]] = {
    "text": str,
    "prompt_tokens": int,
    "completion_tokens": int,
    "finish_reason": str,
    "model": str,
}


class ReplayMissError(RuntimeError):
    """A run that should only repeat what is kept needs a reply that is not. It must stop: nothing may be asked."""


@dataclass(frozen=True, slots=True)
class KeptReply:
    """One line of the cache.

    Attributes:
        request: ``llm`` (the identity, as an object where it is JSON), ``prompt``, ``sample``.
        reply: ``text``, ``prompt_tokens``, ``completion_tokens``, ``finish_reason``, ``model``.
        created: When it was kept, in seconds since 1970.
    """

    request: dict[str, Any]
    reply: dict[str, Any]
    created: float

    def __post_init__(self) -> None:
        """Check every part.

        Raises:
            ValueError: One is not as it should be; the message says which, and quotes no prompt.
        """
        _check_parts("request", self.request, _REQUEST_PARTS)
        _check_parts("reply", self.reply, _REPLY_PARTS)
        if self.reply["finish_reason"] not in ("stop", "length"):
            raise ValueError("reply.finish_reason should be stop or length")
        if isinstance(self.created, bool) or not isinstance(self.created, (int, float)):
            raise ValueError("created should be a number")
        if not 0 <= self.created < 1e11:  # the year 5138
            raise ValueError("created should be seconds since 1970")

    @property
    def key(self) -> str:
        """The SHA-256 of the request as canonical JSON."""
        return _key(_canonical(self.request))

    @property
    def identity(self) -> str:
        """The LLM's identity as readable text."""
        llm = self.request["llm"]
        return llm if isinstance(llm, str) else json.dumps(llm, sort_keys=True, ensure_ascii=False)

    @property
    def completion(self) -> Completion:
        """The reply as an LLM's."""
        return Completion(**self.reply, cached=True)


class ReplyCache:
    """Replies by request: LLM (endpoint, model, every sampling parameter), prompt and sample number.

    Processes may share a file, and be killed at any moment: what ``put`` has returned from is there. The reply that
    comes first stays. Errors are never kept.

    Args:
        path: The file, made when the first reply is put; None = in memory.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        """Remember where."""
        self._database = Database(path, "reply cache", _SCHEMA)
        file = self._database.path
        self._spare = None if file is None else Spare(file.with_name(f"{file.name}-spare"))

    @property
    def path(self) -> Path | None:
        """The file; None = in memory."""
        return self._database.path

    def __len__(self) -> int:
        """How many replies are kept."""
        self._take_up()
        rows = self._database.read("SELECT COUNT(*) FROM replies")
        return int(rows[0][0]) if rows else 0

    def get(self, identity: str, requests: Sequence[Request]) -> dict[int, Completion]:
        """Return the replies that are kept, by their requests' places, marked as cached.

        Raises:
            DatabaseError: The file or a reply in it is not as it should be.
        """
        self._take_up()
        llm = _llm(identity)
        places: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            places.setdefault(_key(_request(llm, request)), []).append(place)
        keys = list(places)
        found: dict[int, Completion] = {}
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK]
            marks = ",".join("?" * len(chunk))
            for row in self._database.read(f"SELECT * FROM replies WHERE key IN ({marks})", chunk):
                completion = self._checked(row).completion
                found.update(dict.fromkeys(places[row[0]], completion))
        return found

    def put(self, identity: str, completions: Mapping[Request, Completion]) -> dict[Request, Completion]:
        """Keep replies, all or none.

        Returns:
            What is kept now: where another process was faster, its reply, which is what a replay will see.

        Raises:
            DatabaseError: The file cannot be written or is not as it should be.
        """
        if not completions:
            return {}
        llm, now = _llm(identity), time.time()
        kept = dict(completions)
        with self._database.transaction() as connection:
            for request, completion in completions.items():
                text = _request(llm, request)
                key = _key(text)
                if not connection.execute(_INSERT, (key, text, _canonical(_reply(completion)), now)).rowcount:
                    row = connection.execute("SELECT * FROM replies WHERE key = ?", (key,)).fetchone()
                    kept[request] = replace(self._checked(row).completion, cached=completion.cached)
        return kept

    def check_writable(self) -> None:
        """See that replies can be kept, before they are paid for.

        Raises:
            DatabaseError: They cannot.
        """
        self._database.check_writable()
        if self._spare is not None:
            try:
                self._spare.hold()
            except OSError as error:
                raise DatabaseError(
                    f"{self._spare.path} cannot be written ({error.strerror}), so no more is asked: make room on the "
                    "disk, then run the command again (pmlm train with --resume)"
                ) from None

    def set_aside(self, identity: str, completions: Mapping[Request, Completion]) -> None:
        """Keep replies that have been paid for, though the file cannot be written: it gets them when it can be.

        Raises:
            DatabaseError: They are lost.
        """
        llm, now = _llm(identity), time.time()
        lines = []
        for request, completion in completions.items():
            kept = {"request": json.loads(_request(llm, request)), "reply": _reply(completion), "created": now}
            lines.append(_canonical(kept))
        try:
            if self._spare is None:
                raise OSError
            self._spare.put(lines)
        except OSError:
            raise DatabaseError(
                f"{self.path or 'the cache in memory'} cannot be written, and {len(lines)} replies that were paid for "
                "are lost: see whether its disk is full or failing, then run the command again"
            ) from None

    def _take_up(self) -> None:
        """Put what was set aside where it belongs."""
        if self._spare is None or not (lines := self._spare.lines()):
            return
        replies = []
        for line in lines:
            with suppress(ValueError, TypeError):  # a last line that was not written to its end
                replies.append(KeptReply(**json.loads(line)))
        with suppress(DatabaseError, OSError):  # it is still full: they stay set aside
            self.add(replies)
            self._spare.clear()

    def __iter__(self) -> Iterator[KeptReply]:
        """Go through all that is kept, sorted by key, a part at a time.

        Raises:
            DatabaseError: The file or a reply in it is not as it should be.
        """
        self._take_up()
        last = ""
        while rows := self._database.read(f"SELECT * FROM replies WHERE key > ? ORDER BY key LIMIT {_CHUNK}", (last,)):
            for row in rows:
                yield self._checked(row)
            last = rows[-1][0]

    def add(self, replies: Iterable[KeptReply]) -> int:
        """Keep replies from elsewhere, all or none, and say how many were new.

        Raises:
            DatabaseError: The file cannot be written or is not as it should be.
        """
        with self._database.transaction() as connection:
            return sum(
                connection.execute(
                    _INSERT, (reply.key, _canonical(reply.request), _canonical(reply.reply), reply.created)
                ).rowcount
                for reply in replies
            )

    def remove(self, keys: Sequence[str]) -> int:
        """Forget replies, give their room back to the disk, and say how many went.

        Raises:
            DatabaseError: The file cannot be written or is not as it should be.
        """
        with self._database.transaction() as connection:
            n = sum(connection.execute("DELETE FROM replies WHERE key = ?", (key,)).rowcount for key in keys)
        self._database.compact()
        return n

    def close(self) -> None:
        """Close the file; the next use opens it again. One in memory is empty then."""
        self._database.close()

    def _checked(self, row: tuple[Any, ...]) -> KeptReply:
        key, request, reply, created = row
        try:
            kept = KeptReply(json.loads(request), json.loads(reply), created)
            if kept.key != key:
                raise ValueError("the request is another than the key's")
            return kept
        except (ValueError, TypeError, RecursionError) as error:
            what = "no JSON" if isinstance(error, json.JSONDecodeError) else error
            raise DatabaseError(
                f"{self.path or 'the cache in memory'}: the reply with key {key} is damaged ({what}): restore the "
                "file from a copy, or move it elsewhere"
            ) from None


class CachedLLM(LLM):
    """Asks an LLM only for what is not kept, and keeps each reply before it hands it on.

    Args:
        llm: Who is asked where no reply is kept. Another reply to the same request should do as well: greedy, or
            told apart by ``Request.sample``.
        cache: Where replies are kept; by default in memory.
        replay: Ask nothing: a reply that is not kept is an error.

    Attributes:
        llm: Likewise.
        cache: Likewise.
        replay: Likewise.
        hits: How many replies cost no call; a pickle's twin starts at 0.
    """

    def __init__(self, llm: LLM, cache: ReplyCache | None = None, replay: bool = False) -> None:
        """Start without hits."""
        self.llm = llm
        self.cache = ReplyCache() if cache is None else cache  # an empty cache is falsy
        self.replay = replay
        self.hits = 0

    def __getstate__(self) -> dict[str, Any]:
        """Leave the count behind."""
        return {**self.__dict__, "hits": 0}

    @property
    def identity(self) -> str:
        """The inner LLM's."""
        return self.llm.identity

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        """Reply to each request: first all that is kept, in one lot, then as the inner LLM replies.

        Equal requests are asked once; the repeats come with the first, marked as cached.

        Raises:
            ReplayMissError: On replay, one is not kept. Nothing is yielded then.
            DatabaseError: The cache cannot be read or written.
        """
        identity = self.llm.identity
        kept = self.cache.get(identity, requests)
        missing: dict[Request, list[int]] = {}
        for place, request in enumerate(requests):
            if place not in kept:
                missing.setdefault(request, []).append(place)
        if missing and self.replay:
            n, where = len(requests) - len(kept), self.cache.path or "the cache in memory"
            raise ReplayMissError(
                f"{n} of {len(requests)} replies are not in {where}: this run differs from the kept one (another LLM, "
                "sampling, prompts or version); use the kept run's settings, or run without replay"
            )
        if kept:
            self.hits += len(kept)
            yield dict(kept)
        if not missing:
            return
        self.cache.check_writable()
        asked = list(missing)
        lots = self.llm.replies(asked)
        with closing(lots):
            for lot in lots:
                had = _completions(asked, lot)
                try:
                    had = self._keep(identity, had)
                except DatabaseError:
                    self._stop(identity, asked, lots, had)
                    raise
                out: dict[int, Reply] = {}
                for i, reply in lot.items():
                    first, *repeats = missing[asked[i]]
                    if isinstance(reply, Completion):
                        reply = had[asked[i]]
                        out[first] = reply
                        self.hits += len(repeats) + reply.cached
                        out.update(dict.fromkeys(repeats, replace(reply, cached=True)))
                    else:
                        out.update(dict.fromkeys(missing[asked[i]], reply))
                yield out

    def _keep(self, identity: str, had: dict[Request, Completion]) -> dict[Request, Completion]:
        try:
            return self.cache.put(identity, had)
        except KeyboardInterrupt:  # they are paid for
            self.cache.put(identity, had)
            raise

    def _stop(
        self,
        identity: str,
        asked: list[Request],
        lots: Generator[dict[int, Reply], None, None],
        had: dict[Request, Completion],
    ) -> None:
        """Ask for no more, wait for what is under way, and keep it as far as that can be.

        Args:
            identity: The inner LLM's.
            asked: All requests.
            lots: What is under way.
            had: What could not be kept.

        Raises:
            DatabaseError: Replies are lost.
        """
        had = dict(had)
        try:
            with suppress(StopAsking, RuntimeError, StopIteration):  # whatever else ends it, too
                had.update(_completions(asked, lots.throw(StopAsking())))
                while True:
                    had.update(_completions(asked, next(lots)))
        finally:
            try:
                self._keep(identity, had)  # somebody may have made room
            except DatabaseError:
                self.cache.set_aside(identity, had)


def _completions(asked: list[Request], lot: Mapping[int, Reply]) -> dict[Request, Completion]:
    return {asked[i]: reply for i, reply in lot.items() if isinstance(reply, Completion)}


def _check_parts(name: str, value: Any, parts: Mapping[str, type | tuple[type, ...]]) -> None:
    if not isinstance(value, dict) or set(value) != set(parts):
        raise ValueError(f"{name} should be an object of {', '.join(parts)}")
    for part, kind in parts.items():
        if not isinstance(value[part], kind) or isinstance(value[part], bool):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            names = {dict: "an object", str: "text", int: "a whole number"}
            raise ValueError(f"{name}.{part} should be {' or '.join(names[k] for k in kinds)}")


def _llm(identity: str) -> Any:
    """The identity as JSON object, so that the order of its parts does not matter; any other as it is."""
    try:
        value = json.loads(identity)
    except (ValueError, RecursionError):
        return identity
    return value if isinstance(value, dict) else identity


def _canonical(value: Any) -> str:
    # In ASCII, for UTF-8 cannot hold the lone surrogates, nor SQLite's tools the NULs, that a prompt may have.
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _reply(completion: Completion) -> dict[str, Any]:
    return {part: getattr(completion, part) for part in _REPLY_PARTS}


def _request(llm: Any, request: Request) -> str:
    return _canonical({"llm": llm, "prompt": request.prompt, "sample": request.sample})


def _key(request: str) -> str:
    return hashlib.sha256(request.encode()).hexdigest()
