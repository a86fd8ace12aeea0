"""An endpoint of which a part of all requests, drawn by a seed, goes wrong in one of many ways."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

from tests.llm.endpoint import Answer, Endpoint, chat, serve

#: What a prompt is booked at for the template besides its bytes; see ``pmlm_env.llm.storage.budget``.
TEMPLATE = 100
Spoil = Callable[[Answer], Answer]


def _status(status: int, headers: Mapping[str, str] | None = None, body: Any = None) -> Spoil:
    return lambda good: Answer(status, body or {"error": {"message": "no"}}, dict(headers or {}))


def _delivery(delivery: Any) -> Spoil:
    return lambda good: Answer(200, good.body, delivery=delivery)


def _choice(**parts: Any) -> Spoil:
    """Change the choice, or its message where the part is one of a message."""

    def spoil(good: Answer) -> Answer:
        (choice,) = good.body["choices"]
        message = {**choice["message"], **{name: parts[name] for name in parts if name in ("content", "role")}}
        rest = {name: value for name, value in parts.items() if name not in message}
        return Answer(200, {**good.body, "choices": [{**choice, "message": message, **rest}]})

    return spoil


def _bytes(change: Callable[[bytes], bytes]) -> Spoil:
    return lambda good: Answer(200, change(good.bytes()))


#: What may go better the next time.
PASSING: dict[str, Spoil] = {
    "408": _status(408),
    "409": _status(409),
    "429": _status(429),
    "429, seconds": _status(429, {"Retry-After": "0.01"}),
    "429, a date": lambda good: _status(429, {"Retry-After": formatdate(usegmt=True)})(good),
    "500": _status(500),
    "502": _status(502, body=b""),
    "503, HTML": _status(503, {"Content-Type": "text/html"}, b"<html><body>busy</body></html>"),
    "closed before an answer": _delivery("nothing"),
    "closed in the headers": _delivery("half a header"),
    "closed in the body": _delivery("half a body"),
    "reset": _delivery("reset"),
    "stalled": _delivery("stalled"),
    "empty text": _choice(content=""),
    "truncated JSON": _bytes(lambda raw: raw[: len(raw) // 2]),
    "no choices": lambda good: Answer(200, {**good.body, "choices": []}),
    "2 choices": lambda good: Answer(200, {**good.body, "choices": good.body["choices"] * 2}),
    "a number as text": _choice(content=12),
    "another role": _choice(role="user"),
    "200, error 502": lambda good: Answer(200, {"error": {"code": 502, "message": "no"}, "choices": None}),
    "half a stream": _bytes(lambda raw: b'data: {"choices": [{"delta": {"content": "Eat"}}]}\n\n'),
}
#: What will not, so that nobody asks again at once.
LASTING: dict[str, Spoil] = {
    "filtered": _choice(finish_reason="content_filter"),
    "length": _choice(finish_reason="length"),
    "thoughts alone": _choice(content="<think>Eat well.</think>"),
    "400": _status(400),
    "401": _status(401),
    "403": _status(403),
    "404": _status(404),
}
FAULTS = {**PASSING, **LASTING}
#: Faults that are no answers of a model and cost no tokens.
_FREE = {name for name in FAULTS if name[:3].isdigit()}
#: Faults after which the client does not know what was billed.
_UNTOLD = {
    *("closed before an answer", "closed in the headers", "closed in the body", "reset", "stalled"),
    *("truncated JSON", "half a stream"),
}


@dataclass
class FaultServer:
    """What the server did.

    Attributes:
        endpoint: Its other side.
        rate: Which part of all requests goes wrong.
        seed: Draws which, and how: by the prompt and by how often it was asked, so that threads change nothing.
        faults: How often each fault came up.
        asked: How often each prompt was asked.
        replied: How often each prompt was replied to as it should be.
        billed: Tokens in and out as the client should have booked them: where it was told, what it was told.
    """

    endpoint: Endpoint
    rate: float
    seed: int
    max_tokens: int
    faults: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    replied: Counter[str] = field(default_factory=Counter)
    billed: Counter[str] = field(default_factory=Counter)

    def answer(self, count: int, prompt: str) -> Answer:
        self.asked[prompt] += 1
        rng = random.Random(f"{self.seed} {self.asked[prompt]} {prompt}")
        good = self._reply(prompt)
        usage = good.body["usage"]
        if rng.random() >= self.rate:
            self.replied[prompt] += 1
            self.billed.update(usage)
            return good
        fault = rng.choice(sorted(FAULTS))
        self.faults[fault] += 1
        if fault in _UNTOLD:
            self.billed.update(prompt_tokens=len(prompt.encode()) + TEMPLATE, completion_tokens=self.max_tokens)
        elif fault not in _FREE:
            self.billed.update(usage)
        return FAULTS[fault](good)

    @staticmethod
    def _reply(prompt: str) -> Answer:
        """Return every third word or so, picked by a hash of the whole prompt."""
        words = prompt.split()
        bits = int.from_bytes(hashlib.sha512(prompt.encode()).digest(), "big")
        text = " ".join(word for i, word in enumerate(words) if bits >> (2 * i % 510) & 3 == 0) or "Nothing."
        answer = chat(text)
        answer.body["usage"] = {"prompt_tokens": len(words), "completion_tokens": len(text.split())}
        return answer


@contextmanager
def serve_faults(rate: float, max_tokens: int, seed: int = 0) -> Iterator[FaultServer]:
    """Run such a server on a free port of this machine."""
    with serve() as endpoint:
        server = FaultServer(endpoint, rate, seed, max_tokens)
        endpoint.answer = server.answer
        yield server
