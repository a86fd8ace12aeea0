"""Interpreting the error objects and messages of chat endpoints."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_plus

from pmlm_env.io.keys import without_keys
from pmlm_env.io.text import printable
from pmlm_env.llm.http.chat_bodies import MalformedError, read_body, whole_number

#: Zhipu's codes for an account without credit, a suspended one, or a used-up quota for hours or longer.
_ZHIPU_USED_UP = frozenset({"1110", "1111", "1112", "1113", "1121", "1304", "1308", "1309", "1310", "1311"})
_NO_MONEY_CODE = re.compile(
    r"insufficient.?(?:quota|balance|credit|fund)|credit|exceeded.?current.?quota|billing|arrear|payment", re.IGNORECASE
)
_NO_MONEY = re.compile(
    r"insufficient.{0,9}(?:balance|credit|fund)|credit balance|pre-?paid (?:balance|credit)"
    r"|out of (?:credit|fund|money)|\bno (?:more |remaining )?(?:credits?|funds|money)\b"
    r"|used (?:up )?all.{0,9} credits|budget.{0,20} exceeded"
    r"|(?:account|organi[sz]ation).{0,20} (?:suspend|deactivat|frozen)"
    r"|欠费|余额不足|(?:账户|账号|帐户).{0,6}(?:停用|冻结|封禁)",
    re.IGNORECASE,
)
#: The period of a limit, which is the first one named: "free-models-per-day", "tokens per day (TPD)".
_SPAN = re.compile(
    r"(?P<short>(?:(?:per|each|every)[-_ ]?|/ ?)(?:(?!24)\d{1,3}[-_ ]?)?(?:sec|min|hour|[smh]\b)"
    r"|(?<![a-z])[rt]p[smh](?![a-z])|每(?:秒|分钟|小时))"
    r"|(?:(?:per|each|every)[-_ ]?|/ ?)(?:1[-_ ]?)?(?:day|week|month|d\b)|daily|weekly|monthly"
    r"|(?<![a-z])[rt]pd(?![a-z])|\b(?:the|this|a) day\b(?!-)|day's.{0,20}(?:quota|limit)|until tomorrow"
    r"|next (?:day|week|month)"
    r"|(?:quota|limit|requests|tokens|calls).{0,20}\btoday\b"
    r"|\b24.?h(?:ours)?\b|\d[- ]?h(?:ours?)?[- ](?:usage|limit|quota|window)"
    r"|(?:usage[-_ ]limit|exceeded your current quota)(?!.{0,300}(?:second|minute))"
    r"|(?:每|今|当)(?:日|天)|(?:每|本|当)(?:周|月)|\d ?小时.{0,6}(?:上限|限额|额度)",
    re.IGNORECASE,
)
#: Words for a reached limit, in errors with a status other than 429.
_LIMIT = re.compile(
    r"rate.?limit.{0,20}(?:exceed|reach|hit)|too.?many.?requests|throttl|(?:daily|weekly|monthly|usage)[-_ ]limit"
    r"|quota.{0,20}(?:exceed|reach|exhaust|used)|(?:exceed|reach|exhaust).{0,40}quota",
    re.IGNORECASE,
)
_NO_ERROR = ("0", "0.0", "200", "ok", "success")  # codes
#: Names of message fields, in lower case.
_MESSAGES = (
    *("message", "msg", "status_msg", "error_msg", "errormessage", "error_message", "error_description"),
    *("faultstring", "title", "detail"),
)
#: Codes and types of errors that mean a refusal: Zhipu, Azure, OpenAI, DashScope.
_REFUSAL = re.compile(
    r"\b1301\b|content.?(?:filter|policy|moderat)|data.?inspection|moderation|responsible.?ai", re.IGNORECASE
)
_CODE = re.compile(r"\w[\w.-]{0,59}", re.ASCII)  # one word, which cannot quote a prompt
_MAX_MESSAGE = 10_000
_MIN_KEY = 8  # characters; shorter "keys" are placeholders for servers that require one, and occur in other words
_WORD = r"[\w*.…-]"  # a character of a key, or a mask character that servers replace it with
_QUOTE_LENGTH = 15  # this many consecutive letters and digits are a quotation
_SHORT_PAUSE = 60.0  # seconds: some endpoints renew a daily quota gradually
#: HTTP status -> pattern of the code, type, status or message of an error without HTTP status.
_STATUS = tuple(
    (status, re.compile(words, re.IGNORECASE))
    for status, words in (
        (429, r"rate.?limit|too.?many.?requests|resource.?exhausted|throttl|quota"),
        (503, r"overload|unavailable|capacity|try again"),
        (401, r"authenticat|unauthorized|invalid.?api.?key"),
        (403, r"permission|forbidden"),
        (404, r"not.?found"),
        (400, r"invalid.?(?:request|argument)|bad.?request|context.?length"),
        (500, r"internal|server.?error|api.?error|timeout|timed.?out"),
    )
)


def error_in(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the server's error object.

    Args:
        body: The body of an answer.

    Returns:
        The error object and the fields beside it, with its text as ``message``. Empty if there is no error: there are
        choices, or nothing describes an error.
    """
    found = _find_error(body)
    if found is None:
        return {}
    beside = {name: value for name, value in body.items() if name not in ("error", "choices", "usage")}
    error = {**beside, **found}
    metadata = error.get("metadata")
    cause = metadata.get("raw") if isinstance(metadata, dict) else None  # OpenRouter: the upstream server's message
    by_name = {name.lower(): value for name, value in error.items()}
    messages = [by_name[name] for name in _MESSAGES if isinstance(by_name.get(name), str) and by_name[name]][:1]
    error["message"] = ": ".join([*messages, cause] if isinstance(cause, str) else messages)[:_MAX_MESSAGE]
    return error if error["message"] or status_in(error) else {}


