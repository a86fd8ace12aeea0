"""OpenAIChat against a real HTTP server on this machine: what goes out, settings, identity."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import pickle
from asyncio import sleep
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import pytest

from pmlm_env.llm.base import LLM, Completion, LLMError, Request
from pmlm_env.llm.http.endpoint import OpenAIChat
from tests.llm.endpoint import KEY, PROMPT, Answer, Endpoint, chat

Connect = Callable[..., OpenAIChat]
FORK = multiprocessing.get_context("fork")


def test_it_is_an_llm(llm: OpenAIChat) -> None:
    assert isinstance(llm, LLM)


# The body


def test_the_body_holds_the_prompt_and_the_sampling_and_nothing_else(endpoint: Endpoint, llm: OpenAIChat) -> None:
    llm.generate([PROMPT])
    assert endpoint.paths == ["/v1/chat/completions"]
    assert endpoint.bodies == [
        {
            "model": "some-model",
            "messages": [{"role": "user", "content": PROMPT}],
            "stream": False,
            "max_tokens": 256,
            "temperature": 0.0,
            "seed": 0,
        }
    ]


def test_the_system_prompt_goes_first(endpoint: Endpoint, connect: Connect) -> None:
    connect(system_prompt="Be brief.").generate(["hello"])
    assert endpoint.bodies[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
    ]


@pytest.mark.parametrize("name", ["temperature", "seed"])
def test_what_the_endpoint_refuses_is_left_out(endpoint: Endpoint, connect: Connect, name: str) -> None:
    connect(**{name: None}).ask([Request("hello", 3)])
    assert name not in endpoint.bodies[0]


def test_each_sample_has_a_seed_of_its_own(endpoint: Endpoint, connect: Connect) -> None:
    connect(seed=5, concurrency=1).ask([Request("hello", sample) for sample in range(3)])
    assert [body["seed"] for body in endpoint.bodies] == [5, 6, 7]


def test_the_limit_on_tokens_goes_by_the_endpoints_name_for_it(endpoint: Endpoint, connect: Connect) -> None:
    connect(max_tokens=7, max_tokens_name="max_completion_tokens").generate(["hello"])
    assert endpoint.bodies[0]["max_completion_tokens"] == 7
    assert "max_tokens" not in endpoint.bodies[0]


def test_the_extra_body_goes_along(endpoint: Endpoint, connect: Connect) -> None:
    connect(extra_body={"thinking": {"type": "disabled"}}).generate(["hello"])
    assert endpoint.bodies[0]["thinking"] == {"type": "disabled"}


def test_the_extra_body_changes_nothing_that_is_booked(endpoint: Endpoint, connect: Connect) -> None:
    connect(max_tokens=7, extra_body={"max_tokens": 9999, "model": "dearer"}).generate(["hello"])
    assert (endpoint.bodies[0]["max_tokens"], endpoint.bodies[0]["model"]) == (7, "some-model")


def test_the_extra_body_cannot_ask_for_a_stream(endpoint: Endpoint, connect: Connect) -> None:
    connect(extra_body={"stream": True}).generate(["hello"])
    assert endpoint.bodies[0]["stream"] is False


def test_a_prompt_that_utf8_cannot_encode_is_sent_all_the_same(endpoint: Endpoint, llm: OpenAIChat) -> None:
    llm.generate(["\udce9 妊娠"])
    assert endpoint.prompts == ["\udce9 妊娠"]


# How many, and over which connections


def test_no_batch_sends_no_request(endpoint: Endpoint, llm: OpenAIChat) -> None:
    assert llm.generate([]) == []
    assert endpoint.n_requests == 0


def test_no_more_requests_are_under_way_than_allowed(endpoint: Endpoint, connect: Connect) -> None:
    under_way, most = 0, 0
    three_came = asyncio.Event()

    async def answer(count: int, prompt: str) -> Answer:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way == 3:
            three_came.set()
        await three_came.wait()
        await sleep(0.03)  # in which a fourth would come
        under_way -= 1
        return chat()

    endpoint.answer = answer
    connect(concurrency=3).generate(["hello"] * 9)
    assert most == 3


def test_no_more_connections_are_opened_than_requests_may_be_under_way(endpoint: Endpoint, connect: Connect) -> None:
    llm = connect(concurrency=3)
    llm.generate(["hello"] * 30)
    llm.generate(["hello"] * 30)
    assert endpoint.n_connections <= 3


def test_no_more_requests_start_in_a_minute_than_allowed(
    endpoint: Endpoint, connect: Connect, naps: list[float]
) -> None:
    connect(requests_per_minute=30).generate(["hello"] * 4)
    assert naps == [pytest.approx(seconds, abs=1) for seconds in (2, 4, 6)]


def test_tokens_in_a_minute_are_guessed_and_then_put_right(
    endpoint: Endpoint, connect: Connect, naps: list[float]
) -> None:
    llm = connect(tokens_per_minute=60, max_tokens=50, concurrency=1)
    endpoint.script(chat(usage={"prompt_tokens": 30, "completion_tokens": 10}))
    llm.generate(["x" * 40, "x" * 40])  # thought to be 60 seconds' worth, and 40 in truth
    assert naps == [pytest.approx(40, abs=2)]


def test_it_works_after_closing(endpoint: Endpoint, llm: OpenAIChat) -> None:
    llm.generate(["hello"])
    llm.close()
    assert llm.generate(["hello"])[0].text == "Eat well."
    assert endpoint.n_connections == 2


def test_it_works_after_pickling(endpoint: Endpoint, llm: OpenAIChat) -> None:
    llm.generate(["hello"])
    copy = pickle.loads(pickle.dumps(llm))
    assert copy == llm
    assert copy.generate(["hello"])[0].text == "Eat well."
    copy.close()


def _generate_twice(llm: OpenAIChat, pipe: Connection) -> None:
    pipe.send([llm.generate([prompt])[0].text for prompt in ("a", "b")])


def test_a_forked_process_gets_connections_of_its_own(endpoint: Endpoint, llm: OpenAIChat) -> None:
    llm.generate(["hello"])
    ours, theirs = FORK.Pipe()
    child = FORK.Process(target=_generate_twice, args=(llm, theirs))
    child.start()
    assert ours.poll(300)
    assert ours.recv() == ["Eat well."] * 2
    child.join(300)
    assert llm.generate(["hello"])[0].text == "Eat well."
    assert endpoint.n_connections == 2


# Keys


def test_a_missing_key_is_named_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLM_KEY", raising=False)
    llm = OpenAIChat("glm-4", base_url="https://example.org/v4", api_key_env="GLM_KEY")
    for use in (llm.check_environment, lambda: llm.generate(["hello"])):
        with pytest.raises(LLMError, match="environment variable GLM_KEY"):
            use()
    assert llm.budget.usage.calls == 0


def test_an_endpoint_on_this_machine_needs_no_key(
    endpoint: Endpoint, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert connect().generate(["hello"])[0].text == "Eat well."
    assert "authorization" not in {name.lower() for name in endpoint.headers[0]}


def test_a_key_that_is_changed_is_used_from_the_next_request_on(
    endpoint: Endpoint, llm: OpenAIChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm.generate(["hello"])
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another")
    llm.generate(["hello"])
    assert [headers["Authorization"] for headers in endpoint.headers] == [f"Bearer {KEY}", "Bearer sk-another"]


# Proxies


def test_prompts_for_this_machine_take_no_proxy(
    endpoint: Endpoint, other_endpoint: Endpoint, llm: OpenAIChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, other_endpoint.url)
    llm.generate(["hello"])
    assert (endpoint.n_requests, other_endpoint.n_requests) == (1, 0)


def test_prompts_for_another_machine_take_the_proxy(
    endpoint: Endpoint, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, endpoint.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    connect(base_url="http://model.invalid/v1", allow_http=True).generate(["hello"])
    assert endpoint.paths == ["http://model.invalid/v1/chat/completions"]


# Identity and settings


def test_identity_tells_endpoint_model_and_all_that_shapes_the_reply() -> None:
    llm = OpenAIChat("m", base_url="http://localhost:1/v1/", temperature=0.7, seed=3, concurrency=2, tries=9)
    assert llm.identity == (
        '{"base_url": "http://localhost:1/v1", "max_tokens": 256, "model": "m", "on_truncated": "error", "seed": 3, '
        '"system_prompt": null, "temperature": 0.7}'
    )


def test_identity_tells_the_extra_body() -> None:
    llm = OpenAIChat("m", extra_body={"top_p": 0.5})
    assert json.loads(llm.identity)["extra_body"] == {"top_p": 0.5}


@pytest.mark.parametrize("base_url", ["http://localhost:8000/v1", "http://[::1]:8000/v1", "http://127.0.0.2/v1"])
def test_this_machine_may_be_asked_unencrypted(base_url: str) -> None:
    assert OpenAIChat("m", base_url=base_url).base_url == base_url


@pytest.mark.parametrize(
    "setting",
    [
        {"max_tokens": 0},
        {"concurrency": 0},
        {"tries": 0},
        {"temperature": -1},
        {"temperature": float("nan")},
        {"backoff": -1},
        {"read_timeout": 0},
        {"connect_timeout": 0},
        {"patience": 0},
        {"requests_per_minute": 0},
        {"tokens_per_minute": -1},
        {"on_truncated": "cut"},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        OpenAIChat("m", base_url="http://localhost/v1", **setting)


# Order


def test_replies_keep_the_order_of_prompts_whichever_is_ready_first(endpoint: Endpoint, llm: OpenAIChat) -> None:
    last_answered = asyncio.Event()

    async def answer(count: int, prompt: str) -> Answer:
        if prompt == "p0":
            await last_answered.wait()
        if prompt == "p7":
            last_answered.set()
        return chat(prompt.upper())

    endpoint.answer = answer
    prompts = [f"p{i}" for i in range(8)]
    assert [reply.text for reply in llm.generate(prompts)] == [prompt.upper() for prompt in prompts]


def test_a_reply_is_handed_out_as_soon_as_it_is_there(endpoint: Endpoint, connect: Connect) -> None:
    second_may_come = asyncio.Event()

    async def answer(count: int, prompt: str) -> Answer:
        if prompt == "second":
            await second_may_come.wait()
        return chat(prompt)

    endpoint.answer = answer
    lots = connect(concurrency=2).replies([Request("second"), Request("first")])
    first = next(lots)[1]
    assert isinstance(first, Completion)
    assert first.text == "first"
    lots.close()
