"""What a chat endpoint says of its own errors, in the words and places of its kind."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_plus

from pmlm_env.io.text import printable
from pmlm_env.llm.http.chat_bodies import MalformedError, read_body, whole_number
from pmlm_env.llm.http.settings import without_keys

#: Zhipu's codes for an account that has no money or is stopped, or whose quota for hours, a day or longer is used up.
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
#: The span of time that is named first is the limit's: "free-models-per-day", "tokens per day (TPD)".
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
#: Words for a limit that was reached, in errors of other statuses than 429.
_LIMIT = re.compile(
    r"rate.?limit.{0,20}(?:exceed|reach|hit)|too.?many.?requests|throttl|(?:daily|weekly|monthly|usage)[-_ ]limit"
    r"|quota.{0,20}(?:exceed|reach|exhaust|used)|(?:exceed|reach|exhaust).{0,40}quota",
    re.IGNORECASE,
)
_NO_ERROR = ("0", "0.0", "200", "ok", "success")  # codes
#: What messages are called, in lower case.
_MESSAGES = (
    *("message", "msg", "status_msg", "error_msg", "errormessage", "error_message", "error_description"),
    *("faultstring", "title", "detail"),
)
#: Codes and types of errors that mean a refusal: Zhipu, Azure, OpenAI, DashScope.
_REFUSAL = re.compile(
    r"\b1301\b|content.?(?:filter|policy|moderat)|data.?inspection|moderation|responsible.?ai", re.IGNORECASE
)
_LONGEST_MESSAGE = 10_000
_SECRET = 8  # letters; a shorter "key" is a word put there for a server that wants one, and stands in other words
_WORD = r"[\w*.…-]"  # a letter of a key, or what servers put in the place of its letters
_QUOTE = 15  # letters and digits in a row that are a quotation
_WAITED_FOR = 60.0  # seconds: some endpoints let a day's quota grow back bit by bit
#: HTTP's status for an error that names none, by its code, type, status and message.
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
    """Return the server's account of its error.

    Args:
        body: The body of an answer.

    Returns:
        The error object with what stands beside it, and all its words as ``message``. Empty where there is no error:
        there are choices, or nothing that says what went wrong.
    """
    found = _find_error(body)
    if found is None:
        return {}
    beside = {name: value for name, value in body.items() if name not in ("error", "choices", "usage")}
    error = {**beside, **found}
    metadata = error.get("metadata")
    cause = metadata.get("raw") if isinstance(metadata, dict) else None  # OpenRouter: what the other server said
    by_name = {name.lower(): value for name, value in error.items()}
    told = [by_name[name] for name in _MESSAGES if isinstance(by_name.get(name), str) and by_name[name]][:1]
    error["message"] = ": ".join([*told, cause] if isinstance(cause, str) else told)[:_LONGEST_MESSAGE]
    return error if error["message"] or status_in(error) else {}


def _find_error(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    choices = body.get("choices")
    places = [body.get("error"), body.get("errors"), body.get("fault")]  # Apigee
    if isinstance(choices, list) and choices:
        places.append(choices[0].get("error") if isinstance(choices[0], dict) else None)  # OpenRouter
    else:
        places.append(body.get("detail"))  # FastAPI, and so transformers serve
    for place in places:
        error = _account(place)
        if error and str(error.get("code")).lower() not in _NO_ERROR:
            return error
    for name, code in (("base_resp", "status_code"), ("header", "code")):  # MiniMax, Spark, in every answer
        outcome = body.get(name)
        if isinstance(outcome, dict) and whole_number(outcome.get(code)):
            return outcome
    return None if choices else body


def _account(error: Any) -> dict[str, Any]:
    """Return an error as an object: some servers wrap it into lists, into further errors, or write it as text."""
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


def error_of(raw: bytes) -> Mapping[str, Any]:
    """Return ``error_in`` of the body of an HTTP answer, which need not be JSON."""
    try:
        return error_in(read_body(raw))
    except MalformedError:
        return {}


def status_in(error: Mapping[str, Any]) -> int | None:
    """Return the HTTP status that an error stands for, where the answer itself has another; None where unknown."""
    for name in ("status_code", "statusCode", "http_status", "http_code", "code", "status"):
        status = whole_number(error.get(name))
        if status is not None and 400 <= status <= 599:
            return status
    if _is_closed(error):
        return 402
    words = _words(error)
    return next((status for status, pattern in _STATUS if pattern.search(words)), None)


def meant_status(status: int, error: Mapping[str, Any]) -> int:
    """Return the status that an error's words speak of, where its own is 400 or 403, which some send at a limit."""
    if status == 420:
        return 429
    if status not in (400, 403):
        return status
    return 402 if _is_closed(error) else 429 if _LIMIT.search(_words(error)) else status


