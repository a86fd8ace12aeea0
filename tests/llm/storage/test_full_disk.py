"""Replies that come when they cannot be written: nothing more is asked, and they are there later."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from pmlm_env.llm.base import LLM, Completion, Reply, Request, StopSending
from pmlm_env.llm.custom import CheckedLLM
from pmlm_env.llm.http.endpoint import OpenAIChat
from pmlm_env.llm.storage.budget import Budget, Limits, Usage
from pmlm_env.llm.storage.budgeted_llm import BudgetedLLM
from pmlm_env.llm.storage.cache import CachedReply, ReplyCache
from pmlm_env.llm.storage.cached_llm import CachedLLM
from pmlm_env.llm.storage.database import DatabaseError
from tests.llm.endpoint import Answer, Endpoint, chat

pytestmark = pytest.mark.once

Connect = Callable[..., OpenAIChat]
LONG = "x" * 20_000


@contextmanager
def full(file: Path) -> Iterator[threading.Event]:
    """Let an SQLite file that exists grow no more; the event is that it could not."""
    honest, refused = sqlite3.connect, threading.Event()

    class Full(sqlite3.Connection):
        def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
            super().execute("PRAGMA max_page_count = 1")  # as many pages as there are
            try:
                return super().execute(statement, *values)  # type: ignore[arg-type]
            except sqlite3.OperationalError:
                refused.set()
                raise

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "pmlm_env.llm.storage.database._sqlite",
            lambda target, uri=False: honest(
                target,
                isolation_level=None,
                check_same_thread=False,
                uri=uri,
                factory=Full if target == str(file) else sqlite3.Connection,
            ),
        )
        yield refused


@pytest.fixture
def file(tmp_path: Path) -> Path:
    ReplyCache(tmp_path / "replies.sqlite").check_writable()
    return tmp_path / "replies.sqlite"


def prompts(file: Path) -> list[str]:
    return [kept.request["prompt"] for kept in ReplyCache(file)]


def test_where_a_reply_cannot_be_written_no_more_is_asked_and_all_that_come_are_kept(
    endpoint: Endpoint, connect: Connect, file: Path
) -> None:
    asked = [Request(f"prompt {i}") for i in range(20)]
    with full(file) as refused:

        async def answer(count: int, prompt: str) -> Answer:
            while count > 1 and not refused.is_set():
                await asyncio.sleep(0.01)
            if count > 1:
                await asyncio.sleep(0.2)  # in which the client calls off what it has not sent
            return chat(LONG + prompt)

        endpoint.answer = answer
        llm = CachedLLM(connect(concurrency=3), ReplyCache(file))
        with pytest.raises(DatabaseError, match=r"database or disk is full.*free some space, then run the"):
            llm.ask(asked)
    assert 1 < endpoint.n_requests <= 4
    assert sorted(prompts(file)) == sorted(endpoint.prompts)
    again = CachedLLM(connect(concurrency=3), ReplyCache(file)).ask(asked)
    assert [reply.text for reply in again if isinstance(reply, Completion)] == [LONG + each.prompt for each in asked]
    assert max(Counter(endpoint.prompts).values()) == 1


class OneByOne(LLM):
    """Replies to one prompt after the other, and knows nothing of being told to stop."""

    identity = "one by one"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        for place, request in enumerate(requests):
            self.asked.append(request.prompt)
            yield {place: Completion(LONG + request.prompt, 1, 1, "stop")}


def test_an_llm_in_this_process_is_asked_no_more_either(file: Path) -> None:
    llm = OneByOne()
    with full(file), pytest.raises(DatabaseError, match="free some space"):
        CachedLLM(llm, ReplyCache(file)).generate(["a", "b"])
    assert llm.asked == prompts(file) == ["a"]


class InFlight(LLM):
    """Sends two requests at a time; told to stop, it sends no more and yields the reply in flight."""

    identity, max_tokens = "in flight", 10

    def __init__(self) -> None:
        self.sent: list[str] = []

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        stopped = False
        for index, request in enumerate(requests):
            if index % 2 == 0:
                if stopped:
                    return
                self.sent += [each.prompt for each in requests[index : index + 2]]
            try:
                yield {index: Completion(LONG + request.prompt, 1, 1, "stop")}
            except StopSending:
                stopped = True
                yield {}


def test_an_llm_of_ones_own_is_told_to_stop_and_its_replies_in_flight_are_kept_and_booked(file: Path) -> None:
    llm, budget = InFlight(), Budget(Limits(max_llm_calls=3))
    limited = BudgetedLLM(CheckedLLM("InFlight", llm), budget, llm.max_tokens)
    with full(file), pytest.raises(DatabaseError, match="free some space"):
        CachedLLM(limited, ReplyCache(file)).generate(["a", "b", "c", "d"])
    assert llm.sent == ["a", "b"]
    assert sorted(prompts(file)) == ["a", "b"]
    assert budget.usage == Usage(2, 2, 2)


def test_what_was_set_aside_stays_so_until_there_is_room(file: Path) -> None:
    with full(file):
        for prompt in "ab":
            with pytest.raises(DatabaseError):
                CachedLLM(OneByOne(), ReplyCache(file)).generate([prompt])
        assert prompts(file) == []
    assert sorted(prompts(file)) == ["a", "b"]
    assert not any(file.with_name("replies.sqlite-spare").read_bytes())


def test_what_another_process_sets_aside_while_replies_are_moved_stays(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = ReplyCache(file), ReplyCache(file)
    one.put_in_spare("x", {Request("a"): Completion("first", 1, 1, "stop")})
    setting_aside = threading.Thread(
        target=other.put_in_spare, args=("x", {Request("b"): Completion("second", 1, 1, "stop")})
    )
    honest = one.add

    def add(replies: Iterable[CachedReply]) -> int:
        n = honest(replies)
        setting_aside.start()
        setting_aside.join(timeout=0.5)  # it waits until the replies are moved, or has written into the spare space
        return n

    monkeypatch.setattr(one, "add", add)
    assert one.get("x", [Request("a")])[0].text == "first"
    setting_aside.join()
    assert sorted(prompts(file)) == ["a", "b"]


def test_half_a_reply_that_was_set_aside_is_left_out(file: Path) -> None:
    with full(file), pytest.raises(DatabaseError):
        CachedLLM(OneByOne(), ReplyCache(file)).generate(["a"])
    with file.with_name("replies.sqlite-spare").open("r+b") as spare:
        content = spare.read().rstrip(b"\0")
        spare.seek(len(content))
        spare.write(content[: len(content) // 2])
    assert prompts(file) == ["a"]


@pytest.mark.parametrize("length", [30, 1_000])
def test_a_reply_that_is_set_aside_after_half_a_reply_is_kept(file: Path, length: int) -> None:
    cache = ReplyCache(file)
    cache.put_in_spare("x", {Request("a"): Completion("first", 1, 1, "stop")})
    with file.with_name("replies.sqlite-spare").open("r+b") as spare:
        spare.seek(len(spare.read().rstrip(b"\0")))
        spare.write(b'{"created":1.0,"reply":{"text":"'.ljust(length, b"a"))
    cache.put_in_spare("x", {Request("b"): Completion("second", 1, 1, "stop")})
    cache.put_in_spare("x", {Request("c"): Completion("third", 1, 1, "stop")})
    assert sorted(prompts(file)) == ["a", "b", "c"]
    assert not any(file.with_name("replies.sqlite-spare").read_bytes())


def test_nothing_is_asked_where_there_is_no_room_to_set_replies_aside(file: Path) -> None:
    file.with_name("replies.sqlite-spare").unlink()
    file.with_name("replies.sqlite-spare").mkdir()
    llm = OneByOne()
    with pytest.raises(DatabaseError, match=r"replies.sqlite-spare cannot be written .*, so no more requests are sent"):
        CachedLLM(llm, ReplyCache(file)).generate(["a"])
    assert llm.asked == []


def test_what_is_set_aside_is_its_owners_alone(file: Path) -> None:
    assert stat.S_IMODE(file.with_name("replies.sqlite-spare").stat().st_mode) == 0o600


def test_a_reply_whose_bill_cannot_be_written_is_kept_and_stays_booked_at_its_upper_bound(
    endpoint: Endpoint, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = Budget(path=tmp_path / "spent.sqlite")
    honest = budget.run.add

    def add(usage: object, *, check: bool = False) -> None:
        if not check:
            raise DatabaseError("spent.sqlite cannot be written")
        honest(usage, check=check)  # type: ignore[arg-type]

    monkeypatch.setattr(budget.run, "add", add)
    endpoint.answer = lambda count, prompt: chat("Rest.")
    (reply,) = connect(budget=budget).ask([Request("a")])
    assert isinstance(reply, Completion)
    assert (budget.usage.calls, budget.usage.prompt_tokens) == (1, 101)
