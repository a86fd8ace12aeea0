"""Interpreting a chat completion endpoint's answer: a reply, or what went wrong and whether to retry."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, Literal, NamedTuple

from pmlm_env.io.text import printable
from pmlm_env.llm.base import Completion, FinishReason, OnTruncated
from pmlm_env.llm.http.chat_bodies import MalformedError, read_body, whole_number
from pmlm_env.llm.http.pauses import requested_pause
from pmlm_env.llm.http.server_errors import (
    actual_status,
    error_in,
    error_in_raw_body,
    is_refusal,
    is_used_up,
    quotes,
    server_message,
    status_in,
    without_key,
)
from pmlm_env.llm.thoughts import without_thoughts

_RETRIED = frozenset({408, 409, 425, 429})  # and every 5xx
_AT_LIMIT = frozenset({429, 503, 529})  # too many requests, or overloaded
_ADVICE = {
    401: "check the key",
    402: "add credit to the account, or use another model",
    403: "check the key and its permissions",
    404: "check base_url and the model's name",
    413: "the prompt is too long for this endpoint",
    429: "lower --concurrency or the provider's requests_per_minute, or check the account's quota",
}
_REFUSED = "the model refused to reply"
_ADVICE_REFUSED = "leave this patient out, or use another model"
_USED_UP = "the account's quota or credit is used up"
_REQUEST_ID_HEADERS = ("x-request-id", "request-id", "x-log-id")
_REQUEST_ID = re.compile(r"[\w.:/+=-]{1,100}", re.ASCII)
_MAX_TOKENS = 10**9  # per answer; larger numbers are invalid

_Ending = Literal["filtered", "too long", "failed", "length", "stop", "unknown"]
#: Why a reply ended -> pattern of the servers' finish reasons in lower case; the first match counts.
_ENDING_WORDS: dict[_Ending, str] = {
    # content_filter; sensitive (Zhipu); safety, recitation, blocklist, spii, language, ... (Gemini); refusal
    # (Anthropic); guardrail_intervened (Bedrock); error_toxic (Cohere)
    "filtered": "filter|sensitive|safety|recitation|prohibited|block|spii|armor|language|refus|guard|toxic|moderat"
    "|policy",
    # model_context_window_exceeded (Zhipu, Anthropic); error_limit (Cohere)
    "too long": "context|error_limit",
    # tool_calls: no tools were offered. insufficient_system_resource (DeepSeek), network_error (Zhipu), abort and
    # repetition (vLLM), malformed_response and other (Gemini), time_limit and not_finished (watsonx), timeout (Cohere)
    "failed": "tool|function|error|fail|abort|cancel|interrupt|insufficient|unavailable|overload|time|malformed"
    "|repetition|not_finished|other",
    # max_tokens (Anthropic, Gemini, Cohere), model_length (Mistral), token_limit (watsonx), incomplete
    "length": "length|max|limit|truncat|incomplete",
    # eos_token, stop_sequence (TGI), end_turn (Anthropic), complete (Cohere), finish (Titan), done, word (llama.cpp)
    "stop": "stop|eos|end|complete|finish|done|word|normal",
}
_OTHER_ROLES = frozenset({"user", "system", "developer", "tool", "function"})  # roles other than the model's
#: Types of content parts.
_REPLY = re.compile("text|markdown|final|answer|message|output")
_THOUGHT = re.compile("think|thought|reason|summary|analysis")
_THOUGHTS = ("reasoning_content", "reasoning", "reasoning_details", "thinking", "thought")  # fields of a message


@dataclass(frozen=True, slots=True)
class Answer:
    """A raw HTTP answer.

    Attributes:
        status: The status code.
        headers: Headers by lower-case name.
        body: The raw body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Attempt:
    """The outcome of one request.

    Attributes:
        reply: The reply, or None.
        error: What went wrong and what to do, in one line without key and prompt.
        retry: Whether a retry may succeed.
        unusable: Whether the answer, which is probably billed, contains no usable reply; limits the retries.
        used_up: Whether the account's quota or credit is used up, so that every request would fail.
        retry_after: Seconds that the server asks to wait before the next request, if any.
        tokens: Prompt and completion tokens billed; None if unknown.
    """

    reply: Completion | None = None
    error: str = ""
    retry: bool = False
    unusable: bool = False
    used_up: bool = False
    retry_after: float | None = None
    tokens: tuple[int, int] | None = None