def _find_error(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    choices = body.get("choices")
    candidates = [body.get("error"), body.get("errors"), body.get("fault")]  # Apigee
    if isinstance(choices, list) and choices:
        candidates.append(choices[0].get("error") if isinstance(choices[0], dict) else None)  # OpenRouter
    else:
        candidates.append(body.get("detail"))  # FastAPI, used by transformers serve
    for candidate in candidates:
        error = _error_object(candidate)
        if error and str(error.get("code")).lower() not in _NO_ERROR:
            return error
    for name, code in (("base_resp", "status_code"), ("header", "code")):  # MiniMax and Spark, in every answer
        outcome = body.get(name)
        if isinstance(outcome, dict) and whole_number(outcome.get(code)):
            return outcome
    return None if choices else body


def _error_object(error: Any) -> dict[str, Any]:
    """Return an error as an object, because some servers nest it in lists or errors, or send it as text."""
    for _ in range(5):
        if isinstance(error, list) and error:
            error = error[0]
        elif isinstance(error, str) and error:
            try:
                error = read_body(error.encode("utf-8", "replace"))
            except MalformedError:
                return {"message": error}
        elif isinstance(error, dict) and error.get("error"):
            inner, rest = error["error"], {name: value for name, value in error.items() if name != "error"}
            error = {**(inner if isinstance(inner, dict) else {"message": inner}), **rest}
    return error if isinstance(error, dict) else {}


def error_in_raw_body(raw: bytes) -> Mapping[str, Any]:
    """Return ``error_in`` of a raw HTTP body, which need not be JSON."""
    try:
        return error_in(read_body(raw))
    except MalformedError:
        return {}


def status_in(error: Mapping[str, Any]) -> int | None:
    """Return the HTTP status that an error object stands for, or None if unknown."""
    for name in ("status_code", "statusCode", "http_status", "http_code", "code", "status"):
        status = whole_number(error.get(name))
        if status is not None and 400 <= status <= 599:
            return status
    if _has_no_credit(error):
        return 402
    words = _searchable_text(error)
    return next((status for status, pattern in _STATUS if pattern.search(words)), None)


def actual_status(status: int, error: Mapping[str, Any]) -> int:
    """Return the status that the error text implies if ``status`` is 400 or 403, which some servers send at a limit."""
    if status == 420:
        return 429
    if status not in (400, 403):
        return status
    return 402 if _has_no_credit(error) else 429 if _LIMIT.search(_searchable_text(error)) else status


def is_refusal(error: Mapping[str, Any]) -> bool:
    """Whether an error means that the model refused the prompt or the reply."""
    return _REFUSAL.search(f"{error.get('code')} {error.get('type')}") is not None


def is_used_up(error: Mapping[str, Any], pause: float | None) -> bool:
    """Whether the account has no credit, is suspended, or has used up a quota for a day or longer.

    Args:
        error: The error object of an answer with status 429.
        pause: Seconds that the server asks to wait. A daily quota that is renewed within a minute is not used up.
    """
    if "PerDay" in str(error) or _has_no_credit(error):  # "PerDay": Gemini, which then asks for too short a pause
        return True
    if "PerMinute" in str(error):
        return False
    span = _SPAN.search(_searchable_text(error))
    return span is not None and span["short"] is None and (pause is None or pause > _SHORT_PAUSE)


def _has_no_credit(error: Mapping[str, Any]) -> bool:
    """Whether the code, type or message says that the account has no credit or is suspended."""
    code, kind, message = (str(error.get(name)) for name in ("code", "type", "message"))
    return code in _ZHIPU_USED_UP or bool(_NO_MONEY_CODE.search(f"{code} {kind}") or _NO_MONEY.search(message))


def _searchable_text(error: Mapping[str, Any]) -> str:
    return " ".join(str(error.get(name, "")) for name in ("code", "type", "__type", "status", "message"))


def without_key(text: str, key: str) -> str:
    """Replace in ``text`` the key, words that start or end like it, and everything that looks like a key.

    Call it before a text is shortened; otherwise part of the key could remain.
    """
    if len(key) >= _MIN_KEY:
        start, end = re.escape(key[:_MIN_KEY]), re.escape(key[-_MIN_KEY:])
        whole = re.compile(rf"{re.escape(key)}|{start}{_WORD}*|(?<!{_WORD}){_WORD}*{end}", re.IGNORECASE)
        text = whole.sub("***", text)
    return without_keys(text)


def quotes(text: str, prompt: str) -> bool:
    """Whether ``text`` contains a part of the prompt, or all of a short one, ignoring encoding and case."""
    found = _letters(text)
    for quoted in map(_letters, (prompt, json.dumps(prompt))):
        starts = range(max(1, len(quoted) - _QUOTE_LENGTH + 1))
        if quoted and found and any(quoted[start : start + _QUOTE_LENGTH] in found for start in starts):
            return True
    return False


def _letters(text: str) -> str:
    """Return only letters and digits, case-folded, which are the same in URLs, HTML and lists of words."""
    return re.sub(r"[\W_]+", "", html.unescape(unquote_plus(text)).casefold())


def error_code(error: Mapping[str, Any]) -> str:
    """Return the server's code or type of an error, which quotes no prompt; "" if there is none."""
    words = (str(error.get(name) or "") for name in ("code", "type"))
    return next((word for word in words if _CODE.fullmatch(word)), "")


def server_message(error: Mapping[str, Any], prompt: str | None, key: str) -> str:
    """Return the server's message in one line without the key, or "" if there is none.

    If it is unknown which prompts the message may quote (``prompt`` is None), the error's code takes its place.
    """
    if prompt is None:
        return error_code(error)
    message = without_key(str(error.get("message", "")), key)
    if quotes(message, prompt):
        return "the server's message quotes the prompt and is left out"
    return printable(" ".join(message.split())[:300].rstrip(" .:").encode("utf-8", "replace").decode())
