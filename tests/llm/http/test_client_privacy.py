"""OpenAIChat against real HTTP servers on this machine: what stays secret, and where nothing is sent."""

from __future__ import annotations

import json
import logging
import pickle
import traceback
from collections.abc import Callable
from urllib.parse import quote, quote_plus, urlsplit

import pytest

from pmlm_env.llm.base import LLMError, Request
from pmlm_env.llm.http.endpoint import OpenAIChat
from tests.llm.endpoint import KEY, PROMPT, Answer, Endpoint, chat

Connect = Callable[..., OpenAIChat]


def everything_told(error: BaseException) -> str:
    """All that an error report could show: messages, traceback with local variables, chained errors."""
    assert error.__traceback__ is not None
    below_the_test = error.__traceback__.tb_next
    report = "".join(traceback.TracebackException(type(error), error, below_the_test, capture_locals=True).format())
    assert "pmlm_env" in report
    assert "self = " in report
    chained = [repr(vars(link)) for link in (error.__cause__, error.__context__) if link is not None]
    return "".join([str(error), repr(error), report, *chained])


# The key


def test_the_key_goes_into_the_authorization_header_only(endpoint: Endpoint, llm: OpenAIChat) -> None:
    llm.generate([PROMPT])
    holders = [name for name, value in endpoint.headers[0].items() if KEY in value]
    assert [name.lower() for name in holders] == ["authorization"]
    assert KEY not in json.dumps(endpoint.bodies) + "".join(endpoint.paths)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}),
        Answer(400, {"error": {"message": f"bad header Bearer {KEY}"}}),
        Answer(400, {}, {"X-Request-Id": KEY}),
        Answer(500, {"message": f"token {KEY}"}),
        Answer(400, {"message": "x" * 290 + KEY}),
        chat("Eat", f"error {KEY}"),
        chat("Eat", "error with quite a long reason " + KEY),
        chat(delivery="half a body"),
        chat(delivery="reset"),
        Answer(raw=f"{KEY}\r\n\r\n".encode()),
        Answer(body=b"not JSON"),
        Answer(307, {}, {"Location": f"https://example.org/?key={KEY}"}),
        Answer(400, {"error": {"message": f"Incorrect API key provided: {KEY[:-4]}... Find yours at x"}}),
        Answer(400, {"error": {"message": f"Incorrect API key provided: {KEY[:14]}****"}}),
        Answer(400, {"error": {"message": f"Incorrect API key provided: {KEY[:14].upper()}****"}}),
        chat("Eat", f"error {KEY[:14]}"),
    ],
    ids=[
        "401",
        "400",
        "request id",
        "500",
        "cut key",
        "reason",
        "long reason",
        "cut",
        "reset",
        "no HTTP",
        "malformed",
        "redirect",
        "start of the key",
        "masked key",
        "masked key in capitals",
        "start in the reason",
    ],
)
def test_the_key_is_in_no_error(endpoint: Endpoint, llm: OpenAIChat, answer: Answer) -> None:
    endpoint.script(answer)
    with pytest.raises(LLMError) as caught:
        llm.generate([PROMPT])
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert KEY[:8] not in everything_told(caught.value).lower()


@pytest.mark.parametrize("quoted", [KEY[-12:], f"****{KEY[-8:]}", "sk-proj-Ab0123456789cdef", f"Bearer:{KEY[:9]}…"])
def test_neither_the_end_of_a_key_nor_another_key_is_in_an_error(
    endpoint: Endpoint, llm: OpenAIChat, quoted: str
) -> None:
    endpoint.script(Answer(400, {"error": {"message": f"No such key: {quoted}, see the console"}}))
    with pytest.raises(LLMError, match=r"No such key: (Bearer:)?\*\*\*, see the console"):
        llm.generate([PROMPT])


