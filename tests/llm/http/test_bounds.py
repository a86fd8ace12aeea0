"""Answers made to fill the memory of whoever reads them."""

from __future__ import annotations

import gzip
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pmlm_env.llm.base import LLMError, Request
from pmlm_env.llm.http.endpoint import OpenAIChat
from tests.llm.conftest import Doctor
from tests.llm.endpoint import KEY, Answer, Endpoint, chat
from tests.llm.http.test_client_privacy import everything_told

Run = Callable[..., Doctor]
GIB = 2**30


def bomb(size: int) -> bytes:
    """Return what gunzips to so many zeros (a multiple of 1 MiB), but for the checksum at the very end."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    first = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    end = packer.flush()
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + first * (size // 2**20) + end + bytes(8)


BOMBS = {
    "gzip": bomb(3 * GIB),
    "gzip, gzip": gzip.compress(bomb(4 * GIB)),
    "gzip, gzip, gzip": gzip.compress(gzip.compress(bomb(4 * GIB))),
}

IN_3_GIB = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30,) * 2)
from pmlm_env.llm import Request
from pmlm_env.llm.http.endpoint import OpenAIChat
llm = OpenAIChat("m", sys.argv[1], backoff=0.0, tries=1)
for reply in llm.ask([Request(prompt) for prompt in sys.argv[2:]]):
    print(type(reply).__name__, reply)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep to such a limit")
def test_bombs_of_gigabytes_are_errors_of_one_line_in_little_memory(endpoint: Endpoint) -> None:
    assert len(BOMBS["gzip, gzip"]) < 10_000

    def answer(count: int, prompt: str) -> Answer:
        status, _, encoding = prompt.partition(" ")
        return Answer(int(status), BOMBS[encoding], {"Content-Encoding": encoding})

    endpoint.answer = answer
    prompts = [f"{status} {encoding}" for status in (200, 400) for encoding in BOMBS]
    run = subprocess.run(
        [sys.executable, "-c", IN_3_GIB, endpoint.url, *prompts],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    packed = f"LLMError m at {endpoint.url}: the answer has a compression that was not requested; check base_url"
    endless = f"LLMError m at {endpoint.url}: the answer is too large; check base_url"
    refused = f"LLMError m at {endpoint.url}: HTTP 400"
    assert run.stdout.splitlines() == [endless, packed, packed, refused, refused, refused], run.stderr


@pytest.mark.parametrize("encoding", ["gzip, gzip", "br", "zstd", "deflate", "compress", "identity, br", "\x1b[2J"])
def test_what_nobody_asked_for_is_not_unpacked_nor_asked_for_again(
    endpoint: Endpoint, llm: OpenAIChat, encoding: str
) -> None:
    endpoint.script(Answer(200, BOMBS["gzip, gzip"], {"Content-Encoding": encoding}))
    with pytest.raises(LLMError, match="has a compression that was not requested") as caught:
        llm.generate(["hello"])
    assert str(caught.value).isprintable()
    assert KEY not in everything_told(caught.value)
    assert endpoint.n_requests == 1
    assert endpoint.headers[0]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip", "identity", "", "identity, gzip"])
def test_a_server_that_packs_unasked_is_read_all_the_same(endpoint: Endpoint, llm: OpenAIChat, encoding: str) -> None:
    raw = chat().bytes()
    endpoint.script(
        Answer(200, gzip.compress(raw) if "zip" in encoding.lower() else raw, {"Content-Encoding": encoding})
    )
    assert llm.generate(["hello"])[0].text == "Eat well."


@pytest.mark.parametrize("encoding", ["utf-8", "none", "UTF-8, identity", "br", "binary"])
def test_what_is_not_packed_is_read_whatever_it_is_called(endpoint: Endpoint, llm: OpenAIChat, encoding: str) -> None:
    endpoint.script(Answer(200, b"\n" + chat().bytes(), {"Content-Encoding": encoding}))
    assert llm.generate(["hello"])[0].text == "Eat well."


def test_a_packed_error_is_read_too(endpoint: Endpoint, llm: OpenAIChat) -> None:
    raw = Answer(400, {"error": {"message": "no such model"}}).bytes()
    endpoint.script(Answer(400, gzip.compress(raw), {"Content-Encoding": "gzip"}))
    with pytest.raises(LLMError, match="HTTP 400: no such model"):
        llm.generate(["hello"])


def test_an_error_without_end_is_known_by_its_status(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.script(Answer(401, {}, delivery="endless"))
    with pytest.raises(LLMError, match="HTTP 401: check the key"):
        llm.generate(["hello"])
    assert (endpoint.n_requests, endpoint.bytes_sent < 32_000_000) == (1, True)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\n" + b"X-Padding: 0123456789\r\n" * 1_000_000,
        b"HTTP/1.1 200 OK\r\nX-Padding: " + b"0" * 20_000_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["many headers", "a long header", "length", "a long chunk", "transfer encoding"],
)
def test_a_head_that_promises_too_much_is_an_error(endpoint: Endpoint, refused: Run, raw: bytes) -> None:
    endpoint.script(Answer(raw=raw))
    assert "no answer (RemoteProtocolError)" in refused("openai:m", "--base-url", endpoint.url).said


def test_a_useless_answer_is_booked_at_its_upper_bound(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.script(Answer(200, b"", {"Content-Encoding": "br"}))
    llm.ask([Request("hello")])
    assert llm.budget.usage[:3] == (1, len("hello") + 100, 256)
