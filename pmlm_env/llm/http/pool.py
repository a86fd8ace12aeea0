"""Several endpoints of one model behind one name: weights, failover, and limits for each."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from pmlm_env.llm.base import LLM, LLMError, Reply, Request
from pmlm_env.llm.http.chat_answers import Attempt
from pmlm_env.llm.http.endpoint import MAX_BACKOFF, MAX_UNUSABLE, OpenAIChat
from pmlm_env.llm.http.sending import Complete, send_all

#: Longest pause until the next look for an endpoint that may be asked, in seconds.
_LOOK_AGAIN = 0.05


@dataclass
class _Member:
    """An endpoint, and how it has fared in one batch of requests.

    Attributes:
        chat: The endpoint.
        weight: Its share of the requests, relative to the others'.
        served: How much of its share it has had: increases by 1 / weight with each request.
        in_flight: Number of requests in flight.
        failures: Number of transient failures in a row.
        rests_until: When it may be asked again, on the monotonic clock.
        used_up: Why it cannot be asked at all, such as a used-up quota; None if it can.
    """

    chat: OpenAIChat
    weight: float
    served: float = 0.0
    in_flight: int = 0
    failures: int = 0
    rests_until: float = 0.0
    used_up: Attempt | None = None

    def is_free(self, now: float) -> bool:
        """Whether it may be asked now: after a failure, by one request at a time."""
        most = 1 if self.failures else self.chat.concurrency
        return self.used_up is None and self.rests_until <= now and self.in_flight < most


class PooledChat(LLM):
    """Endpoints that serve the same model with the same settings, so that it does not matter which one replies.

    Each request goes to an endpoint that is up and below its limits; of several, their shares are those of the weights.
    If an endpoint fails for a transient reason, the request goes to another one at once, and the endpoint rests for a
    while that doubles with each failure. Every try is booked. Replies are cached under the pool's name, whichever
    endpoint gave them.

    Args:
        name: The name of the pool.
        chats: The endpoints, which have the same model, sampling and budget, and their own limits.
        weights: The weight of each endpoint.
        concurrency: Maximum number of requests in flight at all endpoints together; by default the sum of theirs.
    """

    def __init__(
        self, name: str, chats: Sequence[OpenAIChat], weights: Sequence[float], concurrency: int | None = None
    ) -> None:
        """Store the arguments; nothing is opened yet."""
        self.name, self.chats, self.weights = name, tuple(chats), tuple(weights)
        self.concurrency = sum(chat.concurrency for chat in chats) if concurrency is None else concurrency

    @property
    def identity(self) -> str:
        """The pool's name, the model, and all settings that affect the reply, as JSON."""
        own = json.loads(self.chats[0].identity)
        shared = {part: value for part, value in own.items() if part not in ("base_url", "headers", "query")}
        return json.dumps({"endpoints": self.name, **shared}, sort_keys=True)

    @property
    def is_remote(self) -> bool:
        """Whether one of the endpoints is on another machine."""
        return any(chat.is_remote for chat in self.chats)

    def check_environment(self) -> None:
        """Check that the environment has all keys, and valid proxy and certificate settings.

        Raises:
            LLMError: It has not. The message names the variable.
        """
        for chat in self.chats:
            chat.check_environment()

    def tried_once_each(self) -> PooledChat:
        """Return a pool of the same endpoints that gives up after as many tries as it has endpoints."""
        chats = [replace(chat, tries=len(self.chats)) for chat in self.chats]
        return PooledChat(self.name, chats, self.weights, self.concurrency)

    def close(self) -> None:
        """Close all connections; the next batch opens new ones."""
        for chat in self.chats:
            chat.close()

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        """Yield replies in completion order; closing the generator cancels the requests in flight.

        Raises:
            LLMError: The environment lacks a key or a header's value; nothing was sent.
            BudgetExceededError: The remaining requests were not sent.
        """
        if not requests:
            return
        self.check_environment()
        yield from send_all(requests, self.concurrency, self._begin)

    def _begin(self) -> Complete:
        """Return what gets the reply to one request of a batch."""
        return partial(
            self._complete,
            _Choice([_Member(chat, weight) for chat, weight in zip(self.chats, self.weights, strict=True)]),
        )

    async def _complete(self, choice: _Choice, request: Request) -> Reply:
        """Try endpoints until one replies, as often and as long as one endpoint would be tried."""
        tries = unusable = 0
        deadline = float("inf")
        while True:
            member = await choice.next()
            if isinstance(member, Attempt):
                return LLMError(f"{self.name}, none of whose endpoints can be asked: {member.error}")
            chat = member.chat
            try:
                attempt, began = await chat.attempt(request)
            finally:
                member.in_flight -= 1
            deadline = min(deadline, began + chat.patience)  # waiting for the rate limits does not count
            choice.learn(member, attempt)
            if attempt.reply is not None:
                return attempt.reply
            tries, unusable = tries + 1, unusable + attempt.unusable
            over = tries >= chat.tries or unusable >= MAX_UNUSABLE or time.monotonic() > deadline
            if over or not (attempt.retry or attempt.used_up):
                times = f" (tried {tries} times)" if tries > 1 else ""
                return LLMError(f"{chat.model} at {chat.base_url} in {self.name}: {attempt.error}{times}")


class _Choice:
    """Chooses the endpoint of each request.

    Shares follow start-time fair queueing (Goyal et al., 1996, https://doi.org/10.1145/248157.248171): an endpoint that
    was down, or had nothing to do, makes up for nothing afterwards.
    """

    def __init__(self, members: Sequence[_Member]) -> None:
        self._members, self._clock = members, 0.0

    async def next(self) -> _Member | Attempt:
        """Wait for an endpoint that may be asked, and count the request; if there will be none, return why."""
        while True:
            now = time.monotonic()
            free = [member for member in self._members if member.is_free(now)]
            if free:
                chosen = min(free, key=self._order)
                self._clock = max(self._clock, chosen.served)
                chosen.served = self._clock + 1 / chosen.weight
                chosen.in_flight += 1
                return chosen
            reasons = [member.used_up for member in self._members if member.used_up is not None]
            if len(reasons) == len(self._members):
                return reasons[0]
            await asyncio.sleep(_LOOK_AGAIN)

    def _order(self, member: _Member) -> tuple[float, float, float]:
        """Return what is smallest for the best choice: one whose rate limits make it wait least, then its share."""
        wait = member.chat.wait()
        return (wait if wait > _LOOK_AGAIN else 0.0), max(self._clock, member.served), random.random()

    def learn(self, member: _Member, attempt: Attempt) -> None:
        """Let an endpoint rest after a transient failure, and leave out one whose quota is used up."""
        patience = member.chat.patience
        if attempt.used_up or (attempt.retry_after or 0.0) > patience:
            member.used_up = attempt
        elif attempt.retry and not attempt.unusable:
            now = time.monotonic()
            if member.rests_until <= now:  # requests that were in flight together fail together, and count once
                member.failures += 1
            longest = min(MAX_BACKOFF, member.chat.backoff * 2.0 ** (member.failures - 1))
            pause = max(random.uniform(0.5, 1) * longest, attempt.retry_after or 0.0)
            member.rests_until = max(member.rests_until, now + pause)
        elif attempt.reply is not None:
            member.failures = 0
