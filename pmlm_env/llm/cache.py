"""Ask nothing twice: replies kept in a file that many runs can share."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pmlm_env.llm.base import LLM, Completion, Reply, Request
from pmlm_env.llm.database import Database, DatabaseError

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

    @property
    def path(self) -> Path | None:
        """The file; None = in memory."""
        return self._database.path

    def __len__(self) -> int:
        """How many replies are kept."""
        rows = self._database.read("SELECT COUNT(*) FROM replies")
        return int(rows[0][0]) if rows else 0

    def get(self, identity: str, requests: Sequence[Request]) -> dict[int, Completion]:
        """Return the replies that are kept, by their requests' places, marked as cached.

        Raises:
            DatabaseError: The file or a reply in it is not as it should be.
        """
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
                reply = {part: getattr(completion, part) for part in _REPLY_PARTS}
                key = _key(text)
                if not connection.execute(_INSERT, (key, text, _canonical(reply), now)).rowcount:
                    row = connection.execute("SELECT * FROM replies WHERE key = ?", (key,)).fetchone()
                    kept[request] = replace(self._checked(row).completion, cached=completion.cached)
        return kept

    def check_writable(self) -> None:
        """See that replies can be kept, before they are paid for.

        Raises:
            DatabaseError: They cannot.
        """
        with self._database.transaction():
            pass

    def __iter__(self) -> Iterator[KeptReply]:
        """Go through all that is kept, sorted by key, a part at a time.

        Raises:
            DatabaseError: The file or a reply in it is not as it should be.
        """
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
                "file, or remove it"
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
                had = {asked[i]: reply for i, reply in lot.items() if isinstance(reply, Completion)}
                had = self.cache.put(identity, had)
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


def _request(llm: Any, request: Request) -> str:
    return _canonical({"llm": llm, "prompt": request.prompt, "sample": request.sample})


def _key(request: str) -> str:
    return hashlib.sha256(request.encode()).hexdigest()
