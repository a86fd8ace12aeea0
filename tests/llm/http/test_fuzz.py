"""Answers with a few wrong bytes: each is a defined error or still a reply, and none hangs."""

from __future__ import annotations

import http.client
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from io import BytesIO
from typing import Any

from pmlm_env.llm.base import Completion, LLMError, Request
from pmlm_env.llm.http.chat_answers import Answer, read_answer
from pmlm_env.llm.http.endpoint import OpenAIChat
from tests.llm import endpoint as server
from tests.llm.endpoint import KEY, PROMPT, Endpoint

N_BODIES = 10_000
N_SOCKETS = 1_500
N_TOKENS = 10**9  # so that no reply counts as cut
_USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}


def _body(text: str, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"choices": [choice], "usage": dict(_USAGE), **more}


#: As OpenAI, Gemini, Zhipu and a server of one's own would have it.
VALID = [
    _body(
        "Eat well, and rest.\n", id="chatcmpl-1", object="chat.completion", created=1, model="m-1", service_tier=None
    ),
    {**_body('Say "no" to \\ 糖。', model="gemini", id="x"), "usage": {**_USAGE, "prompt_tokens_details": {"a": 0}}},
    _body("妊娠糖尿病。控制饮食。", request_id="2026", model="glm"),
    {"choices": [{"message": {"content": "Rest."}, "finish_reason": "STOP"}]},
]
ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 12.5, 1e400, float("nan"), 10**18, 10**4000, "", " ", "stop", "length", "12"),
    *("\ud800", "\x00", "assistant", "user", "content_filter", "tool_calls", [], [[]], {}, {"message": {}}, ["Eat"]),
]


# The oracle: what the specification calls a completion that is whole


