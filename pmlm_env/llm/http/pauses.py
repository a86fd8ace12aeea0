"""Finding how long an endpoint asks to wait before the next request, in headers, fields or messages."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

_UNITS = {
    **dict.fromkeys(("ns", "nanosecond"), 1e-9),
    **dict.fromkeys(("us", "µs", "microsecond"), 1e-6),
    **dict.fromkeys(("ms", "msec", "millisecond", "毫秒"), 1e-3),
    **dict.fromkeys(("s", "sec", "second", "秒", "秒钟"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "分", "分钟"), 60.0),
    **dict.fromkeys(("h", "hr", "hour", "小时"), 3600.0),
    **dict.fromkeys(("d", "day", "天"), 86400.0),
}
_NUMBER = r"\d{1,12}(?:\.\d{1,20})?"  # bounded, so that matching takes little time for any text
_PART = rf"({_NUMBER})\s?({'|'.join(sorted(_UNITS, key=len, reverse=True))})s?(?![a-z])"
_AMOUNT = re.compile(_PART, re.IGNORECASE)
_DURATION = rf"{_PART}(?:\s?(?:,|and\b)?\s?{_PART}){{0,4}}"
_TIME = r"20\d\d-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)?"
_SENTENCES = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # Please try again in 7h12m.
        rf"\b(?:again|retry) (?:in|after) (?P<pause>{_DURATION})",
        # Retry after 6.
        rf"\b(?:again|retry) (?:in|after) (?P<pause>{_NUMBER})(?!\.?\w|[:/-])",
        # Your limit resets at 2026-11-26T10:00:00Z.
        rf"\b(?:again|retry|resets?|available|until)\b[^\d.;!?]{{0,20}}(?P<pause>{_TIME})",
        # 2 seconds until reset
        rf"(?P<pause>{_DURATION}) (?:until|before|till) [^\d.;!?]{{0,20}}(?:reset|retry|again|next)",
        # 请在2秒后重试
        rf"(?P<pause>{_DURATION})\s?(?:之|以)?后",
        # Please wait for 6 seconds.
        rf"\b(?:again|retry|wait|resets?|available|allowed)\b[^\d.;:!?]{{0,40}}?(?P<pause>{_DURATION})",
    )
]
_ONE = re.compile(r"\ban? (?=second|minute|hour|day)", re.IGNORECASE)
#: Retry-After, retry-after-ms, x-ms-retry-after-ms; retry_after_seconds, retryDelay (Gemini), estimated_time (TGI),
#: resets_in_seconds, wait_seconds.
_FIELD = re.compile(
    r"(?:x[-_])?(?:ms[-_])?(?:retry[-_]?(?:after|delay|in|at)|resets?[-_](?:in|at|after)|wait(?:[-_]time)?)(?:[-_]?(?:(?P<ms>ms|milliseconds)|s|sec|seconds))?|estimated_time",
    re.IGNORECASE,
)
#: The ``RateLimit`` header of newer IETF drafts: ``"default";r=0;t=6`` or ``limit=10, remaining=0, reset=6``.
_RATE_LIMIT = re.compile(r"\b(?:r|remaining)=(\d+)\b.{0,40}?\b(?:t|reset)=(\d+)")
_UNIX_TIME = 1e9  # larger numbers are times, not durations
_UNIX_TIME_MS = 1e11
_MAX_PAUSE = 366 * 86400.0  # longer pauses are ignored as invalid
_MAX_UNKNOWN_RESET = 3600.0  # for limits of unknown remaining amount


def requested_pause(headers: Mapping[str, str], error: Mapping[str, Any], *, at_limit: bool) -> float | None:
    """Return how long the endpoint asks to wait, in seconds from now.

    Sources, in this order: ``Retry-After`` and similar headers; such fields in the body, including OpenRouter's copy of
    another server's headers and Gemini's ``RetryInfo``; the message; the times at which used-up limits are reset.

    Args:
        headers: Headers of the answer.
        error: The server's error object; see ``server_errors.error_in``.
        at_limit: Whether the status means too many requests, so that reset times are relevant.

    Returns:
        The pause; None if the server asks for none, or for one that is past, not a number or over a year.
    """
    metadata = _mapping(error.get("metadata"))
    copied_headers = _mapping(metadata.get("headers"))
    details = error.get("details")
    tables = [headers, copied_headers, error, metadata, error.get("parameters")]
    for table in tables + (details if isinstance(details, list) else [details]):
        for pause_in_field in _pauses_in_fields(_mapping(table)):
            return pause_in_field
    pause = _pause_in_message(str(error.get("message", "")))
    if pause is None and at_limit:
        pause = _reset(headers) or _reset(copied_headers)
    return pause


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _pauses_in_fields(table: Mapping[str, Any]) -> Iterator[float]:
    for name, value in table.items():
        field = _FIELD.fullmatch(name)
        pause = _parse_pause(value, 1e-3 if field["ms"] else 1.0) if field is not None else None
        if pause is not None:
            yield pause


def _pause_in_message(message: str) -> float | None:
    matches = (pattern.search(_ONE.sub("1 ", message)) for pattern in _SENTENCES)
    return next((_parse_pause(match["pause"]) for match in matches if match is not None), None)


def _reset(headers: Mapping[str, Any]) -> float | None:
    """Return the seconds until all used-up limits are reset."""
    table = {name.lower(): value for name, value in headers.items()}
    limits = [
        (table.get(name.replace("reset", "remaining")), value)
        for name, value in table.items()
        if "limit" in name and "reset" in name
    ]
    limits += _RATE_LIMIT.findall(str(table.get("ratelimit")))
    used_up, unknown = [], []
    for remaining, reset in limits:
        n_remaining, pause = _number(remaining), _parse_pause(reset)
        if pause is not None and n_remaining is None and pause <= _MAX_UNKNOWN_RESET:
            unknown.append(pause)
        elif pause is not None and n_remaining is not None and n_remaining < 1:
            used_up.append(pause)
    return max(used_up, default=min(unknown, default=None))


def _parse_pause(value: Any, unit: float = 1.0) -> float | None:
    """Convert a number, duration, date or Unix time to seconds from now."""
    seconds = _number(value)
    if seconds is not None:
        seconds *= unit
        if seconds >= _UNIX_TIME:
            seconds = seconds / (1000 if seconds >= _UNIX_TIME_MS else 1) - time.time()
    elif isinstance(value, str):
        seconds = _duration(value.strip())
        seconds = _until(value.strip()) if seconds is None else seconds
    return seconds if seconds is not None and 0 < seconds <= _MAX_PAUSE else None


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _duration(text: str) -> float | None:
    if re.fullmatch(_DURATION, text, re.IGNORECASE) is None:
        return None
    return sum(float(amount) * _UNITS[unit.lower()] for amount, unit in _AMOUNT.findall(text))


def _until(date: str) -> float | None:
    """Return the seconds until a date in RFC 3339 format (by default in UTC) or HTTP format."""
    try:
        # Python 3.10 accepts neither "Z" nor an arbitrary number of decimals.
        when = datetime.fromisoformat(re.sub(r"\.\d+", "", date.upper()).replace("Z", "+00:00"))
    except ValueError:
        try:
            when = parsedate_to_datetime(date)
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
    when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
    return (when - datetime.now(timezone.utc)).total_seconds()