@pytest.mark.parametrize("bad", [f"{KEY} x", f"{KEY}\nx", f"{KEY}é"])
def test_a_key_with_odd_characters_is_refused_unquoted(
    endpoint: Endpoint, llm: OpenAIChat, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", bad)
    with pytest.raises(LLMError, match="OPENAI_API_KEY does not contain a valid key") as caught:
        llm.generate([PROMPT])
    assert KEY not in everything_told(caught.value)
    assert endpoint.n_requests == 0


def test_the_key_is_in_neither_repr_identity_nor_pickle(llm: OpenAIChat) -> None:
    llm.generate([PROMPT])
    assert KEY not in repr(llm) + llm.identity + repr(pickle.dumps(llm))


# The prompt


def test_the_server_explains(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.script(Answer(400, [{"error": {"message": "Unknown name 'seed':\n no such field"}}]))
    with pytest.raises(LLMError, match="HTTP 400: Unknown name 'seed': no such field"):
        llm.generate([PROMPT])


@pytest.mark.parametrize("code", [400, 500])
def test_what_another_server_said_may_not_quote_the_prompt_in_escapes(
    endpoint: Endpoint, llm: OpenAIChat, code: int
) -> None:
    prompt = "妊娠糖尿病。控制饮食。"
    error = {"code": code, "message": "Provider returned error", "metadata": {"raw": json.dumps({"said": prompt})}}
    endpoint.script(Answer(200, {"error": error}))
    with pytest.raises(LLMError, match="quotes the prompt") as caught:
        llm.generate([prompt])
    assert "\\u" not in str(caught.value)


@pytest.mark.parametrize("message", [f"bad content: {PROMPT[10:60]}", PROMPT, f"too long: {PROMPT[:20]}..."])
def test_the_server_may_not_quote_the_prompt(endpoint: Endpoint, llm: OpenAIChat, message: str) -> None:
    endpoint.script(Answer(400, {"error": {"message": message}}))
    with pytest.raises(LLMError, match="quotes the prompt") as caught:
        llm.generate([PROMPT])
    assert "predicted" not in str(caught.value)


@pytest.mark.parametrize(
    "spelled",
    [
        *(PROMPT.upper(), PROMPT.replace(" ", "  "), quote(PROMPT), quote_plus(PROMPT), PROMPT.replace(" ", "&nbsp;")),
        *(str(PROMPT.split()), PROMPT.replace(" ", "_"), "-".join(PROMPT.split()[1:4]), PROMPT.replace(" ", "\u00a0")),
    ],
)
@pytest.mark.parametrize("place", ["message", "request id", "reason"])
def test_the_server_may_not_quote_the_prompt_in_another_spelling_or_place(
    endpoint: Endpoint, llm: OpenAIChat, spelled: str, place: str
) -> None:
    answers = {
        "message": Answer(400, {"error": {"message": f"bad: {spelled}"}}),
        "request id": Answer(400, {"id": spelled}, {"x-request-id": spelled.encode("ascii", "replace").decode()}),
        "reason": chat("Eat", f"error {spelled}"),
    }
    endpoint.script(answers[place])
    (error,) = llm.ask([Request(PROMPT)])
    assert isinstance(error, LLMError)
    assert "predicted" not in str(error).lower()


def test_neither_prompt_nor_reply_is_in_an_error(endpoint: Endpoint, llm: OpenAIChat) -> None:
    answers = [chat("Eat quinces.", reason) for reason in ("length", "content_filter", "tool_calls")]
    for answer in [*answers, Answer(body=b"Eat quinces."), Answer(502, b"Eat quinces."), chat([7, "Eat quinces."])]:
        endpoint.script(answer)
        (error,) = llm.ask([Request(PROMPT)])
        assert isinstance(error, LLMError)
        assert not [secret for secret in ("gestational", "quinces") if secret in str(error)]


def test_key_prompt_and_reply_are_in_no_log(
    endpoint: Endpoint, llm: OpenAIChat, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    endpoint.script(Answer(500, {}), chat(delivery="reset"), chat("Eat quinces."))
    llm.generate([PROMPT])
    assert not [secret for secret in (KEY, "gestational", "quinces") if secret in caplog.text]


# Other machines


def test_a_redirect_is_not_followed(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.script(Answer(307, {}, {"Location": "/v2/chat/completions"}))
    with pytest.raises(LLMError, match="HTTP 307: check base_url"):
        llm.generate([PROMPT])
    assert endpoint.n_requests == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_sends_nothing_there(
    endpoint: Endpoint, other_endpoint: Endpoint, llm: OpenAIChat, status: int
) -> None:
    endpoint.script(Answer(status, {}, {"Location": f"{other_endpoint.url}/chat/completions"}))
    with pytest.raises(LLMError, match=f"HTTP {status}"):
        llm.generate([PROMPT])
    assert (other_endpoint.n_connections, other_endpoint.n_requests) == (0, 0)


def test_a_key_is_sent_to_its_own_endpoint_only(
    endpoint: Endpoint, other_endpoint: Endpoint, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OTHER_KEY", "sk-other")
    connect().generate([PROMPT])
    connect(base_url=other_endpoint.url, api_key_env="OTHER_KEY").generate([PROMPT])
    connect(base_url=other_endpoint.url, api_key_env="NO_KEY").generate([PROMPT])
    assert KEY in str(endpoint.headers)
    assert KEY not in str(other_endpoint.headers)


def test_a_cookie_is_not_kept(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.script(Answer(200, chat().body, {"Set-Cookie": "who=patient; Path=/"}))
    llm.generate(["a"])
    llm.generate(["b"])
    assert "cookie" not in {name.lower() for name in endpoint.headers[1]}


def test_a_proxy_sees_neither_key_nor_prompt_over_https(
    endpoint: Endpoint, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, endpoint.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    endpoint.script(Answer(502, {}))
    with pytest.raises(LLMError) as caught:
        connect(base_url="https://model.invalid/v1").generate([PROMPT])
    assert endpoint.paths
    assert set(endpoint.paths) == {"model.invalid:443"}
    assert KEY not in str(endpoint.headers)
    assert endpoint.bodies == [{}] * endpoint.n_requests
    assert KEY not in everything_told(caught.value)


def test_netrc_is_not_asked_for_a_password(
    endpoint: Endpoint, llm: OpenAIChat, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    netrc = tmp_path_factory.mktemp("home") / ".netrc"
    netrc.write_text(f"machine {urlsplit(endpoint.url).hostname} login me password hunter2\n")
    monkeypatch.setenv("NETRC", str(netrc))
    llm.generate([PROMPT])
    assert endpoint.headers[0]["Authorization"] == f"Bearer {KEY}"


# Addresses


@pytest.mark.parametrize(
    "base_url",
    [
        "http://example.org/v1",
        "http://192.168.1.5:8000/v1",
        "http://localhost.example.org/v1",
        "http://0.0.0.0:8000/v1",
        "http://127.0.0.1@example.org/v1",
        "https://user:pass@example.org/v1",
        "https://example.org/v1?key=abc",
        "https://example.org/v1#key",
        "ftp://localhost/v1",
        "localhost:8000/v1",
        "",
        "http://local\nhost",
    ],
)
def test_an_unsafe_base_url_is_refused(base_url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        OpenAIChat("m", base_url=base_url)


@pytest.mark.parametrize("base_url", ["https://user:hunter2@example.org/v1", "https://example.org/v1?key=hunter2"])
def test_a_secret_in_a_base_url_is_not_quoted(base_url: str) -> None:
    with pytest.raises(ValueError, match="base_url") as caught:
        OpenAIChat("m", base_url=base_url, allow_http=True)
    assert "hunter2" not in str(caught.value)


def test_another_machine_may_be_asked_unencrypted_on_demand() -> None:
    assert OpenAIChat("m", base_url="http://192.168.1.5:8000/v1", allow_http=True).base_url