class _Request(NamedTuple):
    """The request, as far as it is needed to interpret the answer; see ``read_answer``."""

    prompt: str | None
    key: str
    max_tokens: int
    on_truncated: OnTruncated


class _Message(NamedTuple):
    """The model's message.

    Attributes:
        text: The stripped reply; "" if there is none.
        reason: The server's finish reason in lower case; "" if there is none.
        refused: Whether the model refused.
        has_thoughts: Whether there are thoughts.
    """

    text: str
    reason: str
    refused: bool
    has_thoughts: bool


def read_answer(answer: Answer, prompt: str | None, key: str, max_tokens: int, on_truncated: OnTruncated) -> Attempt:
    """Interpret an answer.

    Args:
        answer: The answer.
        prompt: The prompt, which must not appear in the error message; None = unknown, so that nothing of the server's
            message appears.
        key: The key, likewise.
        max_tokens: Maximum number of tokens requested.
        on_truncated: What to do with a reply that was cut.

    Returns:
        The reply, or what went wrong.
    """
    request = _Request(prompt, key, max_tokens, on_truncated)
    if 200 <= answer.status < 300:
        attempt = _read_completion(answer, request)
    else:
        server_error = error_in_raw_body(answer.body)
        attempt = _read_error(answer, actual_status(answer.status, server_error), server_error, request, (0, 0))
    return replace(attempt, error=without_key(attempt.error, key))


def _read_error(
    answer: Answer, status: int, server_error: Mapping[str, Any], request: _Request, tokens: tuple[int, int] | None
) -> Attempt:
    """Interpret an error by its status, which may come from the body of an answer with HTTP status 200."""
    name = f"HTTP {status}" if status == answer.status else f"HTTP {answer.status} with an error of status {status}"
    request_id = _request_id(answer, {}, request)
    retried = status in _RETRIED or status >= 500
    if is_refusal(server_error) and not retried:
        return Attempt(error=f"{name}: {_REFUSED}{request_id}; {_ADVICE_REFUSED}", tokens=tokens)
    pause = requested_pause(answer.headers, server_error, at_limit=status in _AT_LIMIT) if retried else None
    used_up = status == 402 or (status == 429 and is_used_up(server_error, pause))
    problem = "" if status in (401, 403) else server_message(server_error, request.prompt, request.key)
    advice = _USED_UP if used_up and status == 429 else _ADVICE.get(status, "check base_url" if status < 400 else "")
    error = ": ".join(part for part in (name, problem, advice) if part) + request_id
    if pause is not None:
        error += f"; the server asks to wait {pause:.0f} s{_until(pause)}"
    elif used_up and status == 429:
        error += "; continue when credit is added or the quota is renewed (a daily quota usually at midnight)"
    return Attempt(error=error, retry=retried and not used_up, used_up=used_up, retry_after=pause, tokens=tokens)


def _until(pause: float) -> str:
    if pause < 600:
        return ""
    return f", until {datetime.fromtimestamp(time.time() + pause, timezone.utc):%Y-%m-%d %H:%M} UTC"


