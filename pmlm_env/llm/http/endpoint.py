"""A downstream LLM behind any OpenAI-compatible chat endpoint."""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, wait_random_exponential

from pmlm_env.io.keys import holds_key
from pmlm_env.llm.base import LLM, LLMError, OnTruncated, Reply, Request
from pmlm_env.llm.http.background import event_loop
from pmlm_env.llm.http.chat_answers import Answer, Attempt, read_answer
from pmlm_env.llm.http.connections import Connections
from pmlm_env.llm.http.pacing import Pacer
from pmlm_env.llm.http.sending import Complete, send_all
from pmlm_env.llm.http.server_errors import without_key
from pmlm_env.llm.http.settings import (
    check_body,
    check_headers,
    check_query,
    check_variable,
    checked_base_url,
    is_this_machine,
    secret,
    variable_of,
)
from pmlm_env.llm.http.transport import Route
from pmlm_env.llm.storage.budget import Budget

MAX_BACKOFF = 60.0
#: Answers without a usable reply are probably billed, so a request is not repeated after this many.
MAX_UNUSABLE = 3
#: Minimum seconds between requests, so that answers do not all arrive at once and wait for each other.
_MIN_INTERVAL = 0.0015
#: Each connection has a client, so that many more would fill the memory.
_MAX_CONNECTIONS = 10_000
_MAX_NUMBER = 1e9  # larger settings are surely mistakes


