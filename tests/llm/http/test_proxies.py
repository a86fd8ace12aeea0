"""Proxies that the environment names: one line that names the variable, and no password."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from pmlm_env.llm.base import LLMError
from pmlm_env.llm.http.endpoint import OpenAIChat
from tests.llm.conftest import Doctor
from tests.llm.endpoint import CERTIFICATES, KEY, Answer, Endpoint, serve

Run = Callable[..., Doctor]
ELSEWHERE = ("openai:m", "--base-url", "https://model.invalid/v1")
NO_SOCKS = pytest.mark.skipif(importlib.util.find_spec("socksio") is not None, reason="SOCKS proxies work here")


def address(endpoint: Endpoint) -> str:
    return endpoint.url.removesuffix("/v1")


@NO_SOCKS
@pytest.mark.parametrize("variable", ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy"])
@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_a_socks_proxy_without_its_package_is_named_with_the_package(refused: Run, variable: str, scheme: str) -> None:
    code, said = refused(*ELSEWHERE, OPENAI_API_KEY=KEY, **{variable: f"{scheme}://me:hunter2@127.0.0.1:7890"})
    assert code == 1
    assert f"{variable} is a SOCKS proxy, which needs another package: pip install 'httpx[socks]'" in said
    assert "put model.invalid into NO_PROXY" in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "value",
    [
        "socks://127.0.0.1:7890",
        "socks4://127.0.0.1:7890",
        "ftp://127.0.0.1:7890",
        "http://me:hunter2@127.0.0.1:99999",
        "http://me:hunter2@127.0.0.1:port",
        "http://me:hunter2@127.0.0.1:0",
        "http://me:hun/ter2@proxy:3128",
        "http://my proxy:3128",
        "127.0.0.1:port",
        "http://",
        "http://[::1",
        "http://pro..xy:3128",
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_by_its_variable_and_not_quoted(refused: Run, value: str) -> None:
    for variable in ("HTTPS_PROXY", "ALL_PROXY", "https_proxy", "all_proxy"):
        code, said = refused(*ELSEWHERE, OPENAI_API_KEY=KEY, **{variable: value})
        assert code == 1
        assert f"{variable} is not a valid proxy; set {variable} to an address such as http://HOST" in said
        assert "hun" not in said


def test_a_bad_proxy_is_named_before_anything_is_sent_or_booked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:99999")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    llm = OpenAIChat("m", "https://model.invalid/v1")
    with pytest.raises(LLMError, match="HTTPS_PROXY is not a valid proxy"):
        llm.generate(["hello"])
    assert llm.budget.usage.calls == 0


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (407, "the proxy asks for a user and a password (HTTP 407): write them into HTTPS_PROXY, such as http://USER:"),
        (403, "the proxy rejects the request (HTTP 403); check base_url and HTTPS_PROXY, or put"),
        (502, "the proxy rejects the request (HTTP 502); check base_url and HTTPS_PROXY, or put"),
    ],
)
def test_a_proxy_that_refuses_is_named_as_the_proxy(endpoint: Endpoint, refused: Run, status: int, cause: str) -> None:
    endpoint.script(Answer(status, {}))
    proxy = address(endpoint).replace("//", "//me:hunter2@")
    code, said = refused(*ELSEWHERE, OPENAI_API_KEY=KEY, HTTPS_PROXY=proxy)
    assert (code, endpoint.n_requests) == (1, 1)
    assert f"m at https://model.invalid/v1 through the proxy of HTTPS_PROXY: {cause}" in said
    assert "hunter2" not in said


def test_a_proxy_that_asks_for_a_password_is_asked_once_and_costs_nothing(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", address(endpoint))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    endpoint.script(Answer(407, {}))
    llm = OpenAIChat("m", "https://model.invalid/v1", backoff=0.0)
    with pytest.raises(LLMError, match="HTTP 407"):
        llm.generate(["hello"])
    assert (endpoint.n_requests, llm.budget.usage.calls) == (1, 0)


def test_a_proxy_that_is_down_is_named(refused: Run) -> None:
    said = refused(*ELSEWHERE, OPENAI_API_KEY=KEY, HTTPS_PROXY="127.0.0.1:9").said
    assert "no connection to the proxy, or through it (ConnectError); check base_url and HTTPS_PROXY" in said


@pytest.mark.parametrize(
    "no_proxy", ["localhost,::1/128", "::1/128", "127.0.0.0/8, 10.0.0.0/8", "[::1]", "http://x", "%", "del.invalid"]
)
def test_a_no_proxy_that_does_not_name_the_host_changes_nothing(
    endpoint: Endpoint, refused: Run, no_proxy: str
) -> None:
    endpoint.script(Answer(502, {}))
    refused(*ELSEWHERE, OPENAI_API_KEY=KEY, HTTPS_PROXY=address(endpoint), NO_PROXY=no_proxy)
    assert endpoint.paths == ["model.invalid:443"]


@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
@pytest.mark.parametrize(
    ("host", "no_proxy"),
    [
        ("model.invalid", "localhost,model.invalid"),
        ("model.invalid", "localhost, .invalid"),
        ("model.invalid", "*.invalid"),
        ("model.invalid", "localhost *"),
        ("model.invalid", "MODEL.invalid:443"),
        ("192.0.2.7", "10.0.0.0/8,192.0.2.0/24"),
        ("[2001:db8::7]", "2001:db8::/32"),
    ],
)
def test_a_host_that_no_proxy_names_is_asked_without_the_proxy(
    refused: Run, variable: str, host: str, no_proxy: str
) -> None:
    # Both variables are refused where they are looked at, so that nothing has to be sent.
    bad = {"HTTPS_PROXY": "http://127.0.0.1:port", "SSL_CERT_FILE": "/nowhere.pem", "OPENAI_API_KEY": KEY}
    said = refused("openai:m", "--base-url", f"https://{host}/v1", **bad).said
    assert "HTTPS_PROXY is not a valid proxy" in said
    said = refused("openai:m", "--base-url", f"https://{host}/v1", **bad, **{variable: no_proxy}).said
    assert "SSL_CERT_FILE is '/nowhere.pem'" in said


def test_a_proxy_of_blanks_is_none(refused: Run) -> None:
    variables = {"HTTPS_PROXY": "  ", "ALL_PROXY": " ", "SSL_CERT_FILE": "/nowhere.pem", "OPENAI_API_KEY": KEY}
    assert "SSL_CERT_FILE is '/nowhere.pem'" in refused(*ELSEWHERE, **variables).said


def test_prompts_for_this_machine_pass_no_proxy_however_bad(endpoint: Endpoint, doctor: Run) -> None:
    for variable in ("HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        assert doctor("openai:m", "--base-url", endpoint.url, **{variable: "http://127.0.0.1:99999"}).code == 0
    assert endpoint.n_requests == 4


@pytest.mark.parametrize(
    "host",
    ["LOCALHOST", "localhost.", "127.1", "127.8.9.10", "2130706433", "[::ffff:127.0.0.1]", "0.0.0.0", "a.localhost"],
)
def test_prompts_for_this_machine_pass_no_proxy_however_it_is_spelled(
    endpoint: Endpoint, other_endpoint: Endpoint, doctor: Run, tmp_path: Path, host: str
) -> None:
    port = endpoint.url.split(":")[-1]
    file = tmp_path / "providers.toml"
    file.write_text(f'[ward]\nbase_url = "http://{host}:{port}"\nallow_http = true\n')
    doctor("ward:m", "--providers", str(file), WARD_API_KEY="x", HTTP_PROXY=address(other_endpoint))
    assert other_endpoint.n_connections == 0


def test_without_encryption_a_proxy_that_asks_for_a_password_is_named_too(
    endpoint: Endpoint, refused: Run, tmp_path: Path
) -> None:
    file = tmp_path / "providers.toml"
    file.write_text('[ward]\nbase_url = "http://model.invalid/v1"\nallow_http = true\n')
    endpoint.script(Answer(407, {}))
    said = refused("ward:m", "--providers", str(file), WARD_API_KEY="x", HTTP_PROXY=address(endpoint)).said
    assert "through the proxy of HTTP_PROXY: the proxy asks for a user and a password (HTTP 407)" in said


def test_a_proxy_that_speaks_tls_is_trusted_as_endpoints_are(refused: Run) -> None:
    with serve(CERTIFICATES / "own.pem") as proxy:
        proxy.script(Answer(403, {}))
        variables = {"OPENAI_API_KEY": KEY, "HTTPS_PROXY": address(proxy)}
        assert "certificate verify failed" in refused(*ELSEWHERE, **variables).said
        said = refused(*ELSEWHERE, **variables, SSL_CERT_FILE=str(CERTIFICATES / "own.pem")).said
    assert "the proxy rejects the request (HTTP 403)" in said
