"""A real chat endpoint on this machine, which misbehaves on request."""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
import ssl
import struct
import threading
from asyncio import sleep  # under its own name: whoever patches asyncio.sleep means the client's
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

#: How much of an answer gets there, or how.
Delivery = Literal[
    "whole", "nothing", "half a header", "half a body", "reset", "stalled", "stalled body", "dripping", "endless"
]

KEY = "sk-secret-0123456789abcdef"
PROMPT = "The predicted condition is gestational diabetes; 6 of 10 similar patients had it."
_MOST_ENDLESS = 64_000_000
#: Certificates with their keys, each signed by itself: own.pem for this machine, expired.pem, other-host.pem.
CERTIFICATES = Path(__file__).parent / "certificates"


@dataclass
class Answer:
    """What the server says: ``body`` as it is where it is bytes, else as JSON; or ``raw``, headers and all."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    delivery: Delivery = "whole"
    raw: bytes | None = None

    def bytes(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def chat(text: Any = "Eat well.", reason: Any = "stop", delivery: Delivery = "whole", **more: Any) -> Answer:
    usage = {"prompt_tokens": 12, "completion_tokens": 3}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    return Answer(body={"choices": [choice], "usage": usage, **more}, delivery=delivery)


@dataclass
class Endpoint:
    """The server: what it answers, and what it saw. ``answer`` runs on its event loop, and must not block."""

    url: str = ""
    answer: Callable[[int, str], Answer | Awaitable[Answer]] = lambda count, prompt: chat()
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    n_connections: int = 0
    bytes_sent: int = 0  # of endless answers

    def script(self, *answers: Answer) -> None:
        """Answer the n-th request with the n-th answer, and the last one from there on."""
        self.answer = lambda count, prompt: answers[min(count, len(answers)) - 1]

    @property
    def n_requests(self) -> int:
        return len(self.bodies)

    @property
    def prompts(self) -> list[str]:
        return [body["messages"][-1]["content"] for body in self.bodies]


@contextmanager
def serve(certificate: Path | None = None) -> Iterator[Endpoint]:
    """Run an endpoint on a free port of this machine, in a thread of its own; with a certificate over TLS."""
    state = Endpoint()
    tls = None
    if certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="endpoint", daemon=True)
    thread.start()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(
            lambda r, w: _serve_connection(state, r, w), "127.0.0.1", 0, backlog=512, ssl=tls
        )

    async def stop() -> None:
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    server = asyncio.run_coroutine_threadsafe(start(), loop).result()
    state.url = f"http{'' if tls is None else 's'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield state
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _serve_connection(state: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    state.n_connections += 1
    try:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):  # or it is logged
            while await _serve_request(state, reader, writer):
                pass
    finally:
        writer.close()


async def _serve_request(state: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Answer a request, and say whether the connection stays open."""
    request, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines if line)
    by_name = {name.lower(): value for name, value in headers.items()}
    body = json.loads(await reader.readexactly(int(by_name.get("content-length", 0))) or b"{}")
    state.headers.append(headers)
    state.paths.append(request.split()[1])
    state.bodies.append(body)
    prompt = body["messages"][-1]["content"] if "messages" in body else ""
    answer = state.answer(state.n_requests, prompt)
    if inspect.isawaitable(answer):
        answer = await answer
    return await _deliver(state, answer, reader, writer)


async def _deliver(state: Endpoint, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    if answer.raw is not None:
        writer.write(answer.raw)
        await writer.drain()
        return False
    raw = answer.bytes()
    endless = answer.delivery in ("dripping", "endless")
    length = {"Transfer-Encoding": "chunked"} if endless else {"Content-Length": str(len(raw))}
    lines = [f"{name}: {value}" for name, value in {**answer.headers, **length}.items()]
    head = "\r\n".join([f"HTTP/1.1 {answer.status} As it is", *lines, "", ""]).encode("latin-1")
    if answer.delivery == "whole":
        writer.write(head + raw)
        await writer.drain()
        return True
    if answer.delivery == "reset":
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    elif answer.delivery == "half a header":
        writer.write(head[: len(head) // 2])
    elif answer.delivery == "half a body":
        writer.write(head + raw[: len(raw) // 2])
    elif answer.delivery in ("stalled", "stalled body"):
        writer.write(head + raw[: len(raw) // 2] if answer.delivery == "stalled body" else b"")
        await reader.read()  # until the client gives up
    elif endless:
        writer.write(head)
        part = b"1\r\n \r\n" if answer.delivery == "dripping" else b"10000\r\n" + b" " * 65536 + b"\r\n"
        while state.bytes_sent < _MOST_ENDLESS and not writer.is_closing():
            writer.write(part)
            await writer.drain()
            state.bytes_sent += len(part)
            await sleep(0.01 if answer.delivery == "dripping" else 0)
    return False
