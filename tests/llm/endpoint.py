"""A real chat endpoint on this machine, which misbehaves on request."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False  # close the connection half way


def chat(text: Any = "Eat well.", reason: Any = "stop", **more: Any) -> Answer:
    usage = {"prompt_tokens": 12, "completion_tokens": 3}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    return Answer(body={"choices": [choice], "usage": usage, **more})


@dataclass
class Endpoint:
    """The server: what it answers, and what it saw."""

    url: str = ""
    answer: Callable[[int, str], Answer] = lambda count, prompt: chat()
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def script(self, *answers: Answer) -> None:
        """Answer the n-th request with the n-th answer, and the last one from there on."""
        self.answer = lambda count, prompt: answers[min(count, len(answers)) - 1]

    @property
    def n_requests(self) -> int:
        return len(self.bodies)


@contextmanager
def serve() -> Iterator[Endpoint]:
    """Run an endpoint on a free port of this machine."""
    state = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                state.bodies.append(body)
                state.headers.append(dict(self.headers))
                state.paths.append(self.path)
                count = state.n_requests
            answer = state.answer(count, body["messages"][-1]["content"])
            raw = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw[: len(raw) // 2] if answer.cut else raw)
            self.close_connection = answer.cut

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
