"""OpenAIChat against a real HTTP server on this machine, which misbehaves on request."""

from __future__ import annotations

import json
import logging
import pickle
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from email.utils import formatdate
from typing import Any

import pytest

from pmlm_env.llm.base import LLM, LLMError
from pmlm_env.llm.openai import OpenAIChat
from tests.llm.endpoint import Answer, Endpoint, chat, serve

KEY = "sk-secret-0123456789abcdef"
PROMPT = "The predicted condition is gestational diabetes; 6 of 10 similar patients had it."


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serve() as state:
        yield state


Connect = Callable[..., OpenAIChat]


@pytest.fixture
def connect(endpoint: Endpoint) -> Iterator[Connect]:
    """Make clients of the endpoint, and close them in the end."""
    with ExitStack() as stack:

        def make(**settings: Any) -> OpenAIChat:
            client = OpenAIChat("some-model", **{"base_url": endpoint.url, "backoff": 0.0, "tries": 3, **settings})
            stack.callback(client.close)
            return client

        yield make


@pytest.fixture
def llm(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> OpenAIChat:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return connect()


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, which take no time."""
    taken: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", taken.append)
    return taken


def everything_told(error: BaseException) -> str:
    """All that an error report could show: messages, traceback with local variables, chained errors."""
    assert error.__traceback__ is not None
    below_the_test = error.__traceback__.tb_next
    report = traceback.TracebackException(type(error), error, below_the_test, capture_locals=True)
    assert "_complete" in "".join(report.format())
    chained = [repr(vars(link)) for link in (error.__cause__, error.__context__) if link is not None]
    return "".join([str(error), repr(error), *report.format(), *chained])


# What goes out


def test_it_is_an_llm(llm: OpenAIChat) -> None:
    assert isinstance(llm, LLM)


def test_the_body_holds_the_prompt_and_the_sampling_and_nothing_else(endpoint: Endpoint, llm: OpenAIChat) -> None:
    llm.generate([PROMPT])
    assert endpoint.paths == ["/v1/chat/completions"]
    assert endpoint.bodies == [
        {
            "model": "some-model",
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": 256,
            "temperature": 0.0,
            "seed": 0,
        }
    ]


def test_the_system_prompt_goes_first_and_no_seed_is_sent_where_there_is_none(
    endpoint: Endpoint, connect: Connect
) -> None:
    connect(system_prompt="Be brief.", seed=None).generate(["hello"])
    assert [turn["role"] for turn in endpoint.bodies[0]["messages"]] == ["system", "user"]
    assert "seed" not in endpoint.bodies[0]


def test_the_key_goes_into_the_authorization_header_only(endpoint: Endpoint, llm: OpenAIChat) -> None:
    llm.generate([PROMPT])
    holders = [name for name, value in endpoint.headers[0].items() if KEY in value]
    assert [name.lower() for name in holders] == ["authorization"]
    assert KEY not in json.dumps(endpoint.bodies)


def test_an_endpoint_on_this_machine_needs_no_key(
    endpoint: Endpoint, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert connect().generate(["hello"])[0].text == "Eat well."
    assert "authorization" not in {name.lower() for name in endpoint.headers[0]}


def test_prompts_for_this_machine_take_no_proxy(
    endpoint: Endpoint, llm: OpenAIChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert llm.generate(["hello"])
    assert endpoint.n_requests == 1


def test_no_batch_sends_no_request(endpoint: Endpoint, llm: OpenAIChat) -> None:
    assert llm.generate([]) == []
    assert endpoint.n_requests == 0


def test_a_prompt_that_utf8_cannot_encode_is_sent_all_the_same(endpoint: Endpoint, llm: OpenAIChat) -> None:
    llm.generate(["\udce9 妊娠"])
    assert endpoint.bodies[0]["messages"][0]["content"] == "\udce9 妊娠"


def test_a_redirect_is_not_followed(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.script(Answer(307, {}, {"Location": "/v2/chat/completions"}))
    with pytest.raises(LLMError, match="HTTP 307: check base_url"):
        llm.generate([PROMPT])
    assert endpoint.n_requests == 1


# What comes back


def test_a_reply_is_stripped_and_counted(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.script(chat("  Eat well.\n"))
    (reply,) = llm.generate([PROMPT])
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == ("Eat well.", 12, 3)
    assert (reply.finish_reason, reply.cached) == ("stop", False)


def test_a_reply_cut_by_the_limit_is_kept(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.script(chat("Eat we", "length"))
    assert llm.generate([PROMPT])[0].finish_reason == "length"


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None}])
def test_an_endpoint_that_counts_no_tokens_counts_zero(endpoint: Endpoint, llm: OpenAIChat, usage: Any) -> None:
    endpoint.script(chat(usage=usage))
    (reply,) = llm.generate([PROMPT])
    assert (reply.prompt_tokens, reply.completion_tokens) == (0, 0)


def test_replies_keep_the_order_of_prompts_whichever_is_ready_first(endpoint: Endpoint, llm: OpenAIChat) -> None:
    last_answered = threading.Event()

    def answer(count: int, prompt: str) -> Answer:
        if prompt == "p0":
            last_answered.wait(5)
        if prompt == "p7":
            last_answered.set()
        return chat(prompt.upper())

    endpoint.answer = answer
    prompts = [f"p{i}" for i in range(8)]
    assert [reply.text for reply in llm.generate(prompts)] == [prompt.upper() for prompt in prompts]
    assert last_answered.is_set()


def test_no_more_requests_are_under_way_than_allowed(endpoint: Endpoint, connect: Connect) -> None:
    under_way, most = 0, 0

    def answer(count: int, prompt: str) -> Answer:
        nonlocal under_way, most
        with endpoint.lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.03)
        with endpoint.lock:
            under_way -= 1
        return chat()

    endpoint.answer = answer
    connect(concurrency=3).generate(["hello"] * 9)
    assert most == 3


# What fails and passes


@pytest.mark.parametrize(
    "failure",
    [
        Answer(429, {}, {"Retry-After": "0"}),
        Answer(408, {}),
        Answer(409, {}),
        Answer(500, {}),
        Answer(503, b"<html>"),
        Answer(200, chat().body, cut=True),
    ],
    ids=["429", "408", "409", "500", "503", "cut"],
)
def test_a_passing_failure_is_tried_again(endpoint: Endpoint, llm: OpenAIChat, failure: Answer) -> None:
    endpoint.script(failure, chat())
    assert llm.generate([PROMPT])[0].text == "Eat well."
    assert endpoint.n_requests == 2


def test_tries_come_to_an_end(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.script(Answer(500, {"error": {"message": "overloaded"}}))
    with pytest.raises(LLMError, match=r"HTTP 500: overloaded \(tried 3 times\)"):
        llm.generate([PROMPT])
    assert endpoint.n_requests == 3


def test_an_endpoint_that_is_down_is_named(connect: Connect) -> None:
    llm = connect(base_url="http://127.0.0.1:9/v1", tries=2)
    with pytest.raises(LLMError, match=r"127.0.0.1:9.*ConnectError.*see whether the endpoint is up \(tried 2 times\)"):
        llm.generate([PROMPT])


def test_an_endpoint_that_does_not_answer_in_time_is_given_up(endpoint: Endpoint, connect: Connect) -> None:
    closing = threading.Event()

    def answer(count: int, prompt: str) -> Answer:
        closing.wait(5)
        return chat()

    endpoint.answer = answer
    llm = connect(tries=2, timeout=0.1)
    with pytest.raises(LLMError, match="ReadTimeout"):
        llm.generate([PROMPT])
    closing.set()
    assert endpoint.n_requests == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_a_lasting_failure_is_not_tried_again(endpoint: Endpoint, llm: OpenAIChat, status: int) -> None:
    endpoint.script(Answer(status, {"error": {"message": "no"}}, {"Retry-After": "0"}))
    with pytest.raises(LLMError, match=f"HTTP {status}"):
        llm.generate([PROMPT])
    assert endpoint.n_requests == 1


def test_after_a_lasting_failure_the_rest_of_the_batch_is_not_sent(endpoint: Endpoint, connect: Connect) -> None:
    endpoint.script(Answer(401, {}))
    with pytest.raises(LLMError):
        connect(concurrency=1).generate(["hello"] * 200)
    assert endpoint.n_requests < 100


def test_retry_after_in_seconds_is_obeyed(endpoint: Endpoint, llm: OpenAIChat, naps: list[float]) -> None:
    endpoint.script(Answer(429, {}, {"Retry-After": "7"}), chat())
    llm.generate([PROMPT])
    assert naps == [7.0]


def test_retry_after_as_a_date_is_obeyed(endpoint: Endpoint, llm: OpenAIChat, naps: list[float]) -> None:
    endpoint.script(Answer(503, {}, {"Retry-After": formatdate(time.time() + 20, usegmt=True)}), chat())
    llm.generate([PROMPT])
    assert naps == [pytest.approx(20, abs=3)]


def test_a_server_that_asks_to_wait_too_long_is_not_waited_for(
    endpoint: Endpoint, llm: OpenAIChat, naps: list[float]
) -> None:
    endpoint.script(Answer(429, {}, {"Retry-After": "86400"}))
    with pytest.raises(LLMError, match="asks to wait 86400 s"):
        llm.generate([PROMPT])
    assert (endpoint.n_requests, naps) == (1, [])


@pytest.mark.parametrize("nonsense", ["soon", "nan", "inf"])
def test_pauses_double_where_the_server_says_nothing_of_use(
    endpoint: Endpoint, connect: Connect, naps: list[float], nonsense: str
) -> None:
    endpoint.script(Answer(429, {}, {"Retry-After": nonsense}), Answer(500, {}), Answer(500, {}), chat())
    connect(backoff=1.0, tries=4).generate([PROMPT])
    assert [low <= nap <= low + 1 for low, nap in zip([1, 2, 4], naps, strict=True)] == [True] * 3


# What cannot be scored


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (chat(""), "the reply is empty"),
        (chat(" \n", "length"), "the reply is empty"),
        (chat(None), "the reply is empty"),
        (chat([{"type": "text", "text": "x"}]), "the reply is empty"),
        (chat("Eat", "content_filter"), "the reply was filtered"),
        (chat("", "sensitive"), "the reply was filtered"),
        (chat("Eat", "tool_calls"), "reason 'tool_calls'"),
        (Answer(body=b'{"choices": [{"mess'), "not a chat completion"),
        (Answer(body=b"\xff\xfe"), "not a chat completion"),
        (Answer(body={}), "not a chat completion"),
        (Answer(body=[]), "not a chat completion"),
        (Answer(body={"choices": []}), "not a chat completion"),
        (Answer(body={"choices": [{"text": "Eat"}]}), "not a chat completion"),
        (Answer(body={"choices": [{"message": None}]}), "not a chat completion"),
        (chat(usage=["12"]), "not a chat completion"),
    ],
)
def test_a_reply_of_no_use_is_an_error_and_not_asked_for_again(
    endpoint: Endpoint, llm: OpenAIChat, answer: Answer, message: str
) -> None:
    endpoint.script(answer)
    with pytest.raises(LLMError, match=message) as caught:
        llm.generate([PROMPT])
    assert endpoint.n_requests == 1
    assert "\n" not in str(caught.value)


# What stays secret


@pytest.mark.parametrize(
    "answer",
    [
        Answer(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}),
        Answer(400, {"error": {"message": f"bad header Bearer {KEY}"}}),
        Answer(500, {"message": f"token {KEY}"}),
        Answer(200, chat().body, cut=True),
        Answer(body=b"not JSON"),
    ],
    ids=["401", "400", "500", "cut", "malformed"],
)
def test_the_key_is_in_no_error(endpoint: Endpoint, llm: OpenAIChat, answer: Answer) -> None:
    endpoint.script(answer)
    with pytest.raises(LLMError) as caught:
        llm.generate([PROMPT])
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert KEY not in everything_told(caught.value)


@pytest.mark.parametrize("bad", [f"{KEY} x", f"{KEY}\nx", f"{KEY}é"])
def test_a_key_with_odd_characters_is_refused_unquoted(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", bad)
    with pytest.raises(LLMError, match="OPENAI_API_KEY holds no key") as caught:
        OpenAIChat("m", base_url=endpoint.url)
    assert KEY not in str(caught.value)


def test_the_server_explains_but_may_not_quote_the_prompt(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.script(
        Answer(400, [{"error": {"message": "Unknown name 'seed':\n no such field"}}]),
        Answer(400, {"error": {"message": f"bad content: {PROMPT[10:60]}"}}),
    )
    with pytest.raises(LLMError, match="HTTP 400: Unknown name 'seed': no such field"):
        llm.generate([PROMPT])
    with pytest.raises(LLMError, match="quotes the prompt") as caught:
        llm.generate([PROMPT])
    assert "predicted" not in str(caught.value)


def test_key_prompt_and_reply_are_in_no_log(
    endpoint: Endpoint, llm: OpenAIChat, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    endpoint.script(Answer(500, {}), chat("Eat quinces."))
    llm.generate([PROMPT])
    assert not [secret for secret in (KEY, "gestational", "quinces") if secret in caplog.text]


def test_the_key_is_in_neither_repr_identity_nor_pickle(llm: OpenAIChat) -> None:
    llm.generate([PROMPT])
    assert KEY not in repr(llm) + llm.identity + repr(pickle.dumps(llm))


# Settings


def test_identity_tells_endpoint_model_and_sampling() -> None:
    llm = OpenAIChat("m", base_url="http://localhost:1/v1/", temperature=0.7, seed=3, concurrency=2, tries=9)
    assert llm.identity == (
        '{"base_url": "http://localhost:1/v1", "max_tokens": 256, "model": "m", "seed": 3, '
        '"system_prompt": null, "temperature": 0.7}'
    )


def test_it_works_after_pickling(endpoint: Endpoint, llm: OpenAIChat) -> None:
    llm.generate(["hello"])
    copy = pickle.loads(pickle.dumps(llm))
    assert copy == llm
    assert copy.generate(["hello"])[0].text == "Eat well."
    copy.close()


def test_it_works_after_closing(llm: OpenAIChat) -> None:
    llm.generate(["hello"])
    llm.close()
    assert llm.generate(["hello"])[0].text == "Eat well."


def test_a_forked_process_gets_its_own_connections(llm: OpenAIChat, monkeypatch: pytest.MonkeyPatch) -> None:
    parents = llm._client()
    with monkeypatch.context() as child:
        child.setattr("pmlm_env.llm.openai.os.getpid", lambda: -1)
        assert llm._client() is not parents
        llm.close()
    assert llm._client() is parents


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLM_KEY", raising=False)
    with pytest.raises(LLMError, match="environment variable GLM_KEY"):
        OpenAIChat("glm-4", base_url="https://example.org/v4", api_key_env="GLM_KEY")


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
        "ftp://localhost/v1",
        "localhost:8000/v1",
        "",
        "http://local\nhost",
    ],
)
def test_an_unsafe_base_url_is_refused(monkeypatch: pytest.MonkeyPatch, base_url: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(ValueError, match="base_url"):
        OpenAIChat("m", base_url=base_url)


@pytest.mark.parametrize("base_url", ["http://localhost:8000/v1", "http://[::1]:8000/v1", "http://127.0.0.2/v1"])
def test_this_machine_may_be_asked_unencrypted(base_url: str) -> None:
    assert OpenAIChat("m", base_url=base_url).base_url == base_url


@pytest.mark.parametrize(
    "setting",
    [{"max_tokens": 0}, {"concurrency": 0}, {"tries": 0}, {"temperature": -1}, {"backoff": -1}, {"timeout": 0}],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        OpenAIChat("m", base_url="http://localhost/v1", **setting)
