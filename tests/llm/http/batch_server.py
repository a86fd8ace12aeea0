"""A batch API on this machine that behaves as OpenAI documents it, and misbehaves on request."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pmlm_env.llm.responder import Responder
from tests.llm.endpoint import KEY, chat

#: What becomes of a request, by its prompt: a reply, an HTTP status, or the code of an error without a response.
Fate = Callable[[str], str | int]


def reply(prompt: str) -> str:
    return Responder().generate([prompt])[0].text


@dataclass
class BatchServer:
    """The server: what it was asked, and how it behaves."""

    url: str = ""
    fate: Fate = lambda prompt: "reply"
    quotes: bool = False  # whether messages about requests quote prompt and key
    n_looks: int = 2  # until a batch has ended
    end: str = "completed"
    validation_error: str = ""  # a code
    lose_answers_to: list[str] = field(default_factory=list)  # "METHOD path", each once, after doing what it says
    fail_with_503: list[str] = field(default_factory=list)  # each once, before
    refuse: list[str] = field(default_factory=list)  # likewise, with 400
    n_late: int = 0  # looks at a batch that has ended before it names its file of replies
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    looks: dict[str, int] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    cookies: list[str] = field(default_factory=list)  # that came back
    deleted: list[str] = field(default_factory=list)

    def prompts(self, batch: str) -> list[str]:
        lines = self.files[self.batches[batch]["input_file_id"]].splitlines()
        return [json.loads(line)["body"]["messages"][-1]["content"] for line in lines]

    @property
    def all_prompts(self) -> list[str]:
        return [prompt for batch in self.batches for prompt in self.prompts(batch)]

    def finish(self, batch: dict[str, Any]) -> None:
        """Write the files of a batch: out of order, each line with its request's name."""
        if self.validation_error:
            error = {
                "code": self.validation_error,
                "message": f"line 1: {self.prompts(batch['id'])} of {KEY}",
                "line": 1,
            }
            batch |= {"status": "failed", "errors": {"object": "list", "data": [error]}}
            return
        output, errors = [], []
        for number, line in enumerate(reversed(self.files[batch["input_file_id"]].splitlines())):
            request = json.loads(line)
            prompt = request["body"]["messages"][-1]["content"]
            fate = self.fate(prompt)
            entry: dict[str, Any] = {"id": f"batch_req_{number}", "custom_id": request["custom_id"], "error": None}
            if fate == "lost":
                continue
            if fate == "reply":
                body = chat(reply(prompt), id=f"chatcmpl-{number}", object="chat.completion").body
                output.append(entry | {"response": {"status_code": 200, "request_id": f"r{number}", "body": body}})
            elif isinstance(fate, int):
                said = f"it is about {prompt}, with the key {KEY}" if self.quotes else "this one is refused"
                body = {"error": {"message": said, "type": "invalid_request_error", "code": None}}
                errors.append(entry | {"response": {"status_code": fate, "request_id": f"r{number}", "body": body}})
            else:
                errors.append(entry | {"response": None, "error": {"code": fate, "message": "It was not run."}})
        for name, lines in (("output_file_id", output), ("error_file_id", errors)):
            if lines:
                batch[name] = f"file-{name}-{batch['id']}"
                self.files[batch[name]] = b"".join(json.dumps(each).encode() + b"\n" for each in lines)
        counts = {"total": len(output) + len(errors), "completed": len(output), "failed": len(errors)}
        batch |= {"status": self.end, "request_counts": counts}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *args: Any) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:  # the client was killed
            self.close_connection = True

    def do_GET(self) -> None:
        self._do("GET")

    def do_POST(self) -> None:
        self._do("POST")

    def do_DELETE(self) -> None:
        self._do("DELETE")

    def _do(self, method: str) -> None:
        state: BatchServer = self.server.state
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urlsplit(self.path)
        path = parts.path.removeprefix("/v1/")
        call = f"{method} {path}"
        state.calls.append(call)
        state.cookies += self.headers.get_all("Cookie", [])
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            return self._answer(401, {"error": {"message": "no key"}})
        if call in state.fail_with_503:
            state.fail_with_503.remove(call)
            message = f"no room for {content.decode('utf-8', 'replace')} and {state.all_prompts} with the key {KEY}"
            return self._answer(503, {"error": {"message": message, "code": "overloaded"}})
        if call in state.refuse:
            state.refuse.remove(call)
            return self._answer(400, {"error": {"message": "no credit", "code": "billing_hard_limit_reached"}})
        status, answer = self._answer_to(state, method, path.split("/"), parse_qs(parts.query), content)
        if call in state.lose_answers_to:
            state.lose_answers_to.remove(call)
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return None
        return self._answer(status, answer)

    def _answer_to(
        self, state: BatchServer, method: str, path: list[str], query: dict[str, list[str]], content: bytes
    ) -> tuple[int, Any]:
        if path == ["chat", "completions"]:
            return 200, chat(reply(json.loads(content)["messages"][-1]["content"])).body
        if (method, path) == ("POST", ["files"]):
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            message = BytesParser().parsebytes(head + content)
            fields = {
                str(part.get_param("name", header="content-disposition")): part.get_payload(decode=True)
                for part in message.get_payload()  # type: ignore[union-attr]
            }
            if fields["purpose"] != b"batch":
                return 400, {"error": {"message": "wrong purpose"}}
            name = f"file-{len(state.files)}"
            state.files[name] = fields["file"]  # type: ignore[assignment]
            return 200, {"id": name, "object": "file", "purpose": "batch"}
        if (method, path) == ("POST", ["batches"]):
            body = json.loads(content)
            requests = [json.loads(line) for line in state.files[body["input_file_id"]].splitlines()]
            valid = body["endpoint"] == "/v1/chat/completions" and body["completion_window"] == "24h"
            valid &= len({each["custom_id"] for each in requests}) == len(requests)
            valid &= all(each["url"] == body["endpoint"] and each["method"] == "POST" for each in requests)
            if not valid:
                return 400, {"error": {"message": "invalid"}}
            name = f"batch_{len(state.batches)}"
            state.batches[name] = {"id": name, "object": "batch", "status": "validating", **body}
            return 200, state.batches[name]
        if (method, path) == ("GET", ["batches"]):
            names = list(reversed(state.batches))
            start = names.index(query["after"][0]) + 1 if "after" in query else 0
            page = [state.batches[name] for name in names[start : start + 2]]  # a small page, whatever is asked for
            return 200, {"object": "list", "data": page, "has_more": start + 2 < len(names)}
        if (method, path[0]) == ("GET", "batches"):
            batch = state.batches[path[1]]
            state.looks[path[1]] = state.looks.get(path[1], 0) + 1
            if batch["status"] in ("validating", "in_progress"):
                batch["status"] = "in_progress"
                if state.looks[path[1]] >= state.n_looks:
                    state.finish(batch)
            if state.looks[path[1]] < state.n_looks + state.n_late:
                return 200, {name: value for name, value in batch.items() if name != "output_file_id"}
            return 200, batch
        if method == "DELETE":
            state.deleted.append(path[1])
            return 200, {"id": path[1], "deleted": True}
        if path[1] not in state.files:
            return 404, {"error": {"message": "No such File object", "type": "invalid_request_error"}}
        return 200, state.files[path[1]]

    def _answer(self, status: int, body: Any) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.send_header("Set-Cookie", "session=1; Path=/")
        self.end_headers()
        self.wfile.write(raw)


@contextmanager
def serve_batches() -> Iterator[BatchServer]:
    """Run a server on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    state = BatchServer(f"http://127.0.0.1:{server.server_port}/v1")
    server.state = state  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
