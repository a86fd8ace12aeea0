"""A downstream LLM behind any OpenAI-compatible chat endpoint."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_attempt, wait_exponential, wait_random

from pmlm_env.llm.base import Completion, LLMError
from pmlm_env.llm.chat_answers import Attempt, read_answer

_PASSING_ERRORS = (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError)
_MAX_BACKOFF = 60.0


@dataclass(frozen=True)
class OpenAIChat:
    """Chat completions over HTTP: OpenAI, the compatible endpoints of Gemini and Zhipu, vLLM, Ollama, ...

    Prompts go to ``base_url`` and nowhere else, and are not logged. The key is read from the environment for each
    request and kept nowhere. Requests that fail for a passing reason (connection lost, timeout, HTTP 408, 409, 429,
    5xx) are repeated after growing, jittered pauses, or as long as the server's ``Retry-After`` says.

    Attributes:
        model: The model's name at the endpoint.
        base_url: The endpoint up to, not including, ``/chat/completions``: ``https``, or on this machine.
        api_key_env: The environment variable that holds the key. An endpoint on this machine needs none.
        max_tokens: Most tokens of a reply; a reply cut there is kept as it is.
        temperature: Sampling temperature; 0 = greedy.
        seed: Sampling seed; None leaves it out, for endpoints that know none.
        system_prompt: The system turn before every prompt; None = no such turn.
        concurrency: Most requests under way at once.
        timeout: Seconds to wait for a connection, and for each part of an answer.
        tries: Most requests for one prompt, the first included.
        backoff: Seconds before the second try; they double from try to try, up to a minute.
    """

    model: str
    base_url: str = "https://api.openai.com/v1"
    api_key_env: str = "OPENAI_API_KEY"
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int | None = 0
    system_prompt: str | None = None
    concurrency: int = 8
    timeout: float = 60.0
    tries: int = 6
    backoff: float = 1.0
    # By process: a forked child must not share its parent's sockets, or replies would cross over.
    _clients: dict[int, httpx.Client] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the settings; opens no connection.

        Raises:
            ValueError: A number is out of range, or ``base_url`` will not do.
            LLMError: The endpoint needs a key and ``api_key_env`` holds none.
        """
        if min(self.max_tokens, self.concurrency, self.tries) < 1:
            raise ValueError("max_tokens, concurrency and tries must be at least 1")
        if self.temperature < 0 or self.backoff < 0 or self.timeout <= 0:
            raise ValueError("temperature and backoff must not be negative, and timeout must be positive")
        object.__setattr__(self, "base_url", _checked(self.base_url))
        self._key()

    @property
    def identity(self) -> str:
        """Endpoint, model and all that shapes the reply, as JSON with sorted keys; never the key."""
        parts = ("base_url", "model", "max_tokens", "temperature", "seed", "system_prompt")
        return json.dumps({part: getattr(self, part) for part in parts}, sort_keys=True)

    def generate(self, prompts: Sequence[str]) -> list[Completion]:
        """Reply to each prompt, in order. Where the endpoint tells no usage, the token counts are 0.

        Raises:
            LLMError: A reply could not be had; prompts not yet sent are not sent any more.
        """
        if not prompts:
            return []
        client = self._client()
        with ThreadPoolExecutor(min(self.concurrency, len(prompts))) as pool:
            return list(pool.map(lambda prompt: self._complete(client, prompt), prompts))

    def close(self) -> None:
        """Close the connections; the next batch opens new ones."""
        client = self._clients.pop(os.getpid(), None)
        if client is not None:
            client.close()

    def __getstate__(self) -> dict[str, Any]:
        """Return the settings without the connections."""
        return {**self.__dict__, "_clients": {}}

    def _client(self) -> httpx.Client:
        pid = os.getpid()
        if pid not in self._clients:
            self._clients[pid] = httpx.Client(
                timeout=self.timeout,
                limits=httpx.Limits(max_connections=self.concurrency),
                trust_env=not _is_this_machine(self.base_url),  # a proxy would carry local prompts abroad
            )
        return self._clients[pid]

    def _complete(self, client: httpx.Client, prompt: str) -> Completion:
        # Failures come back as values: an httpx exception, chained or in a traceback, would hold the key.
        retrying = Retrying(
            retry=retry_if_result(lambda attempt: attempt.again),
            stop=stop_after_attempt(self.tries),
            wait=self._pause,
            retry_error_callback=_last_attempt,
        )
        attempt: Attempt = retrying(self._ask, client, prompt)
        if attempt.reply is None:
            tries = f" (tried {self.tries} times)" if attempt.again else ""
            raise LLMError(f"{self.model} at {self.base_url}: {attempt.error}{tries}")
        return attempt.reply

    def _pause(self, state: RetryCallState) -> float:
        asked = _last_attempt(state).retry_after
        if asked is not None:
            return asked
        return wait_exponential(multiplier=self.backoff, max=_MAX_BACKOFF)(state) + wait_random(0, self.backoff)(state)

    def _ask(self, client: httpx.Client, prompt: str) -> Attempt:
        system = [] if self.system_prompt is None else [{"role": "system", "content": self.system_prompt}]
        body = {
            "model": self.model,
            "messages": [*system, {"role": "user", "content": prompt}],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            **({} if self.seed is None else {"seed": self.seed}),
        }
        key = self._key()
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        try:
            # json.dumps escapes what UTF-8 cannot encode; httpx's own json= would raise with the prompt in the error.
            response = client.post(f"{self.base_url}/chat/completions", content=json.dumps(body), headers=headers)
        except _PASSING_ERRORS as error:
            return Attempt(error=f"no answer ({type(error).__name__}); see whether the endpoint is up", again=True)
        except httpx.HTTPError as error:
            return Attempt(error=f"no answer ({type(error).__name__}); check base_url")
        return read_answer(response, prompt, key)

    def _key(self) -> str:
        key = os.environ.get(self.api_key_env, "").strip()
        if not key and not _is_this_machine(self.base_url):
            raise LLMError(f"{self.base_url} needs a key: put it in the environment variable {self.api_key_env}")
        if not all("!" <= letter <= "~" for letter in key):  # httpx would quote such a key in its error
            raise LLMError(f"the environment variable {self.api_key_env} holds no key: it has blanks or odd letters")
        return key


def _last_attempt(state: RetryCallState) -> Attempt:
    assert state.outcome is not None
    attempt: Attempt = state.outcome.result()
    return attempt


def _is_this_machine(url: str) -> bool:
    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _checked(base_url: str) -> str:
    try:
        url = httpx.URL(base_url.strip().rstrip("/"))
    except httpx.InvalidURL:
        raise ValueError("base_url is no URL; it should look like https://api.openai.com/v1") from None
    if url.userinfo or url.query or url.fragment:  # may be secret: not quoted
        raise ValueError("base_url must not hold a user, query or fragment; put the key in the environment")
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"base_url {base_url!r} should look like https://api.openai.com/v1")
    if url.scheme == "http" and not _is_this_machine(str(url)):
        raise ValueError(f"base_url {base_url!r} would send prompts unencrypted to another machine: use https")
    return str(url)
