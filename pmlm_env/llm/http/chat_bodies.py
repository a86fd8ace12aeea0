"""Parsing the JSON of a chat endpoint's answers, complete or as a stream of events."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

_COMMENTS = re.compile(rb"\A(?:\xef\xbb\xbf)?\s*(?::[^\n]*\n\s*)+(?=[{\[])")  # keep-alive comments before the answer
_COLLECTED = ("delta", "message", "text")
_WRAPPERS = ("data", "result", "response", "output", "body")
_EVENTS = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:data|event|id|retry)?:")  # the start of an event stream, never of JSON


class MalformedError(Exception):
    """The answer does not have the structure of a chat completion; the message says how."""


def read_body(raw: bytes) -> dict[str, Any]:
    """Parse the body of an answer into one object.

    Some servers stream although streaming is off. The parts of a stream are combined into the object that the server
    would have sent otherwise, except that a ``content`` is a list of its parts.

    Args:
        raw: The body of an HTTP answer.

    Raises:
        MalformedError: It is not a JSON object in UTF-8, repeats a key, or is an incomplete stream.
    """
    raw = _COMMENTS.sub(b"", raw)
    if _EVENTS.match(raw):
        return _combine(_events(raw))
    lines = raw.strip().splitlines()
    # Ollama's stream format.
    if len(lines) > 1 and all(line.startswith(b"{") and line.endswith(b"}") for line in lines):
        return _combine(map(_json_object, lines))
    return _json_object(raw)


def whole_number(value: Any) -> int | None:
    """Convert ``value`` to an integer if it is a whole number such as 20, 20.0 or "20"; otherwise return None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
        return int(number) if number == int(number) else None
    except (ValueError, OverflowError):
        return None


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        # Stricter than json.loads(raw): only UTF-8, and no repeated keys, which would make the reply ambiguous.
        body = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_without_repeated_keys)
    except (ValueError, RecursionError):
        raise MalformedError("not JSON") from None
    body = body[0] if isinstance(body, list) and len(body) == 1 else body  # Gemini's errors
    if not isinstance(body, dict):
        raise MalformedError(f"a {type(body).__name__}, not an object")
    return _normalized(body)


def _normalized(body: dict[str, Any]) -> dict[str, Any]:
    """Convert a body to OpenAI's format: a list of choices at the top level."""
    for name in _WRAPPERS:
        inner = body.get(name)
        if not body.get("choices") and isinstance(inner, dict) and (inner.get("choices") or inner.get("error")):
            body = {**body, **inner}
    if not body.get("choices") and isinstance(body.get("message"), dict) and "done" in body:  # Ollama's native format
        choice = {"delta": body["message"], "finish_reason": body.get("done_reason")}
        usage = {"prompt_tokens": body.get("prompt_eval_count"), "completion_tokens": body.get("eval_count")}
        body = {**body, "choices": [choice], "usage": usage}
    choices = body.get("choices")
    if isinstance(choices, dict):
        is_one = any(name in choices for name in ("message", "delta", "text"))
        body = {**body, "choices": [choices] if is_one else list(choices.values())}
    return body


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a key occurs twice")
    return table


def _events(raw: bytes) -> Iterator[dict[str, Any]]:
    """Yield the objects of an event stream, and ``{"done": True}`` at its end."""
    for event in re.split(rb"\n\n+", raw.replace(b"\r\n", b"\n")):
        fields = [(name, value) for name, _, value in (line.partition(b":") for line in event.splitlines())]
        data = [value.strip() for name, value in fields if name.endswith(b"data") and value.strip()]
        if any(name.endswith(b"event") and value.strip() == b"error" for name, value in fields):
            yield _event_error(b"\n".join(data))
            continue
        try:
            yield _json_object(b"\n".join(data))  # an object may span several lines
        except MalformedError:
            yield from ({"done": True} if line.strip(b"[]").lower() == b"done" else _json_object(line) for line in data)


def _event_error(data: bytes) -> dict[str, Any]:
    try:
        error = _json_object(data)
    except MalformedError:
        error = {"error": data.decode("utf-8", "replace")}
    return error if error.get("error") else {"error": error}


def _combine(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    choices: dict[str, dict[str, Any]] = {}
    for part in parts:
        body.update((name, value) for name, value in part.items() if name != "choices" and value is not None)
        for position, choice in enumerate(part["choices"] if isinstance(part.get("choices"), list) else []):
            if isinstance(choice, dict):
                index = choice.get("index")
                _add(choices.setdefault(str(position if index is None else index), {}), choice)
    is_complete = (
        body.get("done") or body.get("error") or any(choice.get("finish_reason") for choice in choices.values())
    )
    if not is_complete:
        raise MalformedError("an incomplete stream")
    return {**body, "choices": list(choices.values())}


def _add(whole: dict[str, Any], part: dict[str, Any]) -> None:
    """Merge a part of a choice: later values replace earlier ones, but texts and lists are concatenated.

    Deltas and messages are merged separately, because some servers end with a message that repeats the whole text.
    """
    whole.update((name, value) for name, value in part.items() if name not in _COLLECTED and value is not None)
    tables = ("delta", part.get("delta")), ("message", part.get("message")), ("delta", {"content": part.get("text")})
    for kind, table in tables:
        if not isinstance(table, dict):
            continue
        combined = whole.setdefault(kind if table.get("content") else "delta", {})
        for name, value in table.items():
            if not value:
                continue
            if name == "role" or not isinstance(value, str | list):
                combined[name] = value
            elif isinstance(combined.get(name), list):
                combined[name].extend([value] if isinstance(value, str) else value)
            else:
                combined[name] = [value] if isinstance(value, str) else list(value)