def reply_in(body: bytes) -> str | None:
    """Return the reply that ``body`` holds, stripped, or None where there is none to be scored."""
    try:
        data = json.loads(body.decode().removeprefix("\ufeff"), object_pairs_hook=_names_once)
        data = data[0] if type(data) is list and len(data) == 1 else data
        (choice,) = data["choices"]
        message, reason = choice["message"], choice.get("finish_reason")
        reason = reason.lower() if isinstance(reason, str) else ""
        text = _flat(message["content"]).strip()
        text.encode()
        whole = (
            type(data["choices"]) is list
            and text != ""
            and message.get("role", "assistant") not in ("user", "system", "developer", "tool", "function")
            and not any(word in reason for word in ("length", "content_filter", "tool_calls"))
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return text if whole else None


def _flat(content: Any) -> str:
    if content is None or type(content) is str:
        return content or ""
    if type(content) is dict:
        return _flat(content.get("text") or content.get("content"))
    return "".join(map(_flat, content))


def _names_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError
    return dict(pairs)


def reply_over_http(raw: bytes) -> str | None:
    """Return the reply in a whole HTTP answer, as the standard library reads it."""

    class Socket:
        def makefile(self, *args: Any) -> BytesIO:
            return BytesIO(raw)

    try:
        response = http.client.HTTPResponse(Socket(), method="POST")  # type: ignore[arg-type]
        response.begin()
        body = response.read()
    except (http.client.HTTPException, ValueError):
        return None
    return reply_in(body) if 200 <= response.status < 300 else None


# The mutants


def break_bytes(rng: random.Random, raw: bytes) -> bytes:
    """Flip, delete, insert, double, cut or swap, once or up to four times."""
    for _ in range(rng.randint(1, 4)):
        start, stop = sorted(rng.randint(0, len(raw)) for _ in range(2))
        near = min(stop, start + rng.randint(1, 8))
        match rng.randrange(7):
            case 0 if raw:
                place = rng.randrange(len(raw))
                raw = raw[:place] + bytes([raw[place] ^ (1 << rng.randrange(8))]) + raw[place + 1 :]
            case 1:
                raw = raw[:start] + raw[near:]
            case 2:
                raw = raw[:start] + rng.randbytes(rng.randint(1, 6)) + raw[start:]
            case 3:
                raw = raw[:start] + raw[start:stop] * 2 + raw[stop:]
            case 4:
                raw = raw[:stop]
            case 5:
                raw = raw[stop:] + raw[start:stop] + raw[:start]
            case 6:
                raw = raw[:start] + rng.choice(b'{}[]",:\\0-eu\r\n ').to_bytes(1, "big") + raw[start:]
    return raw


def break_json(rng: random.Random, body: Any) -> bytes:
    """Change types, drop or rename keys, double or wrap items, once or twice."""
    body = deepcopy(body)
    for _ in range(rng.randint(1, 2)):
        holder, name = rng.choice(_places(body))
        match rng.randrange(6):
            case 0 | 1 | 2:
                holder[name] = deepcopy(rng.choice(ODD))
            case 3:
                del holder[name]
            case 4:
                holder[name] = [holder[name]] * rng.randint(1, 2)
            case 5:
                holder[name] = {"content": holder[name]}
        if not _places(body):
            break
    return json.dumps(body, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return all (object or array, name or index) below ``value``."""
    names = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [(value, name) for name in names] + [place for name in names for place in _places(value[name])]


def mutant(rng: random.Random, bodies: Sequence[Any] = VALID) -> bytes:
    body = rng.choice(bodies)
    if rng.random() < 0.5:
        return break_json(rng, body)
    return break_bytes(rng, json.dumps(body, ensure_ascii=rng.random() < 0.5).encode())


# The parser


def test_what_is_not_broken_is_a_reply() -> None:
    for body in VALID:
        raw = json.dumps(body).encode()
        attempt = read_answer(Answer(200, {}, raw), PROMPT, KEY, N_TOKENS, "error")
        assert attempt.reply is not None
        assert attempt.reply.text == reply_in(raw) == body["choices"][0]["message"]["content"].strip()


def test_of_10000_malformed_bodies_none_is_scored_and_each_is_a_defined_error() -> None:
    rng, seen = random.Random(0), Counter[str]()
    while seen["malformed"] < N_BODIES:
        raw = mutant(rng)
        expected = reply_in(raw)
        attempt = read_answer(Answer(200, {}, raw), PROMPT, KEY, N_TOKENS, "error")
        if expected is None:
            seen["malformed"] += 1
            assert attempt.reply is None, raw
            assert attempt.error, raw
            assert "\n" not in attempt.error
            assert len(attempt.error) < 300
            seen[attempt.error.partition("(")[0]] += 1
        else:
            seen["still whole"] += 1
            assert attempt.reply is not None, (raw, attempt.error)
            assert attempt.reply.text == expected
            assert attempt.reply.finish_reason == "stop"
            tokens = attempt.reply.prompt_tokens, attempt.reply.completion_tokens
            assert tokens == (attempt.tokens or (0, 0))
            assert all(type(count) is int and count >= 0 for count in tokens)
    assert seen["still whole"] > 1000  # mutants near the border on both its sides
    assert len(seen) >= 7  # and errors of many kinds


def test_no_error_answer_however_broken_is_scored_or_breaks_the_reader() -> None:
    rng = random.Random(1)
    errors = [
        {"error": {"message": f"No: {PROMPT}", "code": 3}},
        [{"error": {"message": f"key {KEY}"}}],
        {"error": "no"},
    ]
    for _ in range(5000):
        headers = {"retry-after": break_bytes(rng, b"Wed, 21 Oct 2026 07:28:00 GMT").decode("latin-1")}
        status = rng.choice([101, 300, 307, 400, 401, 404, 408, 418, 429, 500, 503, 599])
        attempt = read_answer(Answer(status, headers, mutant(rng, [*errors, *VALID])), PROMPT, KEY, N_TOKENS, "error")
        assert attempt.reply is None
        assert f"HTTP {status}" in attempt.error
        assert "\n" not in attempt.error
        assert KEY not in attempt.error
        assert PROMPT not in attempt.error


# The socket


def whole_answers() -> list[tuple[bytes, bytes]]:
    """Head and body of good answers, by length and in chunks."""
    out = []
    for body in VALID:
        raw = json.dumps(body, ensure_ascii=False).encode()
        common = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Type: application/json\r\nX-Request-Id: r-1\r\n"
        out.append((common + b"Content-Length: %d\r\n\r\n" % len(raw), raw))
        cut = len(raw) // 2
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (raw[:cut], raw[cut:], b""))
        out.append((common + b"Transfer-Encoding: chunked\r\n\r\n", chunks))
    return out


def test_over_a_socket_broken_answers_are_errors_or_what_the_standard_library_reads_in_them(
    endpoint: Endpoint, connect: Callable[..., OpenAIChat]
) -> None:
    rng = random.Random(2)
    mutants = []
    for _ in range(N_SOCKETS):
        head, body = rng.choice(whole_answers())
        kind = rng.randrange(3)
        mutants.append(
            break_bytes(rng, head) + body if kind == 0 else head + break_bytes(rng, body) if kind == 1 else
            break_bytes(rng, head + body)
        )  # fmt: skip
    endpoint.answer = lambda count, prompt: server.Answer(raw=mutants[int(prompt)])
    llm = connect(tries=1, read_timeout=0.5, concurrency=16, patience=20.0, max_tokens=N_TOKENS)
    replies = llm.ask([Request(str(i)) for i in range(N_SOCKETS)])
    scored = 0
    for raw, reply in zip(mutants, replies, strict=True):
        assert isinstance(reply, Completion | LLMError)
        if isinstance(reply, Completion):
            scored += 1
            assert reply.text == reply_over_http(raw), raw
        else:
            assert str(reply).startswith(f"some-model at {endpoint.url}: ")
            assert "\n" not in str(reply)
    assert N_SOCKETS - scored > 1000
    assert scored > 50
    # A server that closes without a word may do so just before the next request, which then gets lost.
    assert N_SOCKETS * 0.9 < endpoint.n_requests <= llm.budget.usage.calls == N_SOCKETS


def test_over_a_socket_a_broken_body_in_a_whole_answer_is_a_reply_exactly_if_it_holds_one(
    endpoint: Endpoint, connect: Callable[..., OpenAIChat]
) -> None:
    rng = random.Random(3)
    mutants = [mutant(rng) for _ in range(500)]
    endpoint.answer = lambda count, prompt: server.Answer(200, mutants[int(prompt)])
    replies = connect(tries=1, concurrency=16, max_tokens=N_TOKENS).ask([Request(str(i)) for i in range(500)])
    texts = [reply.text if isinstance(reply, Completion) else None for reply in replies]
    assert texts == [reply_in(raw) for raw in mutants]
