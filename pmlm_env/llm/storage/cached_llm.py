"""An LLM that requests only replies that are not cached."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

from pmlm_env.llm.base import LLM, Completion, Reply, Request, StopSending
from pmlm_env.llm.storage.cache import ReplyCache
from pmlm_env.llm.storage.database import DatabaseError


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

        Equal requests are sent once; the repeats come with the first, marked as cached.

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
            n, where = len(requests) - len(cached), self.cache.path or "the cache in memory"
            raise ReplayMissError(
                f"{n} of {len(requests)} replies are not in {where}: this run differs from the cached one (another "
                "LLM, sampling, prompts or version); use the cached run's settings, or run without replay"
            )
        if cached:
            self.hits += len(cached)
            yield dict(cached)
        if not missing:
            return
        self.cache.check_writable()
        sent = list(missing)
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
                    first, *repeats = missing[sent[i]]
                    if isinstance(reply, Completion):
                        reply = completions[sent[i]]
                        out[first] = reply
                        self.hits += len(repeats) + reply.cached
                        out.update(dict.fromkeys(repeats, replace(reply, cached=True)))
                    else:
                        out.update(dict.fromkeys(missing[sent[i]], reply))
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