def _read_completion(answer: Answer, request: _Request) -> Attempt:
    try:
        body = read_body(answer.body)
    except MalformedError as error:
        request_id = _request_id(answer, {}, request)
        return _unusable(f"the answer is not a chat completion ({error}); check base_url", request_id, None)
    tokens, request_id = _tokens(body), _request_id(answer, body, request)
    refused = f"{_REFUSED}{request_id}; {_ADVICE_REFUSED}"
    if _is_prompt_blocked(body):
        return Attempt(error=refused, tokens=tokens)
    server_error = error_in(body)
    if server_error:
        billed = tokens if tokens or body.get("choices") else (0, 0)
        return _read_error_of_success(answer, server_error, request, billed)
    try:
        message = _message(body)
    except MalformedError as error:
        return _unusable(f"the answer is not a chat completion ({error}); check base_url", request_id, tokens)
    ending = _ending(message.reason)
    if message.refused or (ending == "filtered" and not message.text):
        return Attempt(error=refused, tokens=tokens)
    if ending == "filtered":
        problem = f"the reply was filtered{request_id}; {_ADVICE_REFUSED}"
        return Attempt(error=problem, tokens=tokens)
    if ending == "failed":
        reason = message.reason[:1000]
        word = "" if quotes(reason, request.prompt or "") else without_key(reason, request.key)[:40]
        problem = f"the reply ended with finish reason {word!r} instead of stop or length; use another model"
        return _unusable(problem, request_id, tokens)
    if ending == "too long" and not message.text:
        return Attempt(error=f"the prompt does not fit the model's context{request_id}; shorten it", tokens=tokens)
    if not message.text and (message.has_thoughts or ending == "length" or _thought_tokens(body)):
        problem = (
            f"the model used all tokens for reasoning and gave no reply{request_id}; turn reasoning off (extra_body in "
            "the providers file: docs/llm says how for each server), or raise --max-new-tokens"
        )
        return Attempt(error=problem, tokens=tokens)
    if not message.text:
        problem = "the reply is empty; use another model, or turn reasoning off if this one reasons before it replies"
        return _unusable(problem, request_id, tokens)
    reason = _finish_reason(ending, tokens, request.max_tokens)
    if reason == "length" and request.on_truncated == "error":
        limit, advice = "token limit", "raise --max-new-tokens"
        if ending == "too long":
            limit, advice = "end of the model's context", "shorten the prompt"
        problem = f"the reply was cut at the {limit}{request_id}; {advice}, or use --on-truncated keep"
        return Attempt(error=problem, tokens=tokens)
    model = body.get("model")
    name = printable(model[:200].encode("utf-8", "replace").decode()) if isinstance(model, str) else ""
    return Attempt(Completion(message.text, *(tokens or (0, 0)), reason, name), tokens=tokens)


def _ending(reason: str) -> _Ending:
    return next((ending for ending, words in _ENDING_WORDS.items() if re.search(words, reason)), "unknown")


def _finish_reason(ending: _Ending, tokens: tuple[int, int] | None, max_tokens: int) -> FinishReason:
    """Return OpenAI's finish reason.

    A reply with an unknown or missing reason is kept, because it is paid for. It counts as "stop", unless it has as
    many tokens as allowed.
    """
    if ending == "unknown":
        return "length" if tokens is not None and tokens[1] >= max_tokens else "stop"
    return "stop" if ending == "stop" else "length"


def _read_error_of_success(
    answer: Answer, server_error: Mapping[str, Any], request: _Request, tokens: tuple[int, int] | None
) -> Attempt:
    status = 400 if is_refusal(server_error) else status_in(server_error)
    if status is not None:
        return _read_error(answer, status, server_error, request, tokens)
    problem = server_message(server_error, request.prompt, request.key)
    return _unusable(f"HTTP {answer.status} with an error: {problem}", _request_id(answer, {}, request), tokens)


def _unusable(error: str, request_id: str, tokens: tuple[int, int] | None) -> Attempt:
    return Attempt(error=error + request_id, retry=True, unusable=True, tokens=tokens)


def _is_prompt_blocked(body: Mapping[str, Any]) -> bool:
    """Whether a filter blocked the prompt."""
    if body.get("choices"):
        return False
    feedback = body.get("promptFeedback") or body.get("prompt_feedback")  # Gemini
    azure = body.get("prompt_filter_results")
    return (isinstance(feedback, dict) and "block" in str(list(feedback)).lower()) or _is_filtered(azure)