@dataclass(frozen=True)
class OpenAIChat(LLM):
    """Chat completions over HTTP: OpenAI, the compatible endpoints of Gemini and Zhipu, vLLM, Ollama, ...

    Prompts are sent only to ``base_url`` and are not logged. The key is read from the environment for each request and
    not stored. Requests that fail for a transient reason (connection lost, timeout, HTTP 429, 5xx, ...) are retried
    with exponential backoff and full jitter, or after the pause that the server asks for; answers without a usable
    reply are retried at most twice. Several threads and processes may use one client; each process has its own
    connections.

    Attributes:
        model: The model's name at the endpoint.
        base_url: The endpoint without ``/chat/completions``: ``https``, or on this machine.
        api_key_env: The environment variable of the key. An endpoint on this machine needs none. ``""`` sends no
            ``Authorization``.
        max_tokens: Maximum number of tokens of a reply.
        temperature: Sampling temperature; 0 = greedy; None = not sent, for models that reject it.
        seed: Sampling seed of a prompt's first reply, plus 1 for each further one; None = not sent, for endpoints that
            reject it.
        system_prompt: System message before every prompt; None = none.
        on_truncated: What to do with a reply cut at ``max_tokens``: ``"error"``, or ``"keep"`` it.
        max_tokens_name: The endpoint's name for ``max_tokens``.
        extra_body: Further fields of every request, such as one that turns reasoning off; nothing secret.
        headers: Further headers, by name. ``"env:VARIABLE"`` is replaced by the value of an environment variable;
            required for values that may be secret. ``Authorization`` replaces the key.
        query: Query parameters of the URL, such as ``api-version``; nothing secret.
        concurrency: Maximum number of requests in flight.
        requests_per_minute: Rate limit of this process; None = no limit.
        tokens_per_minute: Rate limit on prompt and completion tokens; None = no limit.
        connect_timeout: Seconds to wait for a connection.
        read_timeout: Seconds to wait for the next part of an answer.
        tries: Maximum number of requests for one reply, including the first.
        patience: Time limit for one request, in seconds; also the latest start of a retry after the first try.
        backoff: Maximum pause before the second try, in seconds; doubles with each try, up to a minute.
        allow_http: Whether prompts may be sent unencrypted to another machine.
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
    #: By process id.
    _by_process: dict[int, Connections] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the settings without opening a connection.

        Raises:
            ValueError: A setting is out of range, or ``base_url`` is invalid.
        """
        whole = {"max_tokens": _MAX_NUMBER, "concurrency": _MAX_CONNECTIONS, "tries": _MAX_NUMBER}
        for name, largest in whole.items():
            if not 1 <= getattr(self, name) <= largest:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be from 1 to {largest:,.0f}")
        for name in ("requests_per_minute", "tokens_per_minute", "connect_timeout", "read_timeout", "patience"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) <= _MAX_NUMBER:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be positive and at most {_MAX_NUMBER:,.0f}")
        for name in ("temperature", "backoff"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be finite and not negative")
        if self.on_truncated not in ("error", "keep"):
            raise ValueError(f"on_truncated is {self.on_truncated!r}: use 'error' or 'keep'")
        if not self.model.isprintable() or holds_key(self.model):
            raise ValueError("the model's name contains control characters or is a key: use the endpoint's name for it")
        if self.api_key_env:
            check_variable(self.api_key_env, "api_key_env")
        check_headers(self.headers)
        check_query(self.query)
        check_body(self.extra_body)
        object.__setattr__(self, "base_url", checked_base_url(self.base_url, self.allow_http))

    @property
    def identity(self) -> str:
        """Endpoint, model and all settings that affect the reply, as JSON with sorted keys; never the key."""
        parts = ("base_url", "model", "max_tokens", "temperature", "seed", "system_prompt", "on_truncated")
        literal = {name: value for name, value in self.headers.items() if variable_of(value) is None}
        more = {"extra_body": dict(self.extra_body), "headers": literal, "query": dict(self.query)}
        more = {name: table for name, table in more.items() if table}
        return json.dumps({**{part: getattr(self, part) for part in parts}, **more}, sort_keys=True)

    @property
    def is_remote(self) -> bool:
        """Whether the endpoint is on another machine."""
        return not is_this_machine(self.base_url)

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        """Yield replies in completion order; closing the generator cancels the requests in flight.

        If the endpoint reports no usage, token counts are 0 and the budget keeps the upper bound.

        Raises:
            LLMError: The environment lacks the key or a header's value; nothing was sent.
            BudgetExceededError: The remaining requests were not sent.
        """
        if not requests:
            return
        self._secrets()
        yield from send_all(requests, self.concurrency, self._begin)

    def check_environment(self) -> None:
        """Check that the environment has the key, if one is needed, and valid proxy and certificate settings.

        Raises:
            LLMError: It has not. The message names the variable.
        """
        self._secrets()
        Route.to(self.url("chat/completions"))

    def close(self) -> None:
        """Close the connections; the next batch opens new ones."""
        connections = self._by_process.pop(os.getpid(), None)
        if connections is not None:
            asyncio.run_coroutine_threadsafe(connections.close(), event_loop()).result()

    def __getstate__(self) -> dict[str, Any]:
        """Return the settings without the connections."""
        return {**self.__dict__, "_by_process": {}}

    def _begin(self) -> Complete:
        """Return what gets the reply to one request of a batch; call it on the event loop.

        If the account's quota or credit is used up, the remaining requests get the same error without being sent.
        """
        connections, used_up = self._connections(), list[Attempt]()
        return lambda request: self._complete(connections, request, used_up)

    def _connections(self) -> Connections:
        """Return this process's connections; call it on the event loop."""
        pid = os.getpid()
        if pid not in self._by_process:
            clients: asyncio.LifoQueue[httpx.AsyncClient | None] = asyncio.LifoQueue()
            for _ in range(self.concurrency):
                clients.put_nowait(None)
            most = min(self.requests_per_minute or 60 / _MIN_INTERVAL, 60 / _MIN_INTERVAL)
            pacers = Pacer(most), Pacer(self.tokens_per_minute)
            timeout = httpx.Timeout(self.read_timeout, connect=self.connect_timeout, pool=None)
            self._by_process[pid] = Connections(Route.to(self.url("chat/completions")), timeout, clients, *pacers)
        return self._by_process[pid]

    async def _complete(self, connections: Connections, request: Request, used_up: list[Attempt]) -> Reply:
        # Failures are returned as values, because an httpx exception, chained or in a traceback, would contain the key.
        unusable, first = 0, float("inf")

        async def once() -> Attempt:
            nonlocal unusable, first
            estimated = 0.0 if used_up else await self._wait_for_slot(connections, request)
            if used_up:
                return used_up[0]
            first = min(first, time.monotonic())  # waiting for the rate limits does not count
            attempt = await self._request_once(connections, request, estimated)
            unusable += attempt.unusable
            if attempt.used_up or (attempt.retry_after or 0.0) > self.patience:
                used_up.append(replace(attempt, retry=False))
            return attempt

        def stop(state: RetryCallState) -> bool:
            begins = time.monotonic() + state.upcoming_sleep
            return unusable >= MAX_UNUSABLE or state.attempt_number >= self.tries or begins > first + self.patience

        retrying = AsyncRetrying(
            retry=retry_if_result(lambda attempt: attempt.retry),
            stop=stop,
            wait=self._pause,
            retry_error_callback=_last_attempt,
        )
        attempt: Attempt = await retrying(once)
        if attempt.reply is not None:
            return attempt.reply
        n = retrying.statistics.get("attempt_number", 1)
        tries = f" (tried {n} times)" if n > 1 else ""
        return LLMError(f"{self.model} at {self.base_url}{connections.route.description}: {attempt.error}{tries}")

    async def attempt(self, request: Request) -> tuple[Attempt, float]:
        """Send a request once, when the rate limits allow it, and book it; call it on the event loop.

        Returns:
            What came of it, and when the rate limits allowed it, in seconds of ``time.monotonic``.
        """
        connections = self._connections()
        estimated = await self._wait_for_slot(connections, request)
        began = time.monotonic()
        return await self._request_once(connections, request, estimated), began

    def wait(self) -> float:
        """Return for how many seconds the rate limits allow no request; call it on the event loop."""
        connections, now = self._connections(), time.monotonic()
        return max(connections.requests.wait(now), connections.tokens.wait(now))

    def _pause(self, state: RetryCallState) -> float:
        requested = _last_attempt(state).retry_after
        # At least the usual pause: some servers ask for a pause of 0, and some have wrong clocks.
        return max(requested or 0.0, wait_random_exponential(self.backoff, MAX_BACKOFF)(state))

    async def _wait_for_slot(self, connections: Connections, request: Request) -> float:
        """Wait for the rate limits, and return the estimated number of tokens of the request."""
        # English has about four characters per token; corrected when the number is known.
        estimated = len(self.billed_text(request)) / 4 + self.max_tokens
        now = time.monotonic()
        await asyncio.sleep(max(connections.requests.book(1, now), connections.tokens.book(estimated, now)))
        return estimated

    async def _request_once(self, connections: Connections, request: Request, estimated: float) -> Attempt:
        """Wait for a connection, book the request, send it, and book its actual usage."""
        async with connections.first_request_alone() if self.budget.limits_tokens else nullcontext():
            return await self._booked_request(connections, request, estimated)

    async def _booked_request(self, connections: Connections, request: Request, estimated: float) -> Attempt:
        client = await connections.clients.get()
        sent = asyncio.Event()
        try:
            booked = self.budget.reserve(self.billed_text(request), self.max_tokens)
            try:
                client = client or connections.route.new_client()
                attempt = await self._send(connections, client, request, sent)
            finally:
                if not sent.is_set():
                    self.budget.settle(booked, 0, 0, calls=0)
        finally:
            connections.clients.put_nowait(client)
        if sent.is_set() and attempt.tokens is not None:
            self.budget.settle(booked, *attempt.tokens)
            connections.tokens.correct(sum(attempt.tokens) - estimated)
        if attempt.retry and attempt.retry_after is not None and attempt.retry_after <= self.patience:
            connections.requests.hold(time.monotonic() + attempt.retry_after)
        return attempt

    async def _send(
        self, connections: Connections, client: httpx.AsyncClient, request: Request, sent: asyncio.Event
    ) -> Attempt:
        headers = self.request_headers()
        headers["Content-Type"] = "application/json"
        # json.dumps escapes what UTF-8 cannot encode; httpx's json= would raise an error that contains the prompt.
        content = json.dumps(self.body(request))
        answer = await connections.route.post(client, content, headers, connections.timeout, self.patience, sent)
        return answer if isinstance(answer, Attempt) else self.read(answer, request.prompt)

    def body(self, request: Request) -> dict[str, Any]:
        """Return the body of a request, as JSON values."""
        system = [] if self.system_prompt is None else [{"role": "system", "content": self.system_prompt}]
        return {
            **self.extra_body,
            "model": self.model,
            "messages": [*system, {"role": "user", "content": request.prompt}],
            "stream": False,  # some servers stream by default
            self.max_tokens_name: self.max_tokens,
            **({} if self.temperature is None else {"temperature": self.temperature}),
            **({} if self.seed is None else {"seed": self.seed + request.sample}),
        }

    def billed_text(self, request: Request) -> str:
        """Return what is sent as a prompt, whose length bounds the number of prompt tokens."""
        return (self.system_prompt or "") + request.prompt

    def read(self, answer: Answer, prompt: str | None) -> Attempt:
        """Interpret an answer; messages contain neither the prompt (None = unknown) nor secrets."""
        key, _ = self._secrets()
        attempt = read_answer(answer, prompt, key, self.max_tokens, self.on_truncated)
        return replace(attempt, error=self.without_secrets(attempt.error))

    def without_secrets(self, text: str) -> str:
        """Replace the key and the secret values of headers in a text by ***."""
        key, secrets = self._secrets()
        for part in [key, *" ".join(secrets.values()).split()]:  # such as "Bearer KEY"
            text = without_key(text, part)
        return text

    def request_headers(self) -> httpx.Headers:
        """Return the headers of every request, with the key."""
        key, secrets = self._secrets()
        headers = httpx.Headers({"Accept": "*/*", "User-Agent": "pmlm-env"})
        if key:
            headers["Authorization"] = f"Bearer {key}"
        headers.update({**self.headers, **secrets})
        return headers

    def url(self, path: str) -> httpx.URL:
        """Return the URL of a part of the endpoint, such as ``chat/completions``."""
        return httpx.URL(f"{self.base_url}/{path}").copy_merge_params(dict(self.query))

    def _secrets(self) -> tuple[str, dict[str, str]]:
        """Return the key, "" if none is sent, and the headers whose values come from the environment."""
        variables = {name: variable_of(value) for name, value in self.headers.items()}
        in_environment = {name: variable for name, variable in variables.items() if variable is not None}
        takes_key = bool(self.api_key_env) and "authorization" not in {name.lower() for name in self.headers}
        # Checked before any is assigned, because some tools show local variables with a traceback.
        for name, variable in in_environment.items():
            if not secret(variable, allow_spaces=True):
                raise LLMError(
                    f"{self.base_url} needs the header {name}: put it in the environment variable {variable}"
                )
        if takes_key and not secret(self.api_key_env) and not is_this_machine(self.base_url):
            raise LLMError(f"{self.base_url} needs a key: put it in the environment variable {self.api_key_env}")
        key = secret(self.api_key_env) if takes_key else ""
        return key, {name: secret(variable, allow_spaces=True) for name, variable in in_environment.items()}


def _last_attempt(state: RetryCallState) -> Attempt:
    assert state.outcome is not None
    attempt: Attempt = state.outcome.result()
    return attempt
