"""OpenAIChat against a real HTTP server on this machine: what comes back, and what is made of it."""

from __future__ import annotations

import gzip
from asyncio import sleep
from collections.abc import Callable
from typing import Any

import pytest

from pmlm_env.llm.base import Completion, LLMError, Request
from pmlm_env.llm.http.endpoint import OpenAIChat
from tests.llm.endpoint import PROMPT, Answer, Delivery, Endpoint, chat

Connect = Callable[..., OpenAIChat]


def with_message(**message: Any) -> Answer:
    return Answer(body={"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


def with_choices(n: int) -> Answer:
    answer = chat()
    answer.body["choices"] *= n
    return answer


# Replies


def test_a_reply_is_stripped_and_counted(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.script(chat("  Eat well.\n", model="some-model-0125"))
    assert llm.generate([PROMPT]) == [Completion("Eat well.", 12, 3, "stop", "some-model-0125", cached=False)]


def test_half_a_character_in_the_models_name_does_no_harm(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.script(chat(model="some-\ud83cmodel"))
    assert llm.generate([PROMPT])[0].model == "some-?model"


def test_a_reply_cut_by_the_limit_is_an_error_that_is_not_asked_for_again(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.script(chat("Eat we", "length"))
    with pytest.raises(LLMError, match="cut at the token limit"):
        llm.generate([PROMPT])
    assert endpoint.n_requests == 1


def test_a_reply_cut_by_the_limit_is_kept_on_demand(endpoint: Endpoint, connect: Connect) -> None:
    endpoint.script(chat("Eat we", "length"))
    (reply,) = connect(on_truncated="keep").generate([PROMPT])
    assert (reply.text, reply.finish_reason) == ("Eat we", "length")


def test_geminis_capital_stop_is_a_stop(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.script(chat("Eat well.", "STOP"))
    assert llm.generate([PROMPT])[0].finish_reason == "stop"


@pytest.mark.parametrize(
    "usage",
    [
        *(None, {}, {"prompt_tokens": None}, {"prompt_tokens": 3}, ["12"], "12"),
        *(
            {"prompt_tokens": count, "completion_tokens": 3}
            for count in (-1, "-1", True, 12.5, "some", 10**12, float("nan"), 1e400, [12], {})
        ),
    ],
    ids=str,
)
def test_an_endpoint_that_counts_no_tokens_counts_zero_and_leaves_the_bound_booked(
    endpoint: Endpoint, llm: OpenAIChat, usage: Any
) -> None:
    endpoint.script(chat(usage=usage))
    (reply,) = llm.generate([PROMPT])
    assert (reply.prompt_tokens, reply.completion_tokens) == (0, 0)
    booked = llm.budget.usage
    assert (booked.prompt_tokens >= len(PROMPT), booked.completion_tokens) == (True, 256)


@pytest.mark.parametrize("count", [20, 20.0, "20", "20.0", " 20 "])
@pytest.mark.parametrize("names", [("prompt_tokens", "completion_tokens"), ("input_tokens", "output_tokens")])
def test_tokens_are_counted_however_the_number_is_written(
    endpoint: Endpoint, llm: OpenAIChat, count: Any, names: tuple[str, str]
) -> None:
    endpoint.script(chat(usage=dict.fromkeys(names, count)))
    (reply,) = llm.generate([PROMPT])
    assert (reply.prompt_tokens, reply.completion_tokens) == (20, 20)
    assert llm.budget.usage.completion_tokens == 20


def test_a_number_that_is_none_beside_the_reply_does_no_harm(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.script(chat(score=float("nan")))
    assert llm.generate([PROMPT])[0].text == "Eat well."


# Failures that pass


@pytest.mark.parametrize(
    "failure",
    [
        Answer(429, {}, {"Retry-After": "0"}),
        Answer(408, {}),
        Answer(409, {}),
        Answer(500, {}),
        Answer(503, b"<html>"),
        Answer(200, chat().body, {"Content-Encoding": "gzip"}),
        Answer(200, gzip.compress(chat().bytes())[:-12], {"Content-Encoding": "gzip"}),
        Answer(raw=b"SSH-2.0-OpenSSH_9.6\r\n"),
        chat(delivery="nothing"),
        chat(delivery="half a header"),
        chat(delivery="half a body"),
        chat(delivery="reset"),
    ],
    ids=["429", "408", "409", "500", "503", "no gzip", "half a gzip", "no HTTP", "shut", "header", "body", "reset"],
)
def test_a_passing_failure_is_tried_again(endpoint: Endpoint, llm: OpenAIChat, failure: Answer) -> None:
    endpoint.script(failure, chat())
    assert llm.generate([PROMPT])[0].text == "Eat well."
    assert endpoint.n_requests == llm.budget.usage.calls == 2


@pytest.mark.parametrize("delivery", ["stalled", "stalled body"])
def test_an_answer_that_stalls_is_given_up_and_asked_for_again(
    endpoint: Endpoint, connect: Connect, delivery: Delivery
) -> None:
    endpoint.script(chat(delivery=delivery))
    with pytest.raises(LLMError, match=r"ReadTimeout.*check whether the endpoint is up \(tried 2 times\)"):
        connect(tries=2, read_timeout=0.5).generate([PROMPT])
    assert endpoint.n_requests == 2


def test_tries_come_to_an_end(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.script(Answer(500, {"error": {"message": "overloaded"}}))
    with pytest.raises(LLMError, match=r"HTTP 500: overloaded \(tried 3 times\)"):
        llm.generate([PROMPT])
    assert endpoint.n_requests == 3


def test_an_endpoint_that_is_down_is_named_and_costs_nothing(connect: Connect) -> None:
    llm = connect(base_url="http://127.0.0.1:9/v1", tries=2)
    with pytest.raises(LLMError, match=r"127.0.0.1:9.*ConnectError.*whether the endpoint is up \(tried 2 times\)"):
        llm.generate([PROMPT])
    assert llm.budget.usage.calls == 0


# Failures that last


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_a_lasting_failure_is_not_tried_again(endpoint: Endpoint, llm: OpenAIChat, status: int) -> None:
    endpoint.script(Answer(status, {"error": {"message": "no"}}, {"Retry-After": "0"}))
    with pytest.raises(LLMError, match=f"HTTP {status}"):
        llm.generate([PROMPT])
    assert endpoint.n_requests == 1


def test_a_failed_prompt_costs_only_its_own_place(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.answer = lambda count, prompt: Answer(400, {}) if prompt == "b" else chat(prompt.upper())
    replies = llm.ask([Request(prompt) for prompt in "abc"])
    assert [reply.text if isinstance(reply, Completion) else "error" for reply in replies] == ["A", "error", "C"]


def test_generate_raises_the_first_error(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.answer = lambda count, prompt: chat() if prompt == "a" else Answer(400, {"error": {"message": prompt}})
    with pytest.raises(LLMError, match="HTTP 400: the server's message quotes"):
        llm.generate(["a", "b", "c"])


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (Answer(400, {}, {"X-Request-Id": "req-17"}), "request req-17"),
        (Answer(400, {}, {"request-id": "req_18"}), "request req_18"),
        (chat("", id="chatcmpl-19"), "request chatcmpl-19"),
        (chat("Eat", "content_filter", request_id="2026-20"), "request 2026-20"),
        (Answer(body=b"not JSON", headers={"x-log-id": "21"}), "request 21"),
    ],
)
def test_the_error_names_the_request(endpoint: Endpoint, llm: OpenAIChat, answer: Answer, found: str) -> None:
    endpoint.script(answer)
    with pytest.raises(LLMError, match=rf"\({found}\)"):
        llm.generate([PROMPT])


# Answers that are no replies


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (chat(""), "the reply is empty"),
        (chat(None), "the reply is empty"),
        (with_message(role="assistant"), "the reply is empty"),
        (chat("Eat", "tool_calls"), "reason 'tool_calls'"),
        (chat(7), "a content that is not text"),
        (chat([["Eat", 7]]), "a content that is not text"),
        (chat({"type": "tool_result", "content": "Eat"}), "the reply is empty"),
        (with_message(role="user", content="x"), "not from the assistant"),
        (chat("Eat \ud83c well."), "half a character"),
        (Answer(body=b'{"choices": [{"mess'), "not JSON"),
        (Answer(body=b"\xff\xfe"), "not JSON"),
        (Answer(body=chat().bytes().decode().encode("utf-16")), "not JSON"),
        (Answer(body=chat().bytes()[:-1] + b', "choices": []}'), "not JSON"),
        (Answer(body=b"[" * 100_000), "not JSON"),
        (Answer(204, b""), "not JSON"),
        (Answer(body=[]), "a list, not an object"),
        (Answer(body={}), "no choices"),
        (with_choices(0), "0 choices"),
        (with_choices(2), "2 choices"),
        (Answer(body={"choices": [{"text": 7}]}), "a choice without a message"),
        (Answer(body={"choices": [{"message": None}]}), "a choice without a message"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_an_answer_that_is_no_reply_is_asked_for_thrice_and_then_an_error(
    endpoint: Endpoint, connect: Connect, answer: Answer, message: str
) -> None:
    endpoint.script(answer)
    with pytest.raises(LLMError, match=message) as caught:
        connect(tries=9).generate([PROMPT])
    assert endpoint.n_requests == 3
    assert "\n" not in str(caught.value)


def test_an_answer_that_is_no_reply_may_be_followed_by_one(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.script(chat(""), with_choices(2), chat())
    assert llm.generate([PROMPT])[0].text == "Eat well."


def test_an_answer_without_end_is_ended_early(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.script(chat(delivery="endless"))
    with pytest.raises(LLMError, match="the answer is too large"):
        llm.generate([PROMPT])
    assert (endpoint.n_requests, endpoint.bytes_sent < 32_000_000) == (1, True)


def test_an_answer_that_drips_is_ended_by_patience(endpoint: Endpoint, connect: Connect) -> None:
    endpoint.script(chat(delivery="dripping"))
    with pytest.raises(LLMError, match="no complete answer within 1 s"):
        connect(patience=1.0, read_timeout=5).generate([PROMPT])
    assert endpoint.n_requests == 1


def test_patience_also_ends_the_tries(endpoint: Endpoint, connect: Connect) -> None:
    async def answer(count: int, prompt: str) -> Answer:
        await sleep(0.7)
        return Answer(500, {})

    endpoint.answer = answer
    with pytest.raises(LLMError, match="HTTP 500"):
        connect(patience=2.0, tries=1000).generate([PROMPT])
    assert 1 < endpoint.n_requests <= 3


def test_thoughts_that_are_in_the_total_alone_are_booked(endpoint: Endpoint, connect: Connect) -> None:
    endpoint.script(chat(usage={"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 40}))
    llm = connect()
    assert llm.generate([PROMPT])[0].completion_tokens == 30
    assert llm.budget.usage.completion_tokens == 30


def test_a_prompt_beyond_the_models_context_is_told_and_not_sent_again(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.script(chat("", "model_context_window_exceeded"))
    with pytest.raises(LLMError, match="does not fit the model's context"):
        llm.generate([PROMPT])
    assert endpoint.n_requests == 1
