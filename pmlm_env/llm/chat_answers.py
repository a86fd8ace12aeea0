"""What a chat-completions endpoint answered: a reply, or what went wrong and whether to ask again."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx

from pmlm_env.llm.base import Completion

_RETRIED = frozenset({408, 409, 429})  # and every 5xx
_FILTERED = frozenset({"content_filter", "sensitive", "safety"})  # OpenAI and Gemini, Zhipu, others
_LONGEST_RETRY_AFTER = 300.0
_ADVICE = {
    401: "check the key",
    403: "check the key and what it gives access to",
    404: "check base_url and the name of the model",
    413: "the prompt is too long for this endpoint",
    429: "lower concurrency, or check the account's quota",
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of one request.

    Attributes:
        reply: The reply, or None.
        error: What went wrong, and what to do, in one line without key and prompt.
        again: Whether it may go better next time.
        retry_after: Seconds that the server asks to wait before that, if it does.
    """

    reply: Completion | None = None
    error: str = ""
    again: bool = False
    retry_after: float | None = None


def read_answer(response: httpx.Response, prompt: str, key: str) -> Attempt:
    """Make sense of an answer to ``prompt``; ``key`` is only there to be kept out of the error."""
    if response.is_success:
        return _read_completion(response)
    status = response.status_code
    said = "" if status in (401, 403) else _server_says(response, prompt, key)
    advice = _ADVICE.get(status, "check base_url" if status < 400 else "")
    error = ": ".join(part for part in (f"HTTP {status}", said, advice) if part)
    if status not in _RETRIED and status < 500:
        return Attempt(error=error)
    retry_after = _seconds(response.headers.get("Retry-After", ""))
    if retry_after is not None and retry_after > _LONGEST_RETRY_AFTER:
        return Attempt(error=f"{error}; the server asks to wait {retry_after:.0f} s: come back then")
    return Attempt(error=error, again=True, retry_after=retry_after)


def _read_completion(response: httpx.Response) -> Attempt:
    try:
        answer = response.json()
        choice = answer["choices"][0]
        text, reason = choice["message"].get("content"), choice.get("finish_reason") or "stop"
        usage = answer.get("usage") or {}
        n_in, n_out = (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
    except (ValueError, LookupError, AttributeError, TypeError):
        return Attempt(error="the answer is not a chat completion; check base_url")
    if reason == "length" and isinstance(text, str) and text.strip():
        return Attempt(Completion(text.strip(), n_in, n_out, "length"))
    if reason == "stop" and isinstance(text, str) and text.strip():
        return Attempt(Completion(text.strip(), n_in, n_out, "stop"))
    if str(reason).lower() in _FILTERED:
        return Attempt(error="the reply was filtered; leave this patient out, or ask another model")
    if reason in ("stop", "length"):
        return Attempt(error="the reply is empty; raise max_tokens if the model thinks before it replies")
    return Attempt(error=f"the reply ended for the reason {str(reason)[:40]!r}, not stop or length; ask another model")


def _server_says(response: httpx.Response, prompt: str, key: str) -> str:
    """Return the server's error message in one line, unless it quotes the prompt."""
    try:
        answer = response.json()
        answer = answer[0] if isinstance(answer, list) else answer  # Gemini sends a list
        error = answer.get("error", answer)
        message = error["message"] if isinstance(error, Mapping) else error
    except (ValueError, LookupError, AttributeError, TypeError):
        return ""
    if not isinstance(message, str):
        return ""
    if any(prompt[start : start + 20] in message for start in range(max(1, len(prompt) - 19))):
        return "the server's message quotes the prompt and is left out"
    message = " ".join(message.split())
    return (message.replace(key, "***") if key else message)[:200]


def _seconds(retry_after: str) -> float | None:
    """Return what a ``Retry-After`` header says, a number or a date, in seconds from now; None if nothing of use."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
