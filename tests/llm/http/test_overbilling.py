"""Endpoints that bill more tokens than they were asked for."""

from __future__ import annotations

import logging
from asyncio import Event, sleep
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pmlm_env.llm import Budget, BudgetExceededError, Limits, Price
from pmlm_env.llm.base import Completion, Request
from pmlm_env.llm.http.endpoint import OpenAIChat
from tests.llm.endpoint import Answer, Endpoint, chat

Connect = Callable[..., OpenAIChat]
TOO_MUCH_OUT = {"prompt_tokens": 5, "completion_tokens": 3600}
TOO_MUCH_IN = {"prompt_tokens": 7200, "completion_tokens": 5}
THOUGHTS_IN_TOTAL = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 3605}


def replies(llm: OpenAIChat, n: int) -> tuple[list[Any], BudgetExceededError]:
    """Ask n times; return what came, and how it ended."""
    out: list[Any] = []

    def collect() -> None:
        for batch in llm.replies([Request(f"{i}") for i in range(n)]):
            out.extend(batch.values())

    with pytest.raises(BudgetExceededError) as caught:
        collect()
    return out, caught.value


@pytest.mark.parametrize(
    ("usage", "limits", "words"),
    [
        (TOO_MUCH_OUT, Limits(max_completion_tokens=10**6), "3,600 completion tokens instead of at most 100"),
        (THOUGHTS_IN_TOTAL, Limits(max_completion_tokens=10**6), "3,600 completion tokens instead of at most 100"),
        (TOO_MUCH_IN, Limits(max_prompt_tokens=10**6), "7,200 prompt tokens instead of at most 101"),
        (TOO_MUCH_OUT, Limits(max_cost=100.0), "3,600 completion tokens instead of at most 100"),
        (TOO_MUCH_IN, Limits(max_cost=100.0), "7,200 prompt tokens instead of at most 101"),
    ],
)
def test_the_first_answer_billed_above_its_bound_is_the_last_under_a_limit(
    endpoint: Endpoint, connect: Connect, usage: dict[str, int], limits: Limits, words: str
) -> None:
    endpoint.script(chat(usage=usage))
    llm = connect(concurrency=9, max_tokens=100, budget=Budget(limits, price=Price(1.0, 1.0)))
    had, refusal = replies(llm, 9)
    assert endpoint.n_requests == llm.budget.usage.calls == 1
    assert [reply.text for reply in had if isinstance(reply, Completion)] == ["Eat well."]  # it is paid for
    assert f"a reply was billed at {words}, so a limit on tokens or cost cannot be guaranteed" in str(refusal)
    assert "remove the limit, and run the command again" in str(refusal)
    assert "\n" not in str(refusal)


def test_a_limit_that_runs_share_counts_too(endpoint: Endpoint, connect: Connect, tmp_path: Path) -> None:
    group = tmp_path / "group.toml"
    group.write_text("max_completion_tokens = 1000000\n")
    endpoint.script(chat(usage=TOO_MUCH_OUT))
    replies(connect(max_tokens=100, budget=Budget(group=group)), 9)
    assert endpoint.n_requests == 1


def test_an_endpoint_that_begins_to_bill_too_much_later_is_stopped_too(endpoint: Endpoint, connect: Connect) -> None:
    endpoint.script(chat(), chat(), chat(usage=TOO_MUCH_OUT), chat())
    llm = connect(concurrency=1, max_tokens=100, budget=Budget(Limits(max_completion_tokens=10**6)))
    assert len(replies(llm, 9)[0]) == endpoint.n_requests == 3


def test_the_first_request_goes_alone_and_the_others_side_by_side(endpoint: Endpoint, connect: Connect) -> None:
    under_way, most, seen_by_the_first = 0, 0, 0
    four_came = Event()

    async def answer(count: int, prompt: str) -> Answer:
        nonlocal under_way, most, seen_by_the_first
        under_way += 1
        most = max(most, under_way)
        if under_way == 4:
            four_came.set()
        if count > 1:
            await four_came.wait()
        await sleep(0.05)  # in which one more would come
        under_way -= 1
        seen_by_the_first = seen_by_the_first or endpoint.n_requests
        return chat()

    endpoint.answer = answer
    llm = connect(concurrency=4, budget=Budget(Limits(max_completion_tokens=10**6)))
    assert len(llm.generate(["a"] * 9)) == 9
    assert (seen_by_the_first, most) == (1, 4)


@pytest.mark.parametrize(
    "limits",
    [Limits(), Limits(max_llm_calls=1000), Limits(max_prompt_tokens=10**6)],
    ids=["none", "on calls", "on prompt tokens"],
)
def test_limits_that_it_cannot_break_go_on_with_one_warning(
    endpoint: Endpoint, connect: Connect, limits: Limits, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "pmlm_env")
    endpoint.script(chat(usage=TOO_MUCH_OUT))
    llm = connect(max_tokens=100, budget=Budget(limits))
    assert len(llm.generate(["a", "b", "c"])) == 3
    assert [record.getMessage() for record in caplog.records] == [
        "a reply was billed at 3,600 completion tokens instead of at most 100: the LLM does not respect the token limit"
    ]


def test_an_endpoint_that_bills_just_what_was_asked_for_is_in_order(
    endpoint: Endpoint, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.script(chat(usage={"prompt_tokens": 101, "completion_tokens": 100}))
    llm = connect(max_tokens=100, budget=Budget(Limits(max_completion_tokens=10**6)))
    assert len(llm.generate(["a", "b"])) == 2
    assert caplog.records == []
