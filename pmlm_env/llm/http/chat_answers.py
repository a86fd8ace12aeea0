"""What a chat-completions endpoint answered: a reply, or what went wrong and whether to ask again."""

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
from pmlm_env.llm.http.pauses import asked_pause
from pmlm_env.llm.http.server_errors import (
    error_in,
    error_of,
    is_refusal,
    is_used_up,
    meant_status,
    quotes,
    server_says,
    status_in,
    without_key,
)
from pmlm_env.llm.thoughts import without_thoughts

_RETRIED = frozenset({408, 409, 425, 429})  # and every 5xx
_AT_LIMIT = frozenset({429, 503, 529})  # too many requests, or too many for now
_ADVICE = {
    401: "check the key",
    402: "add money to the account, or ask another model",
    403: "check the key and what it gives access to",
    404: "check base_url and the name of the model",
    413: "the prompt is too long for this endpoint",
    429: "lower --concurrency or the provider's requests_per_minute, or check the account's quota",
}
_REFUSED = "the model refused to reply"
_ANOTHER = "leave this patient out, or ask another model"
_USED_UP = "the account's quota or money is used up"
_REQUEST_ID_HEADERS = ("x-request-id", "request-id", "x-log-id")
_REQUEST_ID = re.compile(r"[\w.:/+=-]{1,100}", re.ASCII)
_MOST_TOKENS = 10**9  # in one answer; more is nonsense

