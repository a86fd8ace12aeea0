"""A downstream LLM behind any OpenAI-compatible chat endpoint."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import ssl
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_result,
    wait_random_exponential,
)

from pmlm_env.llm.background import as_they_come, event_loop
from pmlm_env.llm.base import LLM, LLMError, OnTruncated, Reply, Request, StopAsking
from pmlm_env.llm.budget import Budget, BudgetExceededError
from pmlm_env.llm.chat_answers import Answer, Attempt, read_answer
from pmlm_env.llm.database import DatabaseError
from pmlm_env.llm.pacing import Pacer

_MAX_BACKOFF = 60.0
#: Answers that are no replies are likely billed all the same, so after so many no more is asked.
_MOST_USELESS = 3
#: Requests are sent so many seconds apart at least: sent all at once, they come back all at once, each waiting for all.
_APART = 0.0015
#: Bytes of an answer; a reply of a few thousand tokens has some ten thousand.
_LONGEST_ANSWER = 4_000_000
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_PASSING = (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError, httpx.DecodingError)


@dataclass(frozen=True)
class OpenAIChat(LLM):
    """Chat completions over HTTP: OpenAI, the compatible endpoints of Gemini and Zhipu, vLLM, Ollama, ...

    Prompts go to ``base_url`` and nowhere else, and are not logged. The key is read from the environment for each
    request and kept nowhere. Requests that fail for a passing reason (connection lost, timeout, HTTP 408, 409, 429,
    5xx) are repeated after pauses that grow, with full jitter, or as long as ``Retry-After`` says; so are, twice at
    most, answers that are no replies. Several threads and processes may use one client; each process has a pool of
    connections of its own.

    Attributes:
        model: The model's name at the endpoint.
        base_url: The endpoint up to, not including, ``/chat/completions``: ``https``, or on this machine.
        api_key_env: The environment variable that holds the key. An endpoint on this machine needs none.
        max_tokens: Most tokens of a reply.
        temperature: Sampling temperature; 0 = greedy; None leaves it out, for models that refuse it.
        seed: Sampling seed of a prompt's first reply, one more for each further one; None leaves it out, for
            endpoints that refuse it.
        system_prompt: The system turn before every prompt; None = no such turn.
        on_truncated: What becomes of a reply cut at ``max_tokens``: ``"error"``, or ``"keep"`` it as it is.
        max_tokens_name: What the endpoint calls ``max_tokens``.
        extra_body: More that every request holds, such as what switches thinking off.
        concurrency: Most requests under way at once.
        requests_per_minute: Most that this process starts in a minute; None = no limit.
        tokens_per_minute: Likewise, tokens in and out.
        connect_timeout: Seconds to wait for a connection.
        read_timeout: Seconds to wait for the next part of an answer.
        tries: Most requests for one reply, the first included.
        patience: Most seconds for one request; no try begins later than this after the first.
        backoff: Longest pause before the second try, in seconds; it doubles from try to try, up to a minute.
        allow_http: Whether prompts may go unencrypted to another machine.
        budget: Where every request is booked before it is sent.
    """

    model: str
    base_url: str = "https://api.openai.com/v1"
    api_key_env: str = "OPENAI_API_KEY"
    max_tokens: int = 256
    temperature: float | None = 0.0
    seed: int | None = 0
    system_prompt: str | None = None
    on_truncated: OnTruncated = "error"
    max_tokens_name: str = "max_tokens"
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int = 8
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    connect_timeout: float = 10.0
    read_timeout: float = 120.0
    tries: int = 20
    patience: float = 600.0
    backoff: float = 1.0
    allow_http: bool = False
    budget: Budget = field(default_factory=Budget, compare=False, repr=False)
    _lines: dict[int, _Line] = field(default_factory=dict, init=False, repr=False, compare=False)  # by process

    def __post_init__(self) -> None:
        """Check the settings; opens no connection.

        Raises:
            ValueError: A setting is out of range, or ``base_url`` will not do.
        """
        for name in ("max_tokens", "concurrency", "tries"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")
        for name in ("requests_per_minute", "tokens_per_minute", "connect_timeout", "read_timeout", "patience"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be positive")
        for name in ("temperature", "backoff"):
            if getattr(self, name) is not None and not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must not be negative")
        if self.on_truncated not in ("error", "keep"):
            raise ValueError(f"on_truncated is {self.on_truncated!r}: use 'error' or 'keep'")
        object.__setattr__(self, "base_url", _checked(self.base_url, self.allow_http))

    @property
    def identity(self) -> str:
        """Endpoint, model and all that shapes the reply, as JSON with sorted keys; never the key."""
        parts = ("base_url", "model", "max_tokens", "temperature", "seed", "system_prompt", "on_truncated")
        more = {"extra_body": dict(self.extra_body)} if self.extra_body else {}
        return json.dumps({**{part: getattr(self, part) for part in parts}, **more}, sort_keys=True)

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        """Reply to each request, as soon as may be; closing the generator cancels what is under way.

        Where the endpoint tells no usage, a completion's token counts are 0 and the budget keeps the upper bound.

        Raises:
            LLMError: The endpoint needs a key and ``api_key_env`` holds none; nothing was sent.
            BudgetExceededError: The rest was not asked for.
        """
        if not requests:
            return
        self.check_key()

        waiting = deque(enumerate(requests))

        def work(put: Callable[[tuple[int, Reply]], None]) -> Coroutine[Any, Any, None]:
            return self._work(waiting, put)

        with closing(as_they_come(work)) as lots:
            for lot in lots:
                try:
                    yield dict(lot)
                except StopAsking:
                    waiting.clear()

    def check_key(self) -> None:
        """See that the environment holds a key where one is needed.

        Raises:
            LLMError: It does not.
        """
        self._key()

    def close(self) -> None:
        """Close the connections; the next batch opens new ones."""
        line = self._lines.pop(os.getpid(), None)
        if line is not None:
            asyncio.run_coroutine_threadsafe(line.close(), event_loop()).result()

    def __getstate__(self) -> dict[str, Any]:
        """Return the settings without the connections."""
        return {**self.__dict__, "_lines": {}}

    async def _work(self, waiting: deque[tuple[int, Request]], put: Callable[[tuple[int, Reply]], None]) -> None:
        """Hand out the replies, at most ``concurrency`` requests under way.

        A used-up budget, or one that can no longer be written, stops new ones only.
        """
        line = self._line()
        refusals: list[BudgetExceededError | DatabaseError] = []

        async def worker() -> None:
            while not refusals:
                try:
                    place, request = waiting.popleft()
                except IndexError:
                    return
                try:
                    put((place, await self._complete(line, request)))
                except (BudgetExceededError, DatabaseError) as refusal:
                    refusals.append(refusal)

        workers = [asyncio.ensure_future(worker()) for _ in range(min(self.concurrency, len(waiting)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        if refusals:
            raise refusals[0]

    def _line(self) -> _Line:
        """Return this process's connections; to be called on the event loop."""
        pid = os.getpid()
        if pid not in self._lines:
            clients: asyncio.LifoQueue[httpx.AsyncClient | None] = asyncio.LifoQueue()
            for _ in range(self.concurrency):
                clients.put_nowait(None)
            trust_env = not _is_this_machine(self.base_url)  # a proxy would carry local prompts abroad
            most = min(self.requests_per_minute or 60 / _APART, 60 / _APART)
            pacers = Pacer(most), Pacer(self.tokens_per_minute)
            timeout = httpx.Timeout(self.read_timeout, connect=self.connect_timeout, pool=None)
            self._lines[pid] = _Line(
                httpx.URL(f"{self.base_url}/chat/completions"),
                {"timeout": timeout.as_dict()},
                clients,
                httpx.create_ssl_context(trust_env=trust_env),
                trust_env,
                *pacers,
            )
        return self._lines[pid]

    def _new_client(self, line: _Line) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # else replies might hang on earlier ones
            verify=line.tls,
            trust_env=line.trust_env,
        )

    async def _complete(self, line: _Line, request: Request) -> Reply:
        # Failures come back as values: an httpx exception, chained or in a traceback, would hold the key.
        useless, first = 0, float("inf")

        async def once() -> Attempt:
            nonlocal useless, first
            guess = await self._turn(line, request)
            first = min(first, time.monotonic())  # waiting for one's turn takes no patience
            attempt = await self._ask(line, request, guess)
            useless += attempt.useless
            return attempt

        def stop(state: RetryCallState) -> bool:
            begins = time.monotonic() + state.upcoming_sleep
            return useless >= _MOST_USELESS or state.attempt_number >= self.tries or begins > first + self.patience

        retrying = AsyncRetrying(
            retry=retry_if_result(lambda attempt: attempt.again),
            stop=stop,
            wait=self._pause,
            retry_error_callback=_last_attempt,
        )
        attempt: Attempt = await retrying(once)
        if attempt.reply is not None:
            return attempt.reply
        n = retrying.statistics.get("attempt_number", 1)
        tries = f" (tried {n} times)" if n > 1 else ""
        return LLMError(f"{self.model} at {self.base_url}: {attempt.error}{tries}")

    def _pause(self, state: RetryCallState) -> float:
        asked = _last_attempt(state).retry_after
        # Not less than usual: some servers ask for a pause of 0, and others' clocks are behind.
        return max(asked or 0.0, wait_random_exponential(self.backoff, _MAX_BACKOFF)(state))

    async def _turn(self, line: _Line, request: Request) -> float:
        """Wait until the limits per minute let the request go; return how many tokens it was taken for."""
        # English has about four letters a token; corrected when the tokens are known.
        guess = len((self.system_prompt or "") + request.prompt) / 4 + self.max_tokens
        now = time.monotonic()
        await asyncio.sleep(max(line.requests.book(1, now), line.tokens.book(guess, now)))
        return guess

    async def _ask(self, line: _Line, request: Request, guess: float) -> Attempt:
        """Wait for a connection, book the request, send it, and book what it has cost."""
        client = await line.clients.get()
        try:
            booked = self.budget.reserve((self.system_prompt or "") + request.prompt, self.max_tokens)
            client = client or self._new_client(line)
            attempt = await asyncio.wait_for(self._send(line, client, request), self.patience)
        except asyncio.TimeoutError:  # an answer that drips, byte by byte
            attempt = Attempt(error=f"no whole answer within {self.patience:g} s; see whether the endpoint is up")
        finally:
            line.clients.put_nowait(client)
        if not attempt.sent:
            self.budget.settle(booked, 0, 0, calls=0)
        elif attempt.tokens is not None:
            self.budget.settle(booked, *attempt.tokens)
            line.tokens.correct(sum(attempt.tokens) - guess)
        if attempt.retry_after:
            line.requests.hold(time.monotonic() + min(attempt.retry_after, self.patience))
        return attempt

    async def _send(self, line: _Line, client: httpx.AsyncClient, wanted: Request) -> Attempt:
        system = [] if self.system_prompt is None else [{"role": "system", "content": self.system_prompt}]
        body = {
            **self.extra_body,
            "model": self.model,
            "messages": [*system, {"role": "user", "content": wanted.prompt}],
            self.max_tokens_name: self.max_tokens,
            **({} if self.temperature is None else {"temperature": self.temperature}),
            **({} if self.seed is None else {"seed": self.seed + wanted.sample}),
        }
        key = self._key()
        headers = {"Content-Type": "application/json", "Accept": "*/*", "User-Agent": "pmlm-env"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        try:
            # json.dumps escapes what UTF-8 cannot encode; httpx's own json= would raise with the prompt in the error.
            request = httpx.Request(
                "POST", line.url, content=json.dumps(body), headers=headers, extensions=line.timeouts
            )
            response = await client.send(request, stream=True)
            try:
                raw = bytearray()
                async for part in response.aiter_bytes():
                    raw += part
                    if len(raw) > _LONGEST_ANSWER:
                        return Attempt(error="the answer has no end; check base_url", useless=True)
            finally:
                await response.aclose()
            answer = Answer(response.status_code, response.headers, bytes(raw))
        except _UNSENT as error:
            return Attempt(error=_no_answer(error, "see whether the endpoint is up"), again=True, sent=False)
        except _PASSING as error:
            return Attempt(error=_no_answer(error, "see whether the endpoint is up"), again=True)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            return Attempt(error=_no_answer(error, "check base_url"))
        return read_answer(answer, wanted.prompt, key, self.on_truncated)

    def _key(self) -> str:
        key = os.environ.get(self.api_key_env, "").strip()
        error = ""
        if not key and not _is_this_machine(self.base_url):
            error = f"{self.base_url} needs a key: put it in the environment variable {self.api_key_env}"
        elif not all("!" <= letter <= "~" for letter in key):  # httpx would quote such a key in its error
            error = f"the environment variable {self.api_key_env} holds no key: it has blanks or odd letters"
        if error:
            del key  # some show local variables with a traceback
            raise LLMError(error)
        return key


@dataclass(frozen=True)
class _Line:
    """One process's way to the endpoint.

    A client for each connection, the one used last on top, None for one that was not needed yet: httpx's own pool asks
    all its connections about each request, and with a hundred of them takes ten milliseconds for it.
    """

    url: httpx.URL
    timeouts: dict[str, Any]
    clients: asyncio.LifoQueue[httpx.AsyncClient | None]
    tls: ssl.SSLContext
    trust_env: bool
    requests: Pacer
    tokens: Pacer

    async def close(self) -> None:
        """Close the connections that are idle; who comes later opens new ones."""
        idle = [self.clients.get_nowait() for _ in range(self.clients.qsize())]
        for _ in idle:
            self.clients.put_nowait(None)
        for client in idle:
            if client is not None:
                await client.aclose()


def _last_attempt(state: RetryCallState) -> Attempt:
    assert state.outcome is not None
    attempt: Attempt = state.outcome.result()
    return attempt


def _no_answer(error: Exception, advice: str) -> str:
    return f"no answer ({type(error).__name__}); {advice}"


@lru_cache(maxsize=16)
def _is_this_machine(url: str) -> bool:
    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _checked(base_url: str, allow_http: bool) -> str:
    try:
        url = httpx.URL(base_url.strip().rstrip("/"))
    except httpx.InvalidURL:
        raise ValueError("base_url is no URL; it should look like https://api.openai.com/v1") from None
    if url.userinfo or url.query or url.fragment:  # may be secret: not quoted
        raise ValueError("base_url must not hold a user, query or fragment; put the key in the environment")
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"base_url {base_url!r} should look like https://api.openai.com/v1")
    if url.scheme == "http" and not allow_http and not _is_this_machine(str(url)):
        raise ValueError(
            f"base_url {base_url!r} would send prompts unencrypted to another machine: use https, or write "
            "allow_http = true in the providers' file"
        )
    return str(url)