def _message(body: Mapping[str, Any]) -> _Message:
    choices = body.get("choices")
    if not isinstance(choices, list) or len(choices) != 1:
        raise MalformedError(f"{len(choices) if isinstance(choices, list) else 'no'} choices instead of 1")
    choice = choices[0]
    message = choice.get("message") or choice.get("delta") if isinstance(choice, dict) else None
    if not message and isinstance(choice, dict) and isinstance(choice.get("text"), str):  # a text completion
        message = {"content": choice["text"]}
    if not isinstance(message, dict):
        raise MalformedError("a choice without a message")
    role = message.get("role")
    if isinstance(role, str) and role.lower() in _OTHER_ROLES:
        raise MalformedError("a message that is not from the assistant")
    content = _content(message.get("content"))
    text = without_thoughts(content.text)
    return _Message(
        text or "",
        _reason({**body, **choice}),
        content.refused or bool(message.get("refusal")),
        content.has_thoughts or text is None or any(message.get(name) for name in _THOUGHTS),
    )


def _reason(choice: Mapping[str, Any]) -> str:
    """Return the finish reason: the server's, unless that of an upstream server says that the reply was filtered."""
    if _is_filtered(choice.get("content_filter_results")):
        return "content_filter"
    reasons = [choice.get(name) for name in ("finish_reason", "native_finish_reason", "stop_reason", "finishReason")]
    words = [reason.lower() for reason in reasons if isinstance(reason, str)]
    return next((word for word in words if _ending(word) == "filtered"), "".join(words[:1]))


def _is_filtered(results: Any) -> bool:
    return "'filtered': True" in str(results)  # Azure


def _content(content: Any) -> _Message:
    """Combine a ``content``, which is a text or has parts of several types."""
    try:
        parts = list(_parts(content, "text"))
        text = "".join(text for kind, text in parts if _REPLY.search(kind))
        text.encode()
    except UnicodeEncodeError:
        raise MalformedError("half a character") from None
    except RecursionError:
        raise MalformedError("a content that is nested too deeply") from None
    kinds = {kind for kind, _ in parts}
    return _Message(text, "", "refusal" in kinds, any(map(_THOUGHT.search, kinds)))


def _parts(content: Any, kind: str) -> Iterator[tuple[str, str]]:
    """Yield the type and the text of each part of a ``content``."""
    if isinstance(content, str):
        yield kind, content
    elif isinstance(content, list):
        for part in content:
            yield from _parts(part, kind)
    elif isinstance(content, dict):
        kind = (
            "thought" if content.get("thought") else str(content.get("type") or content.get("channel") or kind).lower()
        )
        names = ("text", "content", "parts", "value", kind)  # {"type": "answer", "answer": "Eat well."}
        inner = next((content[name] for name in names if content.get(name)), None)
        if _REPLY.search(kind) and not _THOUGHT.search(kind):
            yield from _parts(inner, kind)
        else:
            yield kind, ""
    elif content is not None:
        raise MalformedError("a content that is not text")


def _tokens(body: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return prompt and completion tokens, or None if the endpoint does not report valid numbers."""
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return None
    n_in, n_out = _count(usage, "prompt_tokens", "input_tokens"), _count(usage, "completion_tokens", "output_tokens")
    if n_in is None or n_out is None:
        return None
    # Gemini includes reasoning tokens, which it bills, only in the total.
    return n_in, max(n_out, (_count(usage, "total_tokens") or 0) - n_in)


def _count(table: Mapping[str, Any], *names: str) -> int | None:
    value = next((table[name] for name in names if table.get(name) is not None), None)
    count = whole_number(value)
    return count if count is not None and 0 <= count <= _MAX_TOKENS else None


def _thought_tokens(body: Mapping[str, Any]) -> int:
    """Return the number of reasoning tokens, whose text the endpoint does not return."""
    usage = body.get("usage")
    details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    return (_count(details, "reasoning_tokens") or 0) if isinstance(details, dict) else 0


def _request_id(answer: Answer, body: Mapping[str, Any], request: _Request) -> str:
    """Return " (request ID)", with which the endpoint's support can find the request, or ""."""
    found = [answer.headers.get(name) for name in _REQUEST_ID_HEADERS] + [body.get("request_id"), body.get("id")]
    for name in found:
        if isinstance(name, str) and _REQUEST_ID.fullmatch(name) and not quotes(name, request.prompt or ""):
            return f" (request {name})"
    return ""
