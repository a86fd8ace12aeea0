"""What a chat-completions endpoint answered: a reply, or what went wrong and whether to ask again."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any, cast

from pmlm_env.llm.base import Completion, FinishReason, OnTruncated

_RETRIED = frozenset({408, 409, 429})  # and every 5xx
#: Why a reply ended that was filtered: OpenAI and others, Zhipu, Gemini.
_FILTERED = frozenset(
    {"content_filter", "sensitive", "safety", "recitation", "prohibited_content", "blocklist", "spii"}
)
_TOO_LONG = "model_context_window_exceeded"  # Zhipu
#: Codes of HTTP 429 that no waiting helps: out of money, account stopped (OpenAI, Zhipu).
_NO_MORE_MONEY = frozenset({"insufficient_quota", "credit_balance_exhausted", "1112", "1113", "1121", "1308"})
_ADVICE = {
    401: "check the key",
    403: "check the key and what it gives access to",
    404: "check base_url and the name of the model",
    413: "the prompt is too long for this endpoint",
    429: "lower concurrency or requests_per_minute, or check the account's quota",
}
_REQUEST_ID_HEADERS = ("x-request-id", "request-id", "x-log-id")
_SECRET = 8  # letters; a shorter "key" is a word put there for a server that wants one, and stands in other words
_MOST_TOKENS = 10**9  # in one answer; more is nonsense


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer as it came.

    Attributes:
        status: The status code.
        headers: By name in lower case.
        body: The bytes.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of one request.

    Attributes:
        reply: The reply, or None.
        error: What went wrong, and what to do, in one line without key and prompt.
        again: Whether it may go better next time.
        useless: Whether there was an answer, likely billed, that is no reply: not to be asked for again for ever.
        retry_after: Seconds that the server asks to wait before that, if it does.
        tokens: Tokens in and out that are billed; None where nobody knows.
    """

    reply: Completion | None = None
    error: str = ""
    again: bool = False
    useless: bool = False
    retry_after: float | None = None
    tokens: tuple[int, int] | None = None


class _Malformed(Exception):
    """The answer is not of the shape of a chat completion; the message says where."""


def read_answer(answer: Answer, prompt: str, key: str, on_truncated: OnTruncated) -> Attempt:
    """Make sense of an answer to ``prompt``; ``key`` is only there to be kept out of the error."""
    attempt = _read_completion(answer, on_truncated) if 200 <= answer.status < 300 else _read_error(answer, prompt)
    return replace(attempt, error=attempt.error.replace(key, "***")) if len(key) >= _SECRET else attempt


def _read_error(answer: Answer, prompt: str) -> Attempt:
    said = "" if answer.status in (401, 403) else _server_says(answer.body, prompt)
    advice = _ADVICE.get(answer.status, "check base_url" if answer.status < 400 else "")
    error = ": ".join(part for part in (f"HTTP {answer.status}", said, advice) if part) + _request_id(answer, {})
    account = _error_object(answer.body)
    if (answer.status not in _RETRIED and answer.status < 500) or _is_lasting(account):
        return Attempt(error=error, tokens=(0, 0))
    retry_after = _seconds(answer.headers.get("retry-after", "") or _retry_delay(account))
    if retry_after:
        error += f"; the server asks to wait {retry_after:.0f} s"
    return Attempt(error=error, again=True, retry_after=retry_after, tokens=(0, 0))


def _read_completion(answer: Answer, on_truncated: OnTruncated) -> Attempt:
    try:
        body = _json_object(answer.body)
        tokens = _tokens(body)
    except _Malformed as why:
        return _no_use(f"the answer is not a chat completion ({why}); check base_url", answer, {}, None)
    try:
        text, reason = _text_and_reason(body)
    except _Malformed as why:
        return _no_use(f"the answer is not a chat completion ({why}); check base_url", answer, body, tokens)
    where = _request_id(answer, body)
    if reason in _FILTERED:
        return Attempt(
            error=f"the reply was filtered{where}; leave this patient out, or ask another model", tokens=tokens
        )
    if reason == _TOO_LONG:
        return Attempt(error=f"the prompt does not fit the model's context{where}; shorten it", tokens=tokens)
    if reason not in ("stop", "length"):
        said = f"the reply ended for the reason {reason[:40]!r}, not stop or length; ask another model"
        return _no_use(said, answer, body, tokens)
    if not text:
        said = "the reply is empty; raise max_new_tokens, or switch thinking off, if the model thinks before it replies"
        return _no_use(said, answer, body, tokens)
    if reason == "length" and on_truncated == "error":
        error = f"the reply was cut at the limit of tokens{where}; raise max_new_tokens, or ask for on_truncated=keep"
        return Attempt(error=error, tokens=tokens)
    model = body.get("model")
    name = model[:200].encode("utf-8", "replace").decode() if isinstance(model, str) else ""
    completion = Completion(text, *(tokens or (0, 0)), cast(FinishReason, reason), name)
    return Attempt(completion, tokens=tokens)


