"""Coroutines on the background loop, alone and under OpenAIChat."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from pmlm_env.llm.base import Completion, Request
from pmlm_env.llm.http.background import event_loop, stream_results
from pmlm_env.llm.http.endpoint import OpenAIChat
from pmlm_env.llm.storage.budget import Budget, Usage
from pmlm_env.llm.storage.database import DatabaseError
from tests.llm.endpoint import Answer, Endpoint, chat

Connect = Callable[..., OpenAIChat]
Put = Callable[[int], None]


def tasks() -> set[asyncio.Task[Any]]:
    """What is under way on the background loop."""

    async def others() -> set[asyncio.Task[Any]]:
        return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]

    return asyncio.run_coroutine_threadsafe(others(), event_loop()).result(10)


def counting_to(n: int, error: BaseException | None = None) -> Callable[[Put], Coroutine[Any, Any, None]]:
    async def count(put: Put) -> None:
        for i in range(n):
            put(i)
            await asyncio.sleep(0)
        if error is not None:
            raise error

    return count


def never_ending(put: Put) -> Coroutine[Any, Any, None]:
    async def wait() -> None:
        put(0)
        await asyncio.Event().wait()

    return wait()


def echo(count: int, prompt: str) -> Answer:
    return chat(prompt)


async def first_only(count: int, prompt: str) -> Answer:
    """Answer the first request, and leave all others waiting."""
    if count > 1:
        await asyncio.Event().wait()
    return chat(prompt)


# As they come


def test_all_comes_in_order_and_never_nothing() -> None:
    lots = list(stream_results(counting_to(100)))
    assert [i for lot in lots for i in lot] == list(range(100))
    assert all(lots)


def test_a_coroutine_that_hands_out_nothing_yields_nothing() -> None:
    assert list(stream_results(counting_to(0))) == []


def test_an_exception_comes_after_what_was_handed_out_before() -> None:
    got: list[int] = []
    with pytest.raises(ZeroDivisionError, match="the reason"):  # noqa: PT012  # a loop is one thing to do
        for lot in stream_results(counting_to(3, ZeroDivisionError("the reason"))):
            got += lot
    assert got == [0, 1, 2]


def test_nothing_is_started_before_the_first_lot_is_asked_for() -> None:
    started: list[bool] = []

    def work(put: Put) -> Coroutine[Any, Any, None]:
        started.append(True)
        return counting_to(1)(put)

    lots = stream_results(work)
    lots.close()
    assert (started, list(lots)) == ([], [])


def test_closing_leaves_no_task_behind() -> None:
    lots = stream_results(never_ending)
    assert next(lots) == [0]
    assert len(tasks()) == 1
    lots.close()
    assert tasks() == set()


def test_closing_waits_until_the_coroutine_has_cleaned_up() -> None:
    cleaned: list[bool] = []

    async def work(put: Put) -> None:
        put(0)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            cleaned.append(True)

    lots = stream_results(work)
    next(lots)
    lots.close()
    assert cleaned == [True]


def test_an_exception_in_the_consumer_leaves_no_task_behind() -> None:
    with pytest.raises(KeyboardInterrupt), closing(stream_results(never_ending)) as lots:  # noqa: PT012  # likewise
        for _ in lots:
            raise KeyboardInterrupt
    assert tasks() == set()


def test_there_is_one_loop_for_all_threads() -> None:
    with ThreadPoolExecutor(8) as pool:
        assert {event_loop() for _ in range(20)} | set(pool.map(lambda _: event_loop(), range(20))) == {event_loop()}


# Under OpenAIChat


def test_it_can_be_called_from_synchronous_code(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.answer = echo
    assert [reply.text for reply in llm.generate(["a", "b"])] == ["a", "b"]


def test_it_can_be_called_inside_a_running_event_loop(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.answer = echo

    async def cell_of_a_notebook() -> list[str]:
        return [reply.text for reply in llm.generate(["a", "b"])]

    assert asyncio.run(cell_of_a_notebook()) == ["a", "b"]
    assert asyncio.run(cell_of_a_notebook()) == ["a", "b"]  # in a second loop likewise


def test_eight_threads_may_use_one_client_at_once(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.answer = echo
    all_there = threading.Barrier(8)

    def ask(thread: int) -> list[str]:
        all_there.wait(10)
        return [reply.text for _ in range(5) for reply in llm.generate([f"{thread} {i}" for i in range(4)])]

    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(ask, range(8)))
    assert replies == [[f"{thread} {i}" for _ in range(5) for i in range(4)] for thread in range(8)]
    assert endpoint.n_requests == 160


def test_closing_calls_off_what_is_under_way_and_sends_no_more(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.answer = first_only
    lots = llm.replies([Request(f"p{i}") for i in range(100)])
    next(lots)
    lots.close()
    assert tasks() == set()
    endpoint.answer = echo
    llm.generate(["the last"])
    assert len(endpoint.prompts) <= 10  # eight under way at once, the first one's successor, and the last
    assert "the last" in endpoint.prompts
    assert llm.budget.usage.calls >= endpoint.n_requests  # what was called off stays booked, sent or not


def test_closing_the_connections_between_two_tries_does_no_harm(endpoint: Endpoint, connect: Connect) -> None:
    asked = threading.Event()

    def answer(count: int, prompt: str) -> Answer:
        asked.set()
        return Answer(429, {}, {"Retry-After": "0.3"}) if count == 1 else chat(prompt)

    endpoint.answer = answer
    llm = connect(concurrency=1, patience=5.0)
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(llm.generate, ["a"])
        assert asked.wait(5)
        time.sleep(0.1)  # until the answer is there
        llm.close()
        assert reply.result(10)[0].text == "a"


class FullDisk(Budget):
    """Cannot book a fourth call."""

    def reserve(self, prompt: str, max_tokens: int) -> Usage:
        if self.usage.calls == 3:
            raise DatabaseError("the disk is full")
        return super().reserve(prompt, max_tokens)


def test_where_no_call_can_be_booked_no_more_is_sent_and_what_is_under_way_is_waited_for(
    endpoint: Endpoint, connect: Connect
) -> None:
    endpoint.answer = echo
    came: list[str] = []
    llm = connect(concurrency=3, budget=FullDisk())
    lots = llm.replies([Request(prompt) for prompt in "abcde"])
    with pytest.raises(DatabaseError, match="the disk is full"):
        came.extend(reply.text for lot in lots for reply in lot.values() if isinstance(reply, Completion))
    assert sorted(came) == sorted(endpoint.prompts) == ["a", "b", "c"]
    assert tasks() == set()


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as in a terminal: whoever runs the tests in the background may have told them to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_calls_off_what_is_under_way(endpoint: Endpoint, llm: OpenAIChat) -> None:
    main_thread = threading.main_thread().ident
    assert main_thread is not None

    async def answer(count: int, prompt: str) -> Answer:
        if count == 8:
            signal.pthread_kill(main_thread, signal.SIGINT)
        await asyncio.Event().wait()
        return chat()

    endpoint.answer = answer
    with pytest.raises(KeyboardInterrupt):
        llm.generate([f"p{i}" for i in range(100)])
    assert tasks() == set()
    endpoint.answer = echo
    llm.generate(["the last"])
    assert endpoint.prompts[8:] == ["the last"]


@pytest.mark.usefixtures("ctrl_c")
def test_what_has_arrived_when_ctrl_c_comes_is_still_handed_out() -> None:
    main_thread = threading.main_thread().ident
    assert main_thread is not None

    async def work(put: Put) -> None:
        put(0)
        await asyncio.sleep(0.1)  # until the main thread waits for more
        signal.pthread_kill(main_thread, signal.SIGINT)
        put(1)
        await asyncio.Event().wait()

    came: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        came.extend(thing for things in stream_results(work) for thing in things)
    assert came == [0, 1]
    assert tasks() == set()


def test_after_a_fork_in_the_middle_of_a_batch_parent_and_child_go_on(endpoint: Endpoint, llm: OpenAIChat) -> None:
    may_come = asyncio.Event()

    async def answer(count: int, prompt: str) -> Answer:
        if prompt == "the child's":
            may_come.set()
        elif prompt == "after the child's":
            await may_come.wait()
        return chat(prompt)

    endpoint.answer = answer
    lots = llm.replies([Request("first"), Request("after the child's")])
    texts = {place: getattr(reply, "text", "") for place, reply in next(lots).items()}
    child = os.fork()
    if child == 0:  # no test framework here
        try:
            os._exit(0 if llm.generate(["the child's"])[0].text == "the child's" else 1)
        finally:
            os._exit(2)
    texts |= {place: getattr(reply, "text", "") for lot in lots for place, reply in lot.items()}
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert texts == {0: "first", 1: "after the child's"}
