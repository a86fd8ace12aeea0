"""An LLM that requests only replies that are not cached."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

from pmlm_env.llm.base import LLM, Completion, Reply, Request, StopSending
from pmlm_env.llm.storage.cache import ReplyCache
from pmlm_env.llm.storage.database import DatabaseError

_logger = logging.getLogger(__name__)
#: Seconds between two looks for replies that another process has asked for.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
#: Seconds of waiting after which a line says so.
_SILENT_WAIT = 10.0


class ReplayMissError(RuntimeError):
    """A replay needs a reply that is not cached. The run must stop, because a replay sends no requests."""


class CachedLLM(LLM):
    """Asks an LLM only for replies that are not cached, and stores each reply before returning it.

    Args:
        llm: Replies to requests that are not cached. Equal requests must be interchangeable: decoding is greedy, or
            ``Request.sample`` distinguishes samples.
        cache: Stores the replies; by default in memory.
        replay: Send no requests: a reply that is not cached is an error.

    Attributes:
        llm: The inner LLM.
        cache: The cache.
        replay: Whether no requests are sent.
        hits: Number of replies that needed no call; starts at 0 in an unpickled copy.
    """

    def __init__(self, llm: LLM, cache: ReplyCache | None = None, replay: bool = False) -> None:
        """Start with 0 hits."""
        self.llm = llm
        self.cache = ReplyCache() if cache is None else cache  # an empty cache is falsy
        self.replay = replay
        self.hits = 0

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the count of hits."""
        return {**self.__dict__, "hits": 0}

    @property
    def identity(self) -> str:
        """The identity of the inner LLM."""
        return self.llm.identity

    @property
    def is_remote(self) -> bool:
        """Whether prompts may leave this machine; never in a replay."""
        return self.llm.is_remote and not self.replay

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        """Reply to each request: first all cached replies in one batch, then the inner LLM's batches.

        Equal requests are sent once; the repeats come with the first, marked as cached. Of several processes that share
        the cache, one sends a request and the others wait for its reply.

        Raises:
            ReplayMissError: A replay lacks a reply. Nothing has been yielded.
            DatabaseError: The cache cannot be read or written.
        """
        identity = self.llm.identity
        cached = self.cache.get(identity, requests)
        missing: dict[Request, list[int]] = {}
        for index, request in enumerate(requests):
            if index not in cached:
                missing.setdefault(request, []).append(index)
        if missing and self.replay:
            n = len(requests) - len(cached)
            raise ReplayMissError(
                f"{n} of {len(requests)} replies are not in {self.cache.name}: this run differs from the cached one "
                "(another LLM, sampling, prompts or version); use the cached run's settings, or run without replay"
            )
        if cached:
            self.hits += len(cached)
            yield dict(cached)
        if not missing:
            return
        self.cache.check_writable()
        yield from self._send_or_wait(identity, missing)

    def _send_or_wait(
        self, identity: str, missing: dict[Request, list[int]]
    ) -> Generator[dict[int, Reply], None, None]:
        """Send what no other process has claimed, and wait for the replies to the rest.

        Args:
            identity: The identity of the inner LLM.
            missing: The indices of each request.
        """
        pause, waited = _FIRST_PAUSE, 0.0
        while True:
            with self.cache.claimed(identity, list(missing)) as claimed:
                stored = self._stored_meanwhile(identity, missing)
                if stored:
                    yield stored
                sent = [request for request in claimed if request in missing]
                if sent:
                    yield from self._send(identity, sent, missing)
                    pause, waited = _FIRST_PAUSE, 0.0
            if not missing:
                return
            if waited < _SILENT_WAIT <= waited + pause:
                _logger.info("Waiting for %d replies that another command has asked for", len(missing))
            time.sleep(pause)
            pause, waited = min(2 * pause, _LONGEST_PAUSE), waited + pause

    def _stored_meanwhile(self, identity: str, missing: dict[Request, list[int]]) -> dict[int, Reply]:
        """Take the requests whose replies are stored by now from ``missing``, and return the replies."""
        asked = list(missing)
        out: dict[int, Reply] = {}
        for i, reply in self.cache.get(identity, asked).items():
            out.update(dict.fromkeys(missing.pop(asked[i]), reply))
        self.hits += len(out)
        return out

    def _send(
        self, identity: str, sent: list[Request], missing: dict[Request, list[int]]
    ) -> Generator[dict[int, Reply], None, None]:
        """Send requests, store the replies, and take them from ``missing``."""
        batches = self.llm.replies(sent)
        with closing(batches):
            for batch in batches:
                completions = _completions(sent, batch)
                try:
                    completions = self._store(identity, completions)
                except DatabaseError:
                    self._stop(identity, sent, batches, completions)
                    raise
                out: dict[int, Reply] = {}
                for i, reply in batch.items():
                    first, *repeats = indices = missing.pop(sent[i])
                    if isinstance(reply, Completion):
                        reply = completions[sent[i]]
                        out[first] = reply
                        self.hits += len(repeats) + reply.cached
                        out.update(dict.fromkeys(repeats, replace(reply, cached=True)))
                    else:
                        out.update(dict.fromkeys(indices, reply))
                yield out

    def _store(self, identity: str, completions: dict[Request, Completion]) -> dict[Request, Completion]:
        try:
            return self.cache.put(identity, completions)
        except KeyboardInterrupt:  # store them nevertheless, because they are paid for
            self.cache.put(identity, completions)
            raise

    def _stop(
        self,
        identity: str,
        sent: list[Request],
        batches: Generator[dict[int, Reply], None, None],
        completions: dict[Request, Completion],
    ) -> None:
        """Send no more requests, wait for those in flight, and store their replies if possible.

        Args:
            identity: The identity of the inner LLM.
            sent: All requests to the inner LLM.
            batches: Its remaining batches.
            completions: Replies that could not be stored.

        Raises:
            DatabaseError: Replies are lost.
        """
        completions = dict(completions)
        try:
            with suppress(StopSending, RuntimeError, StopIteration):  # the generator may end in any of these ways
                completions.update(_completions(sent, batches.throw(StopSending())))
                while True:
                    completions.update(_completions(sent, next(batches)))
        finally:
            try:
                self._store(identity, completions)  # disk space may have been freed
            except DatabaseError:
                self.cache.put_in_spare(identity, completions)


def _completions(sent: list[Request], batch: Mapping[int, Reply]) -> dict[Request, Completion]:
    return {sent[i]: reply for i, reply in batch.items() if isinstance(reply, Completion)}