def is_refusal(error: Mapping[str, Any]) -> bool:
    """Whether an error says that the prompt or the reply is one that the model may not deal with."""
    return _REFUSAL.search(f"{error.get('code')} {error.get('type')}") is not None


def is_used_up(error: Mapping[str, Any], pause: float | None) -> bool:
    """Whether the account has no money, is stopped, or has used up its quota for a day or longer.

    Args:
        error: The account of an error whose status is 429.
        pause: Seconds that the server asks to wait. A day's quota that grows back within a minute is not used up.
    """
    if "PerDay" in str(error) or _is_closed(error):  # "PerDay": Gemini, whose pause is then too short
        return True
    if "PerMinute" in str(error):
        return False
    span = _SPAN.search(_words(error))
    return span is not None and span["short"] is None and (pause is None or pause > _WAITED_FOR)


def _is_closed(error: Mapping[str, Any]) -> bool:
    """Whether the code, the type or the message says that the account has no money or is stopped."""
    code, kind, message = (str(error.get(name)) for name in ("code", "type", "message"))
    return code in _ZHIPU_USED_UP or bool(_NO_MONEY_CODE.search(f"{code} {kind}") or _NO_MONEY.search(message))


def _words(error: Mapping[str, Any]) -> str:
    return " ".join(str(error.get(name, "")) for name in ("code", "type", "__type", "status", "message"))


def without_key(text: str, key: str) -> str:
    """Return ``text`` without the key, without words that begin or end as it does, and without all that looks like one.

    To be used before a text is cut, or a part of the key would stay.
    """
    if len(key) >= _SECRET:
        start, end = re.escape(key[:_SECRET]), re.escape(key[-_SECRET:])
        whole = re.compile(rf"{re.escape(key)}|{start}{_WORD}*|(?<!{_WORD}){_WORD}*{end}", re.IGNORECASE)
        text = whole.sub("***", text)
    return without_keys(text)


def quotes(text: str, prompt: str) -> bool:
    """Whether ``text`` holds a part of the prompt, or all of a short one, in whatever spelling."""
    found = _letters(text)
    for quoted in map(_letters, (prompt, json.dumps(prompt))):
        starts = range(max(1, len(quoted) - _QUOTE + 1))
        if quoted and found and any(quoted[start : start + _QUOTE] in found for start in starts):
            return True
    return False


def _letters(text: str) -> str:
    """Return letters and digits alone, which are the same in a URL, in HTML, in capitals and in a list of words."""
    return re.sub(r"[\W_]+", "", html.unescape(unquote_plus(text)).casefold())


def server_says(error: Mapping[str, Any], prompt: str, key: str) -> str:
    """Return the server's message in one line without the key; "" where there is none, or it quotes the prompt."""
    message = without_key(str(error.get("message", "")), key)
    if quotes(message, prompt):
        return "the server's message quotes the prompt and is left out"
    return printable(" ".join(message.split())[:300].rstrip(" .:").encode("utf-8", "replace").decode())
