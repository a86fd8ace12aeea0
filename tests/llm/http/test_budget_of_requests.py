"""Budgets of an endpoint's requests, against a real HTTP server on this machine that counts them."""

from __future__ import annotations

import random
import signal
import threading
import time
from asyncio import sleep
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pmlm_env.llm import BudgetExceededError
from pmlm_env.llm.base import Completion, LLMError, Request
from pmlm_env.llm.http.endpoint import OpenAIChat
from pmlm_env.llm.storage.budget import Budget, Limits, Price, Usage
from tests.llm.endpoint import Answer, Endpoint, chat

pytestmark = pytest.mark.once

Connect = Callable[..., OpenAIChat]
HELLO = "hello"
ROOM = len(HELLO) + 100  # what a prompt of five letters is booked at


async def unhurried(count: int, prompt: str) -> Answer:
    await sleep(0.05)
    return chat()


def test_128_tasks_against_a_budget_of_1000_calls_send_exactly_1000(endpoint: Endpoint, connect: Connect) -> None:
    endpoint.answer = unhurried
    llm = connect(concurrency=128, budget=Budget(Limits(max_llm_calls=1000)), read_timeout=60.0)

    def task(number: int) -> int:
        for count in range(1000):
            try:
                llm.generate([f"{number} {count}"])
            except BudgetExceededError:
                return count
        raise AssertionError("the budget never ended")

    with ThreadPoolExecutor(128) as pool:
        replies = sum(pool.map(task, range(128)))
    assert endpoint.n_requests == llm.budget.usage.calls == replies == 1000


def test_one_batch_of_1300_prompts_against_1000_calls_sends_exactly_1000(endpoint: Endpoint, connect: Connect) -> None:
    endpoint.answer = unhurried
    llm = connect(concurrency=128, budget=Budget(Limits(max_llm_calls=1000)), read_timeout=60.0)
    had: dict[int, Any] = {}

    def collect() -> None:
        for lot in llm.replies([Request(str(i)) for i in range(1300)]):
            had.update(lot)

    with pytest.raises(BudgetExceededError, match="LLM call limit of 1,000"):
        collect()
    assert endpoint.n_requests == llm.budget.usage.calls == len(had) == 1000
    assert all(isinstance(reply, Completion) for reply in had.values())


def test_repeated_requests_count(endpoint: Endpoint, connect: Connect) -> None:
    endpoint.script(Answer(500, {}))
    llm = connect(tries=100, budget=Budget(Limits(max_llm_calls=10)))
    with pytest.raises(BudgetExceededError):
        llm.generate([HELLO])
    assert endpoint.n_requests == 10


@pytest.mark.parametrize(
    "limits",
    [Limits(max_completion_tokens=5000), Limits(max_prompt_tokens=9000), Limits(max_cost=0.02)],
    ids=["completion tokens", "prompt tokens", "money"],
)
def test_what_the_server_bills_never_overshoots_a_limit(endpoint: Endpoint, connect: Connect, limits: Limits) -> None:
    rng, price, billed = random.Random(0), Price(prompt=1.0, completion=5.0), Counter[str]()

    def answer(count: int, prompt: str) -> Answer:
        """Bill at random, up to the bound; now and then fail, or fail to tell what was billed."""
        fate = rng.random()
        if fate < 0.1:
            return Answer(500, {})
        usage = {"prompt_tokens": rng.randint(0, len(prompt) + 100), "completion_tokens": rng.randint(0, 50)}
        billed.update(usage)
        if fate < 0.2:
            return chat(delivery="nothing", usage=usage)
        return chat("Eat", "content_filter", usage=usage) if fate < 0.3 else chat(usage=usage if fate < 0.9 else None)

    endpoint.answer = answer
    llm = connect(max_tokens=50, concurrency=16, tries=9, budget=Budget(limits, price=price))
    with pytest.raises(BudgetExceededError):
        llm.generate([HELLO] * 2000)
    cost = price.cost(billed["prompt_tokens"], billed["completion_tokens"])
    spent = llm.budget.usage
    assert endpoint.n_requests == spent.calls
    assert billed["prompt_tokens"] <= spent.prompt_tokens <= (limits.max_prompt_tokens or spent.prompt_tokens)
    assert (
        billed["completion_tokens"]
        <= spent.completion_tokens
        <= (limits.max_completion_tokens or spent.completion_tokens)
    )
    assert cost <= spent.cost <= (limits.max_cost or spent.cost)
    assert 0 < sum(billed.values())


def test_what_was_under_way_when_the_run_ended_stays_booked(endpoint: Endpoint, connect: Connect) -> None:
    endpoint.script(chat(), chat(delivery="stalled"))
    llm = connect(concurrency=1, max_tokens=50)
    lots = llm.replies([Request(HELLO), Request(HELLO)])
    next(lots)
    while endpoint.n_requests < 2:
        time.sleep(0.01)
    lots.close()
    assert llm.budget.usage == Usage(2, 12 + ROOM, 3 + 50, 0.0)


def silent_tls(endpoint: Endpoint) -> str:
    """Return an address that takes connections, and then waits for what TLS does not send."""
    return endpoint.url.replace("http:", "https:")


def test_a_request_that_runs_out_of_patience_before_it_is_sent_costs_nothing(
    endpoint: Endpoint, connect: Connect
) -> None:
    llm = connect(base_url=silent_tls(endpoint), patience=0.5, api_key_env="")
    with pytest.raises(LLMError, match=r"no complete answer within 0\.5 s"):
        llm.generate([HELLO])
    assert (endpoint.n_connections, llm.budget.usage.calls) == (1, 0)


def test_a_request_that_is_called_off_before_it_is_sent_costs_nothing(endpoint: Endpoint, connect: Connect) -> None:
    llm = connect(base_url=silent_tls(endpoint), api_key_env="")
    main_thread = threading.main_thread().ident
    assert main_thread is not None

    def call_off() -> None:
        while not endpoint.n_connections:
            time.sleep(0.01)
        signal.pthread_kill(main_thread, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=call_off, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            llm.generate([HELLO])
    finally:
        signal.signal(signal.SIGINT, before)
    assert llm.budget.usage.calls == 0


def test_a_key_that_is_gone_in_the_middle_of_a_run_ends_it_and_the_unsent_request_costs_nothing(
    endpoint: Endpoint, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(count: int, prompt: str) -> Answer:
        monkeypatch.setenv("OPENAI_API_KEY", "not a key")
        return chat()

    endpoint.answer = answer
    llm = connect(concurrency=1)
    with pytest.raises(LLMError, match="the environment variable OPENAI_API_KEY does not contain a valid key"):
        llm.generate([HELLO, HELLO])
    assert endpoint.n_requests == llm.budget.usage.calls == 1


def test_a_lasting_failure_costs_a_call_and_no_tokens(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.script(Answer(400, {}))
    assert isinstance(llm.ask([Request(HELLO)])[0], LLMError)
    assert llm.budget.usage == Usage(calls=1)