def _no_use(error: str, answer: Answer, body: Mapping[str, Any], tokens: tuple[int, int] | None) -> Attempt:
    return Attempt(error=error + _request_id(answer, body), again=True, useless=True, tokens=tokens)


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        # Stricter than json.loads(raw): UTF-8 only, each name once (which of two texts was the reply?), no NaN.
        body = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_each_once, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise _Malformed("no JSON") from None
    if not isinstance(body, dict):
        raise _Malformed(f"a {type(body).__name__}, not an object")
    return body


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name comes twice")
    return table


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _text_and_reason(body: Mapping[str, Any]) -> tuple[str, str]:
    """Return the reply's text, stripped ("" where there is none), and why it ended."""
    choices = body.get("choices")
    if not isinstance(choices, list) or len(choices) != 1:
        raise _Malformed(f"{len(choices) if isinstance(choices, list) else 'no'} choices instead of 1")
    choice = choices[0]
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise _Malformed("a choice without a message")
    text, reason = message.get("content"), choice.get("finish_reason")
    if not isinstance(reason, str):
        raise _Malformed("no finish_reason")
    if text is not None and not isinstance(text, str):
        raise _Malformed("a content that is no text")
    if message.get("role", "assistant") != "assistant":
        raise _Malformed("a message that is not the assistant's")
    text = (text or "").strip()
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _Malformed("half a character") from None
    return text, reason.lower()


def _tokens(body: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return tokens in and out, or None where the endpoint does not tell."""
    usage = body.get("usage")
    if usage is None:
        return None
    if not isinstance(usage, dict):
        raise _Malformed("a usage that is no object")
    n_in, n_out, total = (usage.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
    if not all(count is None or _is_count(count) for count in (n_in, n_out)):
        raise _Malformed("counts of tokens that are none")
    if n_in is None or n_out is None:
        return None
    # Gemini counts a model's thoughts in the total alone, and bills them.
    return n_in, max(n_out, total - n_in) if _is_count(total) else n_out


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MOST_TOKENS


def _request_id(answer: Answer, body: Mapping[str, Any]) -> str:
    """Return " (request ...)", by which the endpoint's own people find it, or nothing."""
    found = [answer.headers.get(name) for name in _REQUEST_ID_HEADERS] + [body.get("request_id"), body.get("id")]
    for name in found:
        if isinstance(name, str) and name.isascii() and name.isprintable() and 0 < len(name) <= 100:
            return f" (request {name})"
    return ""


def _error_object(raw: bytes) -> Mapping[str, Any]:
    """Return the server's account of its error: ``message``, ``code``, ..., as far as there is one."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    body = body[0] if isinstance(body, list) and body else body  # Gemini sends a list
    error = body.get("error", body) if isinstance(body, dict) else {}
    return {"message": error} if isinstance(error, str) else error if isinstance(error, dict) else {}


def _is_lasting(error: Mapping[str, Any]) -> bool:
    """Whether no waiting of minutes helps: out of money, account stopped, or Gemini's quota for the day is used up."""
    if {str(error.get(name)) for name in ("code", "type")} & _NO_MORE_MONEY:
        return True
    return any("PerDay" in str(detail.get("violations")) for detail in _details(error))


def _retry_delay(error: Mapping[str, Any]) -> str:
    """Return the seconds that Gemini, which sends no ``Retry-After``, asks to wait, or ""."""
    delays = [detail.get("retryDelay") for detail in _details(error)]
    return next((delay.removesuffix("s") for delay in delays if isinstance(delay, str)), "")


def _details(error: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    details = error.get("details")
    return [detail for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []


def _server_says(raw: bytes, prompt: str) -> str:
    """Return the server's error message in one line, unless it quotes the prompt."""
    error = _error_object(raw)
    message = error.get("message", error.get("detail"))  # "detail": FastAPI, and so transformers serve
    if not isinstance(message, str):
        return ""
    if any(prompt[start : start + 20] in message for start in range(max(1, len(prompt) - 19))):
        return "the server's message quotes the prompt and is left out"
    return " ".join(message.split())[:300].encode("utf-8", "replace").decode()


def _seconds(retry_after: str) -> float | None:
    """Return what a ``Retry-After`` header says, a number or a date, in seconds from now; None if nothing of use."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
