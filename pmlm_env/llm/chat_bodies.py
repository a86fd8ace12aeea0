"""The JSON of a chat endpoint's answers, whole or as a stream of events."""

from __future__ import annotations

import json
import re
from typing import Any

_EVENTS = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:data|event|id|retry)?:")  # a line of a stream; no JSON begins so


class MalformedError(Exception):
    """The answer is not of the shape of a chat completion; the message says where."""


def read_body(raw: bytes) -> dict[str, Any]:
    """Return the object that an answer holds.

    Some servers stream though they are asked not to. The parts of such an answer are put together into the object that
    the server would have sent otherwise, except that a ``content`` is a list of its parts.

    Args:
        raw: The body of an HTTP answer.

    Raises:
        MalformedError: It is no JSON object in UTF-8, it holds a name twice, or it is a stream that breaks off.
    """
    return _put_together(raw) if _EVENTS.match(raw) else _json_object(raw)


def whole_number(value: Any) -> int | None:
    """Return the whole number that ``value`` is or spells: 20, 20.0 or "20"; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
        return int(number) if number == int(number) else None
    except (ValueError, OverflowError):
        return None


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        # Stricter than json.loads(raw): UTF-8 only, and each name once (which of two texts was the reply?).
        body = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_each_once)
    except (ValueError, RecursionError):
        raise MalformedError("no JSON") from None
    body = body[0] if isinstance(body, list) and len(body) == 1 else body  # Gemini's errors
    if not isinstance(body, dict):
        raise MalformedError(f"a {type(body).__name__}, not an object")
    return body


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name comes twice")
    return table


def _put_together(raw: bytes) -> dict[str, Any]:
    body: dict[str, Any] = {}
    choices: dict[str, dict[str, Any]] = {}
    ended = False
    for line in raw.splitlines():
        field, _, data = line.partition(b":")
        if not field.endswith(b"data") or not data.strip():
            continue
        if data.strip() == b"[DONE]":
            ended = True
            continue
        part = _json_object(data)
        body.update((name, value) for name, value in part.items() if name != "choices" and value is not None)
        for choice in part["choices"] if isinstance(part.get("choices"), list) else []:
            if isinstance(choice, dict):
                _add(choices.setdefault(str(choice.get("index")), {"message": {}}), choice)
    if not ended and not body.get("error") and not any(choice.get("finish_reason") for choice in choices.values()):
        raise MalformedError("a stream that breaks off")
    return {**body, "choices": list(choices.values())}


def _add(whole: dict[str, Any], part: dict[str, Any]) -> None:
    """Add a part of a choice: what is told again replaces what was told; texts and lists are collected."""
    told = {name: value for name, value in part.items() if name not in ("delta", "message") and value is not None}
    whole.update(told)
    delta = part.get("delta") or part.get("message")
    for name, value in delta.items() if isinstance(delta, dict) else []:
        if not value:
            continue
        if name == "role" or not isinstance(value, str | list):
            whole["message"][name] = value
        elif isinstance(whole["message"].get(name), list):
            whole["message"][name].extend([value] if isinstance(value, str) else value)
        else:
            whole["message"][name] = [value] if isinstance(value, str) else list(value)
