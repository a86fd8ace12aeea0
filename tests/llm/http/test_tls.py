"""Certificates, of endpoints on this machine that speak TLS."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pmlm_env.llm.base import LLMError
from pmlm_env.llm.http.endpoint import OpenAIChat
from tests.llm.conftest import Doctor
from tests.llm.endpoint import CERTIFICATES, Endpoint, chat, serve

Run = Callable[..., Doctor]
OWN, EXPIRED, OTHER_HOST = (CERTIFICATES / f"{name}.pem" for name in ("own", "expired", "other-host"))


@pytest.fixture
def encrypted() -> Iterator[Endpoint]:
    with serve(OWN) as state:
        yield state


def test_a_certificate_that_nobody_vouches_for_is_named_with_the_cure(encrypted: Endpoint, refused: Run) -> None:
    code, said = refused("openai:m", "--base-url", encrypted.url)
    assert code == 1
    assert f"m at {encrypted.url}: certificate verify failed (self" in said  # "self-signed" or "self signed"
    assert "set SSL_CERT_FILE to a PEM file with the certificate of the authority that signed it" in said


def test_a_certificate_is_not_tried_twice_and_nothing_is_booked(encrypted: Endpoint, refused: Run) -> None:
    llm = OpenAIChat("m", encrypted.url, backoff=0.0)
    with pytest.raises(LLMError, match=r"certificate verify failed") as caught:
        llm.generate(["hello"])
    assert "tried" not in str(caught.value)
    assert llm.budget.usage == (0, 0, 0, 0.0)
    assert encrypted.n_requests == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_certificate_in_ssl_cert_file_is_trusted_on_this_machine_too(
    encrypted: Endpoint, doctor: Run, host: str
) -> None:
    code, said = doctor("openai:m", "--base-url", encrypted.url.replace("127.0.0.1", host), SSL_CERT_FILE=str(OWN))
    assert (code, encrypted.n_requests) == (0, 1), said


def test_a_folder_in_ssl_cert_dir_is_looked_into(encrypted: Endpoint, doctor: Run, tmp_path: Path) -> None:
    by_hash = "e824528d.0"  # openssl x509 -noout -subject_hash -in own.pem
    (tmp_path / by_hash).write_bytes(OWN.read_bytes())
    code, said = doctor("openai:m", "--base-url", encrypted.url, SSL_CERT_DIR=str(tmp_path))
    assert (code, encrypted.n_requests) == (0, 1), said


@pytest.mark.parametrize(
    ("certificate", "cause"),
    [
        (EXPIRED, "(certificate has expired): the endpoint needs a new certificate, or this machine's clock is wrong"),
        (OTHER_HOST, "is not valid for '127.0.0.1'): use a host name in base_url that the certificate contains"),
    ],
    ids=["expired", "of another host"],
)
def test_what_is_wrong_with_a_certificate_that_is_trusted_is_named(refused: Run, certificate: Path, cause: str) -> None:
    with serve(certificate) as endpoint:
        said = refused("openai:m", "--base-url", endpoint.url, SSL_CERT_FILE=str(certificate)).said
    assert "certificate verify failed (" in said
    assert cause in said


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_a_variable_that_names_no_certificates_is_named_before_anything_is_sent(
    encrypted: Endpoint, refused: Run, tmp_path: Path, variable: str
) -> None:
    (tmp_path / "letter.txt").write_text("no certificate")
    for path in (tmp_path / "none", tmp_path / "letter.txt"):
        code, said = refused("openai:m", "--base-url", encrypted.url, **{variable: str(path)})
        assert code == 1
        assert f"{variable} is '{path}', which is no" in said
    assert encrypted.n_connections == 0


def test_an_endpoint_without_tls_needs_no_certificates(endpoint: Endpoint, doctor: Run) -> None:
    assert doctor("openai:m", "--base-url", endpoint.url, SSL_CERT_FILE="/nowhere.pem").code == 0


@contextmanager
def plain_http_server() -> Iterator[int]:
    """Run a server that answers whatever it reads with HTTP 400, as web servers do when spoken to in TLS."""
    loop = asyncio.new_event_loop()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = loop.run_until_complete(asyncio.start_server(answer, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.close()


def test_a_server_that_speaks_no_tls_is_tried_once_and_said_to_be_so() -> None:
    with plain_http_server() as port:
        llm = OpenAIChat("m", f"https://localhost:{port}/v1", backoff=0.0)
        with pytest.raises(LLMError, match=r"no TLS connection \(\w+\); .*base_url should start with http://$"):
            llm.generate(["hello"])
    assert llm.budget.usage.calls == 0


def test_a_server_that_speaks_tls_alone_is_said_to_do_so_perhaps(encrypted: Endpoint, refused: Run) -> None:
    said = refused("openai:m", "--base-url", encrypted.url.replace("https", "http")).said
    assert "or whether base_url should start with https://" in said


def test_a_slow_answer_over_tls_is_no_fault_of_tls(encrypted: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(OWN))
    encrypted.script(chat(delivery="stalled"), chat())
    llm = OpenAIChat("m", encrypted.url, read_timeout=0.5, backoff=0.0)
    assert llm.generate(["hello"])[0].text == "Eat well."
    assert encrypted.n_requests == 2
