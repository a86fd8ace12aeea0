"""A downstream LLM behind any OpenAI-compatible chat endpoint."""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_result,
    wait_random_exponential,
)

from pmlm_env.llm.base import LLM, LLMError, OnTruncated, Reply, Request, StopAsking
from pmlm_env.llm.http.background import as_they_come, event_loop
from pmlm_env.llm.http.chat_answers import Attempt, read_answer
from pmlm_env.llm.http.pacing import Pacer
from pmlm_env.llm.http.server_errors import without_key
from pmlm_env.llm.http.settings import (
    check_body,
    check_headers,
    check_query,
    check_variable,
    checked_base_url,
    holds_key,
    is_this_machine,
    secret,
    variable_of,
)
from pmlm_env.llm.http.transport import Route
from pmlm_env.llm.storage.budget import Budget, BudgetExceededError
from pmlm_env.llm.storage.database import DatabaseError

_MAX_BACKOFF = 60.0
#: Answers that are no replies are likely billed all the same, so after so many no more is asked.
_MOST_USELESS = 3
#: Requests are sent so many seconds apart at least: sent all at once, they come back all at once, each waiting for all.
_APART = 0.0015
#: A client waits for each connection, so that many more would fill the memory.
_MOST_CONNECTIONS = 10_000
_MOST = 1e9  # of seconds, tries or anything else: more is a slip


