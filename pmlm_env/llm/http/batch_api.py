"""The files and batches of an OpenAI-compatible endpoint.

See https://platform.openai.com/docs/api-reference/batch and https://platform.openai.com/docs/guides/batch.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from pmlm_env.llm.base import LLMError
from pmlm_env.llm.http.chat_answers import Answer, Attempt
from pmlm_env.llm.http.endpoint import OpenAIChat
from pmlm_env.llm.http.server_errors import error_code
from pmlm_env.llm.http.transport import Route, no_cookies

T = TypeVar("T")

#: What each request of a batch is for, and where.
ENDPOINT = "/v1/chat/completions"
#: Largest number of requests and bytes of a batch's file.
MOST_REQUESTS, MOST_BYTES = 50_000, 190_000_000
#: Statuses of a batch that has ended; some of its requests may have replies in any of them.
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_LARGEST_LINE = 4_000_000
_LARGEST_ANSWER = 4_000_000
_LONGEST_PAUSE = 60.0
#: Pages of the list of batches that are searched for one that may have been created.
_MOST_PAGES = 10


class _TransientError(Exception):
    """A request may succeed if it is repeated; the message says what went wrong."""


@dataclass(frozen=True)
class Batch:
    """A batch, as the endpoint describes it.

    Attributes:
        id: Its name at the endpoint.
        status: ``validating``, ``in_progress``, ``finalizing`` or one of ``ENDED``, among others.
        input_file: The file of requests.
        files: The files of replies and of errors, as far as there are any.
        done: Number of requests that are done, successfully or not.
        lacks_replies: Whether it has ended with replies, but names no file of them, at least not yet.
        error: The endpoint's code for why the whole batch failed, without its message, which may quote prompts; "" if
            there is none.
    """

    id: str
    status: str
    input_file: str
    files: tuple[str, ...] = ()
    done: int = 0
    lacks_replies: bool = False
    error: str = ""


class BatchAPI:
    """Calls of an endpoint's files and batches. Transient errors are repeated, as often as requests for replies.

    Args:
        chat: The endpoint.

    All methods raise ``LLMError`` if the endpoint refuses, or does not answer.
    """

    def __init__(self, chat: OpenAIChat) -> None:
        """Store the endpoint; nothing is sent yet."""
        self._chat = chat
        self._route = Route.to(chat.url("batches"))
        self._client = httpx.Client(
            cookies=no_cookies(),
            verify=self._route.tls,
            proxy=self._route.proxy,
            trust_env=False,
            timeout=httpx.Timeout(chat.read_timeout, connect=chat.connect_timeout),
        )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def upload(self, lines: Iterable[bytes]) -> str:
        """Upload a file of requests, and return its name at the endpoint."""
        content = b"".join(lines)
        parts: dict[str, Any] = {
            "data": {"purpose": "batch"},
            "files": {"file": ("requests.jsonl", content, "application/jsonl")},
        }
        return _text(self._repeated(lambda: self._json("POST", "files", **parts)), "id")

    def create(self, input_file: str, token: str) -> Batch:
        """Create a batch once, even if the answer to a first try is lost.

        Args:
            input_file: What ``upload`` returned.
            token: A word that the endpoint keeps with the batch, by which ``find`` finds it.
        """
        body = {"input_file_id": input_file, "endpoint": ENDPOINT, "completion_window": "24h"}
        first = True

        def once() -> Batch:
            nonlocal first
            found = None if first else self.find(token)
            first = False
            return found or self._batch(self._json("POST", "batches", json={**body, "metadata": {"pmlm": token}}))

        return self._repeated(once)

    def find(self, token: str) -> Batch | None:
        """Return the batch that was created with a token; None if there is none among the latest thousand."""
        after: dict[str, str] = {}
        for _ in range(_MOST_PAGES):
            query = {"limit": "100", **after}
            page = self._repeated(lambda query=query: self._json("GET", "batches", query))  # type: ignore[misc]
            found = page.get("data")
            batches = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
            for each in batches:
                metadata = each.get("metadata")
                if isinstance(metadata, dict) and metadata.get("pmlm") == token:
                    return self._batch(each)
            if not batches or not page.get("has_more"):
                break
            after = {"after": _text(batches[-1], "id")}
        return None

    def retrieve(self, batch: str) -> Batch:
        """Return the state of a batch."""
        return self._repeated(lambda: self._batch(self._json("GET", f"batches/{batch}")))

    def lines(self, file: str) -> Iterator[dict[str, Any]]:
        """Yield the JSON objects of a file; other lines are left out. After an interruption it starts again."""
        tries = 0
        while True:
            try:
                yield from self._lines(file)
                return
            except _TransientError as error:
                tries += 1
                self._pause(tries, error)

    def delete(self, files: Iterable[str]) -> None:
        """Delete files, as far as the endpoint allows it: they contain prompts and replies."""
        for file in files:
            with suppress(LLMError, _TransientError):
                self._json("DELETE", f"files/{file}")

    def _lines(self, file: str) -> Iterator[dict[str, Any]]:
        request = self._request("GET", f"files/{file}/content")
        try:
            response = self._client.send(request, stream=True)
            try:
                if response.status_code >= 300:
                    raise self._refused(
                        Answer(response.status_code, response.headers, response.read()[:_LARGEST_ANSWER])
                    )
                for line in _split(response.iter_bytes()):
                    with suppress(ValueError, RecursionError):
                        value = json.loads(line)
                        if isinstance(value, dict):
                            yield value
            finally:
                response.close()
        except httpx.HTTPError as error:
            raise self._failed(self._route.explain(error)) from None

    def _request(self, method: str, path: str, query: dict[str, str] | None = None, **parts: Any) -> httpx.Request:
        url = self._chat.url(path).copy_merge_params(query or {})
        return self._client.build_request(method, url, headers=self._chat.request_headers(), **parts)

    def _json(self, method: str, path: str, query: dict[str, str] | None = None, **parts: Any) -> dict[str, Any]:
        request = self._request(method, path, query, **parts)
        try:
            response = self._client.send(request, stream=True)
            try:
                raw = bytearray()
                for part in response.iter_bytes():
                    raw += part
                    if len(raw) > _LARGEST_ANSWER:
                        raise LLMError(f"{self._name}: the answer is too large; check base_url")
            finally:
                response.close()
        except httpx.HTTPError as error:
            raise self._failed(self._route.explain(error)) from None
        answer = Answer(response.status_code, response.headers, bytes(raw))
        if answer.status >= 300:
            raise self._refused(answer)
        try:
            value = json.loads(answer.body)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise LLMError(f"{self._name}: the answer is not an object in JSON; check whether it has a batch API")
        return value

    @property
    def _name(self) -> str:
        return f"the batch API of {self._chat.base_url}{self._route.description}"

    def _refused(self, answer: Answer) -> Exception:
        return self._failed(self._chat.read(answer, None))

    def _failed(self, attempt: Attempt) -> Exception:
        message = f"{self._name}: {attempt.error}"
        return _TransientError(message) if attempt.retry else LLMError(message)

    def _batch(self, value: dict[str, Any]) -> Batch:
        errors = value.get("errors")
        data = errors.get("data") if isinstance(errors, dict) else None
        codes = [error_code(each) for each in data if isinstance(each, dict)] if isinstance(data, list) else []
        counts = value.get("request_counts")
        counts = counts if isinstance(counts, dict) else {}
        done = [counts.get(name) for name in ("completed", "failed")]
        status = _text(value, "status")
        return Batch(
            _text(value, "id"),
            status,
            str(value.get("input_file_id") or ""),
            tuple(str(value[name]) for name in ("output_file_id", "error_file_id") if value.get(name)),
            sum(each for each in done if isinstance(each, int)),
            status in ENDED and isinstance(done[0], int) and done[0] > 0 and not value.get("output_file_id"),
            self._chat.without_secrets(codes[0]) if codes else "",
        )

    def _repeated(self, once: Callable[[], T]) -> T:
        tries = 0
        while True:
            try:
                return once()
            except _TransientError as error:
                tries += 1
                self._pause(tries, error)

    def _pause(self, tries: int, error: _TransientError) -> None:
        if tries >= self._chat.tries:
            raise LLMError(f"{error} (tried {tries} times)") from None
        time.sleep(random.uniform(0, min(_LONGEST_PAUSE, self._chat.backoff * 2.0 ** (tries - 1))))


def _text(value: dict[str, Any], name: str) -> str:
    found = value.get(name)
    if not isinstance(found, str) or not found or not found.isprintable() or "/" in found:
        raise LLMError(f"the endpoint's answer has no usable {name}: check whether it has a batch API")
    return found


def _split(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines; one that is too long is left out."""
    line, too_long = bytearray(), False
    for part in parts:
        first, *rest = part.split(b"\n")
        for index, piece in enumerate([first, *rest]):
            if index:
                if not too_long:
                    yield bytes(line)
                line, too_long = bytearray(), False
            too_long = too_long or len(line) + len(piece) > _LARGEST_LINE
            line += b"" if too_long else piece
    if line and not too_long:
        yield bytes(line)