_Ending = Literal["filtered", "too long", "failed", "length", "stop", "unknown"]
#: Why replies end, by what servers call it, in lower case; the first that fits.
_ENDINGS: dict[_Ending, str] = {
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
_OTHERS = frozenset({"user", "system", "developer", "tool", "function"})  # roles that are not the model's
#: Types of a content's parts.
_REPLY = re.compile("text|markdown|final|answer|message|output")
_THOUGHT = re.compile("think|thought|reason|summary|analysis")
_THOUGHTS = ("reasoning_content", "reasoning", "reasoning_details", "thinking", "thought")  # fields of a message


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
        used_up: Whether every prompt would be answered so: the account's quota or money is used up.
        retry_after: Seconds that the server asks to wait before the next request, if it does.
        tokens: Tokens in and out that are billed; None where nobody knows.
    """

    reply: Completion | None = None
    error: str = ""
    again: bool = False
    useless: bool = False
    used_up: bool = False
    retry_after: float | None = None
    tokens: tuple[int, int] | None = None


class _Asked(NamedTuple):
    """What was asked; see ``read_answer``."""

    prompt: str
    key: str
    max_tokens: int
    on_truncated: OnTruncated


class _Message(NamedTuple):
    """What the model wrote.

    Attributes:
        text: The reply, stripped; "" where there is none.
        reason: Why it ended, in the server's word and lower case; "" where the server tells none.
        refused: Whether the model refused.
        thought: Whether there are thoughts.
    """

    text: str
    reason: str
    refused: bool
    thought: bool


def read_answer(answer: Answer, prompt: str, key: str, max_tokens: int, on_truncated: OnTruncated) -> Attempt:
    """Make sense of an answer.

    Args:
        answer: As it came.
        prompt: What was asked; it is kept out of the error.
        key: Likewise.
        max_tokens: Most tokens that were asked for.
        on_truncated: What becomes of a reply that was cut.

    Returns:
        The reply, or what went wrong.
    """
    asked = _Asked(prompt, key, max_tokens, on_truncated)
    if 200 <= answer.status < 300:
        attempt = _read_completion(answer, asked)
    else:
        server_error = error_of(answer.body)
        attempt = _read_error(answer, meant_status(answer.status, server_error), server_error, asked, (0, 0))
    return replace(attempt, error=without_key(attempt.error, key))


def _read_error(
    answer: Answer, status: int, server_error: Mapping[str, Any], asked: _Asked, tokens: tuple[int, int] | None
) -> Attempt:
    """Judge an error by its HTTP status, which a gateway may have put into the body of an answer of status 200."""
    name = f"HTTP {status}" if status == answer.status else f"HTTP {answer.status} with an error of status {status}"
    where = _request_id(answer, {}, asked)
    retried = status in _RETRIED or status >= 500
    if is_refusal(server_error) and not retried:
        return Attempt(error=f"{name}: {_REFUSED}{where}; {_ANOTHER}", tokens=tokens)
    pause = asked_pause(answer.headers, server_error, at_limit=status in _AT_LIMIT) if retried else None
    used_up = status == 402 or (status == 429 and is_used_up(server_error, pause))
    said = "" if status in (401, 403) else server_says(server_error, asked.prompt, asked.key)
    advice = _USED_UP if used_up and status == 429 else _ADVICE.get(status, "check base_url" if status < 400 else "")
    error = ": ".join(part for part in (name, said, advice) if part) + where
    if pause is not None:
        error += f"; the server asks to wait {pause:.0f} s{_until(pause)}"
    elif used_up and status == 429:
        error += "; it may go on once money is added or the quota is renewed (a day's quota: mostly at midnight)"
    return Attempt(error=error, again=retried and not used_up, used_up=used_up, retry_after=pause, tokens=tokens)


def _until(pause: float) -> str:
    if pause < 600:
        return ""
    return f", until {datetime.fromtimestamp(time.time() + pause, timezone.utc):%Y-%m-%d %H:%M} UTC"


def _read_completion(answer: Answer, asked: _Asked) -> Attempt:
    try:
        body = read_body(answer.body)
    except MalformedError as why:
        where = _request_id(answer, {}, asked)
        return _no_use(f"the answer is not a chat completion ({why}); check base_url", where, None)
    tokens, where = _tokens(body), _request_id(answer, body, asked)
    refused = f"{_REFUSED}{where}; {_ANOTHER}"
    if _is_prompt_blocked(body):
        return Attempt(error=refused, tokens=tokens)
    server_error = error_in(body)
    if server_error:
        billed = tokens if tokens or body.get("choices") else (0, 0)
        return _read_error_of_success(answer, server_error, asked, billed)
    try:
        message = _message(body)
    except MalformedError as why:
        return _no_use(f"the answer is not a chat completion ({why}); check base_url", where, tokens)
    ending = _ending(message.reason)
    if message.refused or (ending == "filtered" and not message.text):
        return Attempt(error=refused, tokens=tokens)
    if ending == "filtered":
        said = f"the reply was filtered{where}; {_ANOTHER}"
        return Attempt(error=said, tokens=tokens)
    if ending == "failed":
        reason = message.reason[:1000]
        word = "" if quotes(reason, asked.prompt) else without_key(reason, asked.key)[:40]
        said = f"the reply ended for the reason {word!r}, not stop or length; ask another model"
        return _no_use(said, where, tokens)
    if ending == "too long" and not message.text:
        return Attempt(error=f"the prompt does not fit the model's context{where}; shorten it", tokens=tokens)
    if not message.text and (message.thought or ending == "length" or _thought_tokens(body)):
        said = (
            f"the model spent its tokens on thoughts and gave no reply{where}; switch thinking off (extra_body in the "
            "providers file: docs/llm says how for each server), or raise --max-new-tokens"
        )
        return Attempt(error=said, tokens=tokens)
    if not message.text:
        said = "the reply is empty; ask another model, or switch thinking off if this one thinks before it replies"
        return _no_use(said, where, tokens)
    reason = _finish_reason(ending, tokens, asked.max_tokens)
    if reason == "length" and asked.on_truncated == "error":
        end, cure = "limit of tokens", "raise --max-new-tokens"
        if ending == "too long":
            end, cure = "end of the model's context", "shorten the prompt"
        said = f"the reply was cut at the {end}{where}; {cure}, or use --on-truncated keep"
        return Attempt(error=said, tokens=tokens)
    model = body.get("model")
    name = printable(model[:200].encode("utf-8", "replace").decode()) if isinstance(model, str) else ""
    return Attempt(Completion(message.text, *(tokens or (0, 0)), reason, name), tokens=tokens)


def _ending(reason: str) -> _Ending:
    return next((ending for ending, words in _ENDINGS.items() if re.search(words, reason)), "unknown")


def _finish_reason(ending: _Ending, tokens: tuple[int, int] | None, max_tokens: int) -> FinishReason:
    """Return OpenAI's word for how a reply ended.

    A reason that is not known, or none, is no reason to throw away a reply that is paid for: it is one that ended by
    itself, unless it has as many tokens as were allowed.
    """
    if ending == "unknown":
        return "length" if tokens is not None and tokens[1] >= max_tokens else "stop"
    return "stop" if ending == "stop" else "length"


def _read_error_of_success(
    answer: Answer, server_error: Mapping[str, Any], asked: _Asked, tokens: tuple[int, int] | None
) -> Attempt:
    status = 400 if is_refusal(server_error) else status_in(server_error)
    if status is not None:
        return _read_error(answer, status, server_error, asked, tokens)
    said = server_says(server_error, asked.prompt, asked.key)
    return _no_use(f"HTTP {answer.status} with an error: {said}", _request_id(answer, {}, asked), tokens)


def _no_use(error: str, where: str, tokens: tuple[int, int] | None) -> Attempt:
    return Attempt(error=error + where, again=True, useless=True, tokens=tokens)


def _is_prompt_blocked(body: Mapping[str, Any]) -> bool:
    """Whether there is no reply because a filter did not like the prompt."""
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
    if not message and isinstance(choice, dict) and isinstance(choice.get("text"), str):  # of a plain completion
        message = {"content": choice["text"]}
    if not isinstance(message, dict):
        raise MalformedError("a choice without a message")
    role = message.get("role")
    if isinstance(role, str) and role.lower() in _OTHERS:
        raise MalformedError("a message that is not the assistant's")
    written = _written(message.get("content"))
    text = without_thoughts(written.text)
    return _Message(
        text or "",
        _reason({**body, **choice}),
        written.refused or bool(message.get("refusal")),
        written.thought or text is None or any(message.get(name) for name in _THOUGHTS),
    )


def _reason(choice: Mapping[str, Any]) -> str:
    """Return why a reply ended: the server's own word, unless another server's word says that it was filtered."""
    if _is_filtered(choice.get("content_filter_results")):
        return "content_filter"
    reasons = [choice.get(name) for name in ("finish_reason", "native_finish_reason", "stop_reason", "finishReason")]
    words = [reason.lower() for reason in reasons if isinstance(reason, str)]
    return next((word for word in words if _ending(word) == "filtered"), "".join(words[:1]))


def _is_filtered(results: Any) -> bool:
    return "'filtered': True" in str(results)  # Azure


def _written(content: Any) -> _Message:
    """Return what a ``content`` holds: a text, or parts of several types."""
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
    """Yield the kind and the text of each part of a ``content``."""
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
        told = next((content[name] for name in names if content.get(name)), None)
        if _REPLY.search(kind) and not _THOUGHT.search(kind):
            yield from _parts(told, kind)
        else:
            yield kind, ""
    elif content is not None:
        raise MalformedError("a content that is no text")


def _tokens(body: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return tokens in and out, or None where the endpoint does not tell them in numbers that make sense."""
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return None
    n_in, n_out = _count(usage, "prompt_tokens", "input_tokens"), _count(usage, "completion_tokens", "output_tokens")
    if n_in is None or n_out is None:
        return None
    # Gemini counts a model's thoughts in the total alone, and bills them.
    return n_in, max(n_out, (_count(usage, "total_tokens") or 0) - n_in)


def _count(table: Mapping[str, Any], *names: str) -> int | None:
    value = next((table[name] for name in names if table.get(name) is not None), None)
    count = whole_number(value)
    return count if count is not None and 0 <= count <= _MOST_TOKENS else None


def _thought_tokens(body: Mapping[str, Any]) -> int:
    """Return how many tokens went into thoughts that the endpoint does not show."""
    usage = body.get("usage")
    details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    return (_count(details, "reasoning_tokens") or 0) if isinstance(details, dict) else 0


def _request_id(answer: Answer, body: Mapping[str, Any], asked: _Asked) -> str:
    """Return " (request ...)", by which the endpoint's own people find it, or nothing."""
    found = [answer.headers.get(name) for name in _REQUEST_ID_HEADERS] + [body.get("request_id"), body.get("id")]
    for name in found:
        if isinstance(name, str) and _REQUEST_ID.fullmatch(name) and not quotes(name, asked.prompt):
            return f" (request {name})"
    return ""