@dataclass(frozen=True)
class OpenAIChat(LLM):
    """Chat completions over HTTP: OpenAI, the compatible endpoints of Gemini and Zhipu, vLLM, Ollama, ...

    Prompts go to ``base_url`` and nowhere else, and are not logged. The key is read from the environment for each
    request and kept nowhere. Requests that fail for a passing reason (connection lost, timeout, HTTP 429, 5xx, ...)
    are repeated after pauses that grow, with full jitter, or as long as the server says; so are, twice at most,
    answers that are no replies. Several threads and processes may use one client; each process has a pool of
    connections of its own.

    Attributes:
        model: The model's name at the endpoint.
        base_url: The endpoint up to, not including, ``/chat/completions``: ``https``, or on this machine.
        api_key_env: The environment variable that holds the key. An endpoint on this machine needs none. ``""`` sends
            no ``Authorization``.
        max_tokens: Most tokens of a reply.
        temperature: Sampling temperature; 0 = greedy; None leaves it out, for models that refuse it.
        seed: Sampling seed of a prompt's first reply, one more for each further one; None leaves it out, for
            endpoints that refuse it.
        system_prompt: The system turn before every prompt; None = no such turn.
        on_truncated: What becomes of a reply cut at ``max_tokens``: ``"error"``, or ``"keep"`` it as it is.
        max_tokens_name: What the endpoint calls ``max_tokens``.
        extra_body: More that every request holds, such as what switches thinking off; nothing secret.
        headers: More headers, by name; ``"env:VARIABLE"`` stands for what an environment variable holds, and must for
            what may be secret. ``Authorization`` among them takes the place of the key.
        query: What stands after the ``?`` in the address, such as an ``api-version``; nothing secret.
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
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict)
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
        whole = {"max_tokens": _MOST, "concurrency": _MOST_CONNECTIONS, "tries": _MOST}
        for name, most in whole.items():
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1, and at most {most:,.0f}")
        for name in ("requests_per_minute", "tokens_per_minute", "connect_timeout", "read_timeout", "patience"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) <= _MOST:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be positive, and at most {_MOST:,.0f}")
        for name in ("temperature", "backoff"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}: it must not be negative, nor endless")
        if self.on_truncated not in ("error", "keep"):
            raise ValueError(f"on_truncated is {self.on_truncated!r}: use 'error' or 'keep'")
        if not self.model.isprintable() or holds_key(self.model):
            raise ValueError("the model's name holds control characters, or is a key: use the endpoint's name for it")
        if self.api_key_env:
            check_variable(self.api_key_env, "api_key_env")
        check_headers(self.headers)
        check_query(self.query)
        check_body(self.extra_body)
        object.__setattr__(self, "base_url", checked_base_url(self.base_url, self.allow_http))

    @property
    def identity(self) -> str:
        """Endpoint, model and all that shapes the reply, as JSON with sorted keys; never the key."""
        parts = ("base_url", "model", "max_tokens", "temperature", "seed", "system_prompt", "on_truncated")
        literal = {name: value for name, value in self.headers.items() if variable_of(value) is None}
        more = {"extra_body": dict(self.extra_body), "headers": literal, "query": dict(self.query)}
        more = {name: table for name, table in more.items() if table}
        return json.dumps({**{part: getattr(self, part) for part in parts}, **more}, sort_keys=True)

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        """Reply to each request, as soon as may be; closing the generator cancels what is under way.

        Where the endpoint tells no usage, a completion's token counts are 0 and the budget keeps the upper bound.

        Raises:
            LLMError: The environment does not hold what is needed; nothing was sent.
            BudgetExceededError: The rest was not asked for.
        """
        if not requests:
            return
        self._secrets()

        waiting = deque(enumerate(requests))

        def work(put: Callable[[tuple[int, Reply]], None]) -> Coroutine[Any, Any, None]:
            return self._work(waiting, put)

        with closing(as_they_come(work)) as lots:
            for lot in lots:
                try:
                    yield dict(lot)
                except StopAsking:
                    waiting.clear()

    def check_environment(self) -> None:
        """See that the environment holds a key where one is needed, and a proxy and certificates that can be used.

        Raises:
            LLMError: It does not. The message names the variable.
        """
        self._secrets()
        Route.to(self._url())

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

        A used-up budget, or one that can no longer be written, stops new ones only. Where the account's quota or money
        is used up, what is not under way gets the same error without being sent.
        """
        line = self._line()
        refusals: list[BudgetExceededError | DatabaseError] = []
        used_up: list[Attempt] = []

        async def worker() -> None:
            while not refusals:
                try:
                    place, request = waiting.popleft()
                except IndexError:
                    return
                try:
                    put((place, await self._complete(line, request, used_up)))
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
            most = min(self.requests_per_minute or 60 / _APART, 60 / _APART)
            pacers = Pacer(most), Pacer(self.tokens_per_minute)
            timeout = httpx.Timeout(self.read_timeout, connect=self.connect_timeout, pool=None)
            self._lines[pid] = _Line(Route.to(self._url()), timeout, clients, *pacers)
        return self._lines[pid]

    def _url(self) -> httpx.URL:
        return httpx.URL(f"{self.base_url}/chat/completions").copy_merge_params(dict(self.query))

    async def _complete(self, line: _Line, request: Request, used_up: list[Attempt]) -> Reply:
        # Failures come back as values: an httpx exception, chained or in a traceback, would hold the key.
        useless, first = 0, float("inf")

        async def once() -> Attempt:
            nonlocal useless, first
            guess = 0.0 if used_up else await self._turn(line, request)
            if used_up:
                return used_up[0]
            first = min(first, time.monotonic())  # waiting for one's turn takes no patience
            async with line.alone_at_first() if self.budget.limits_tokens else nullcontext():
                attempt = await self._ask(line, request, guess)
            useless += attempt.useless
            if attempt.used_up or (attempt.retry_after or 0.0) > self.patience:
                used_up.append(replace(attempt, again=False))
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
        return LLMError(f"{self.model} at {self.base_url}{line.route.words}: {attempt.error}{tries}")

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
        sent = asyncio.Event()
        try:
            booked = self.budget.reserve((self.system_prompt or "") + request.prompt, self.max_tokens)
            try:
                client = client or line.route.new_client()
                attempt = await self._send(line, client, request, sent)
            finally:
                if not sent.is_set():
                    self.budget.settle(booked, 0, 0, calls=0)
        finally:
            line.clients.put_nowait(client)
        if sent.is_set() and attempt.tokens is not None:
            self.budget.settle(booked, *attempt.tokens)
            line.tokens.correct(sum(attempt.tokens) - guess)
        if attempt.again and attempt.retry_after is not None and attempt.retry_after <= self.patience:
            line.requests.hold(time.monotonic() + attempt.retry_after)
        return attempt

    async def _send(self, line: _Line, client: httpx.AsyncClient, wanted: Request, sent: asyncio.Event) -> Attempt:
        system = [] if self.system_prompt is None else [{"role": "system", "content": self.system_prompt}]
        body = {
            **self.extra_body,
            "model": self.model,
            "messages": [*system, {"role": "user", "content": wanted.prompt}],
            "stream": False,  # some servers stream unless told
            self.max_tokens_name: self.max_tokens,
            **({} if self.temperature is None else {"temperature": self.temperature}),
            **({} if self.seed is None else {"seed": self.seed + wanted.sample}),
        }
        key, secrets = self._secrets()
        headers = httpx.Headers({"Content-Type": "application/json", "Accept": "*/*", "User-Agent": "pmlm-env"})
        if key:
            headers["Authorization"] = f"Bearer {key}"
        headers.update({**self.headers, **secrets})
        # json.dumps escapes what UTF-8 cannot encode; httpx's own json= would raise with the prompt in the error.
        content = json.dumps(body)
        answer = await line.route.post(client, content, headers, line.timeout, self.patience, sent)
        if isinstance(answer, Attempt):
            return answer
        attempt = read_answer(answer, wanted.prompt, key, self.max_tokens, self.on_truncated)
        for word in " ".join(secrets.values()).split():  # "Bearer KEY" is two
            attempt = replace(attempt, error=without_key(attempt.error, word))
        return attempt

    def _secrets(self) -> tuple[str, dict[str, str]]:
        """Return the key, "" where none is sent, and the headers whose values are in the environment."""
        variables = {name: variable_of(value) for name, value in self.headers.items()}
        in_environment = {name: variable for name, variable in variables.items() if variable is not None}
        takes_key = bool(self.api_key_env) and "authorization" not in {name.lower() for name in self.headers}
        # All are looked at before any is held here: some show local variables with a traceback.
        for name, variable in in_environment.items():
            if not secret(variable, blanks=True):
                raise LLMError(
                    f"{self.base_url} needs the header {name}: put it in the environment variable {variable}"
                )
        if takes_key and not secret(self.api_key_env) and not is_this_machine(self.base_url):
            raise LLMError(f"{self.base_url} needs a key: put it in the environment variable {self.api_key_env}")
        key = secret(self.api_key_env) if takes_key else ""
        return key, {name: secret(variable, blanks=True) for name, variable in in_environment.items()}


@dataclass(frozen=True)
class _Line:
    """One process's way to the endpoint.

    A client for each connection, the one used last on top, None for one that was not needed yet: httpx's own pool asks
    all its connections about each request, and with a hundred of them takes ten milliseconds for it.
    """

    route: Route
    timeout: httpx.Timeout
    clients: asyncio.LifoQueue[httpx.AsyncClient | None]
    requests: Pacer
    tokens: Pacer
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    first: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def alone_at_first(self) -> AsyncGenerator[None, None]:
        """Let one request go alone: its answer shows whether the endpoint bills more than it is asked for."""
        if not self.answered.is_set():
            async with self.first:
                if not self.answered.is_set():
                    try:
                        yield
                    finally:
                        self.answered.set()
                    return
        yield

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
