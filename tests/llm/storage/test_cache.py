from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import random
import re
import signal
import sqlite3
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmlm_env.llm.base import LLM, Completion, LLMError, Reply, Request
from pmlm_env.llm.storage.cache import ReplyCache
from pmlm_env.llm.storage.cached_llm import CachedLLM, ReplayMissError
from pmlm_env.llm.storage.database import DatabaseError
from tests.standins import EchoLLM

pytestmark = pytest.mark.once

FORK = multiprocessing.get_context("fork")
HELLO = Completion("hello", 3, 1, "stop", "model-1")


class LotsLLM(LLM):
    """Replies one by one with what was asked, keeps a record of it, and dies after ``lives`` lots."""

    identity = '{"model": "lots", "temperature": 0.5}'

    def __init__(self, lives: int = 10**9) -> None:
        self.lives, self.asked, self.closed = lives, list[Request](), False

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        self.lots = self._lots(requests)  # so that it is not closed by being forgotten
        return self.lots

    def _lots(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        try:
            for place in reversed(range(len(requests))):
                if self.lives == 0:
                    raise RuntimeError("the LLM died")
                self.lives -= 1
                self.asked.append(requests[place])
                yield {place: Completion(f"{requests[place].prompt} {requests[place].sample}", 1, 1, "length")}
        finally:
            self.closed = True


def completions(replies: Sequence[Reply]) -> list[Completion]:
    assert all(isinstance(reply, Completion) for reply in replies)
    return list(replies)  # type: ignore[arg-type]


# What is asked


def test_nothing_is_asked_twice_even_in_one_batch() -> None:
    inner = EchoLLM()
    llm = CachedLLM(inner)
    first = llm.generate(["b a", "c", "b a"])
    second = llm.generate(["c", "d"])
    assert inner.batches == [["b a", "c"], ["d"]]
    assert [reply.text for reply in first] == ["a b", "c", "a b"]
    assert [reply.cached for reply in first + second] == [False, False, True, True, False]
    assert llm.hits == 2


def test_nothing_is_asked_twice_by_two_that_share_a_file(location: str) -> None:
    first, second = EchoLLM(), EchoLLM()
    bought = CachedLLM(first, ReplyCache(location)).generate(["b a"])
    kept = CachedLLM(second, ReplyCache(location)).generate(["b a"])
    assert second.batches == []
    assert kept == [replace(bought[0], cached=True)]


def test_another_identity_is_asked_again() -> None:
    inner = EchoLLM()
    llm = CachedLLM(inner)
    llm.generate(["a"])
    inner.identity = "echo at temperature 1"
    llm.generate(["a"])
    assert inner.batches == [["a"], ["a"]]


def test_another_sample_is_asked_again() -> None:
    llm = CachedLLM(LotsLLM())
    assert [r.text for r in completions(llm.ask([Request("a", 0), Request("a", 1)]))] == ["a 0", "a 1"]
    assert [r.text for r in completions(llm.ask([Request("a", 1), Request("a", 2)]))] == ["a 1", "a 2"]


def test_the_order_of_an_identitys_parts_does_not_matter() -> None:
    cache = ReplyCache()
    cache.put('{"model": "m", "temperature": 0}', {Request("a"): HELLO})
    assert cache.get('{"temperature":0,"model":"m"}', [Request("a")])
    assert not cache.get('{"temperature":0.0,"model":"n"}', [Request("a")])


def test_all_that_is_kept_comes_first_in_one_lot() -> None:
    llm = CachedLLM(LotsLLM())
    llm.generate(["a", "b"])
    lots = list(llm.replies([Request(prompt) for prompt in "xaybx"]))
    assert [sorted(lot) for lot in lots] == [[1, 3], [2], [0, 4]]
    assert [reply.cached for lot in lots for _, reply in sorted(lot.items())] == [True, True, False, False, True]  # type: ignore[union-attr]


def test_an_error_stands_in_its_place_and_is_not_kept() -> None:
    inner = EchoLLM()
    inner.broken = {"bad"}
    llm = CachedLLM(inner)
    replies = llm.ask([Request("bad"), Request("good"), Request("bad")])
    assert [type(reply) for reply in replies] == [LLMError, Completion, LLMError]
    assert len(llm.cache) == 1
    inner.broken = set()
    assert [reply.cached for reply in llm.generate(["bad", "good"])] == [False, True]


def test_a_failed_batch_leaves_nothing_in_the_cache() -> None:
    inner = EchoLLM()
    llm = CachedLLM(inner)
    inner.fail = True
    with pytest.raises(LLMError):
        llm.generate(["a"])
    inner.fail = False
    assert llm.generate(["a"])[0].text == "a"


# What is kept when


def test_what_came_before_the_llm_died_is_kept(location: str) -> None:
    with pytest.raises(RuntimeError, match="the LLM died"):
        CachedLLM(LotsLLM(lives=2), ReplyCache(location)).generate(["a", "b", "c"])
    inner = LotsLLM()
    CachedLLM(inner, ReplyCache(location)).generate(["a", "b", "c"])
    assert inner.asked == [Request("a")]


def test_a_lot_is_kept_before_it_is_yielded(location: str) -> None:
    lots = CachedLLM(LotsLLM(), ReplyCache(location)).replies([Request("a"), Request("b")])
    next(lots)
    assert len(ReplyCache(location)) == 1


def test_closing_calls_off_the_inner_llm() -> None:
    inner = LotsLLM()
    lots = CachedLLM(inner).replies([Request("a"), Request("b")])
    next(lots)
    assert not inner.closed
    lots.close()
    assert inner.closed
    assert inner.asked == [Request("b")]


def test_the_reply_that_was_kept_first_is_the_one_handed_on(location: str) -> None:
    """Two processes may ask the same at once; a replay sees only one reply, so both go on with that one."""

    class SlowLLM(LotsLLM):
        def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
            ReplyCache(location).put(self.identity, {requests[0]: HELLO})
            yield from super().replies(requests)

    llm = CachedLLM(SlowLLM(), ReplyCache(location))
    assert llm.generate(["a"]) == [HELLO]
    assert CachedLLM(LotsLLM(), llm.cache, replay=True).generate(["a"])[0].text == "hello"


def test_nothing_is_asked_where_replies_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    inner = EchoLLM()
    with pytest.raises(DatabaseError, match="a/b cannot be created"):
        CachedLLM(inner, ReplyCache(tmp_path / "a" / "b")).generate(["a"])
    assert inner.batches == []


# Replay


def test_a_replay_asks_nothing(location: str) -> None:
    bought = CachedLLM(LotsLLM(), ReplyCache(location)).generate(["a", "b"])
    again = CachedLLM(LotsLLM(lives=0), ReplyCache(location), replay=True).generate(["b", "a", "b"])
    assert again == [replace(bought[i], cached=True) for i in (1, 0, 1)]


def test_a_miss_on_replay_stops_the_run_and_quotes_no_prompt(location: str) -> None:
    CachedLLM(EchoLLM(), ReplyCache(location)).generate(["known"])
    inner = EchoLLM()
    with pytest.raises(ReplayMissError, match=r"^2 of 3 replies are not in \S+: this run differs") as caught:
        CachedLLM(inner, ReplyCache(location), replay=True).generate(["secret", "known", "secret"])
    assert inner.batches == []
    assert "secret" not in str(caught.value)
    assert not isinstance(caught.value, LLMError)


def test_a_replay_of_nothing_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(ReplayMissError):
        CachedLLM(EchoLLM(), ReplyCache(tmp_path / "a"), replay=True).generate(["a"])
    assert os.listdir(tmp_path) == []


# Form


TEXT = st.text(st.one_of(st.characters(), st.characters(categories=["Cs"]), st.sampled_from("\0\n'\"\\;%{"))).filter(
    lambda text: not re.search("[\ud800-\udbff][\udc00-\udfff]", text)  # JSON takes such a pair for one character
)
COUNT = st.integers(0, 2**80)


@given(TEXT, COUNT, COUNT, st.sampled_from(["stop", "length"]), TEXT, TEXT, st.integers(0), TEXT)
def test_what_comes_back_is_what_was_put(
    text: str, tokens_in: int, tokens_out: int, reason: str, model: str, prompt: str, sample: int, identity: str
) -> None:
    cache, request = ReplyCache(), Request(prompt, sample)
    completion = Completion(text, tokens_in, tokens_out, reason, model)  # type: ignore[arg-type]
    cache.put(identity, {request: completion})
    assert cache.get(identity, [request]) == {0: replace(completion, cached=True)}


@pytest.mark.parametrize("prompt", ["\ud800 lone", "a\0b", "她 的 病史", "'; DROP TABLE replies; --\"", "", "😀"])
def test_any_prompt_is_told_from_any_other_in_a_file(location: str, prompt: str) -> None:
    cache = ReplyCache(location)
    cache.put("llm", {Request(prompt): replace(HELLO, text=f"re {prompt}"), Request(prompt + "x"): HELLO})
    got = ReplyCache(location).get("llm", [Request(prompt + "x"), Request(prompt), Request(prompt + "\0")])
    assert got == {0: replace(HELLO, cached=True), 1: replace(HELLO, text=f"re {prompt}", cached=True)}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("reply", "{"),
        ("reply", "[]"),
        ("reply", '{"text": "half"}'),
        (
            "reply",
            json.dumps({"text": 1, "prompt_tokens": 1, "completion_tokens": 1, "finish_reason": "stop", "model": ""}),
        ),
        (
            "reply",
            json.dumps({"text": "", "prompt_tokens": 1, "completion_tokens": 1, "finish_reason": "?", "model": ""}),
        ),
        ("reply", b"\xff"),
        ("request", json.dumps({"llm": "llm", "prompt": "another", "sample": 0})),
        ("created", "yesterday"),
    ],
)
def test_a_damaged_reply_is_an_error_that_names_file_and_key(tmp_path: Path, column: str, value: str | bytes) -> None:
    ReplyCache(tmp_path / "a").put("llm", {Request("a"): HELLO})
    connection = sqlite3.connect(tmp_path / "a")
    with connection:
        connection.execute(f"UPDATE replies SET {column} = ?", (value,))
    connection.close()
    with pytest.raises(DatabaseError, match=r"/a: the reply with key [0-9a-f]{64} is damaged \(.*\): restore the file"):
        ReplyCache(tmp_path / "a").get("llm", [Request("a")])


def test_ten_thousand_replies_come_in_a_few_queries(tmp_path: Path) -> None:
    requests = [Request("p", sample) for sample in range(10_000)]
    llm = CachedLLM(EchoLLM(), ReplyCache(tmp_path / "a"))
    llm.ask(requests)
    statements: list[str] = []
    with llm.cache._database.transaction() as connection:
        connection.set_trace_callback(statements.append)
    statements.clear()
    assert all(reply.cached for reply in completions(llm.ask(requests)))
    assert len(statements) <= 24


def test_a_pickles_twin_has_the_same_file_and_a_count_of_its_own(location: str) -> None:
    llm = CachedLLM(EchoLLM(), ReplyCache(location), replay=True)
    llm.cache.put("echo", {Request("a"): HELLO})
    llm.generate(["a"])
    twin = pickle.loads(pickle.dumps(llm))
    assert (llm.hits, twin.hits) == (1, 0)
    assert twin.generate(["a"])[0].text == "hello"


def test_a_cache_in_memory_starts_empty_in_a_pickles_twin() -> None:
    llm = CachedLLM(EchoLLM())
    llm.generate(["a"])
    twin = pickle.loads(pickle.dumps(llm))
    assert (len(llm.cache), len(twin.cache)) == (1, 0)
    assert not twin.generate(["a"])[0].cached


# Many processes, and their deaths


def long_reply(prompt: str) -> Completion:
    return Completion(f"re {prompt} " * 500, 5, 7, "stop")


def put_for_ever(path: str, moment: int, pipe: Connection) -> None:
    cache = ReplyCache(path)
    for i in range(10**9):
        prompt = f"{moment} {i}"
        cache.put("llm", {Request(prompt): long_reply(prompt), Request(prompt, 1): long_reply(prompt)})
        pipe.send(prompt)


def test_a_reply_that_was_put_survives_kill_9_at_any_moment(location: str) -> None:
    rng = random.Random(0)
    path, acknowledged = location, list[str]()
    for moment in range(20):
        here, there = FORK.Pipe(duplex=False)
        child = FORK.Process(target=put_for_ever, args=(path, moment, there))
        child.start()
        there.close()
        acknowledged += [here.recv() for _ in range(rng.randint(1, 5))]  # a moment of its work, not of the clock
        time.sleep(rng.uniform(0, 0.01))
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        try:
            while True:
                acknowledged.append(here.recv())
        except (EOFError, OSError):  # the last one may have been cut in two
            here.close()
    requests = [Request(prompt, sample) for prompt in acknowledged for sample in (0, 1)]
    cache = ReplyCache(path)
    got = cache.get("llm", requests)
    assert all(got[i] == replace(long_reply(request.prompt), cached=True) for i, request in enumerate(requests))
    kept = [reply.request for reply in cache]  # reading them checks each
    samples = [sorted(r["sample"] for r in kept if r["prompt"] == prompt) for prompt in {r["prompt"] for r in kept}]
    assert all(s == [0, 1] for s in samples), "half of a lot"
    if cache.path is not None:
        assert cache._database.read("PRAGMA integrity_check") == [("ok",)]


def put_200(path: str, process: int) -> None:
    cache = ReplyCache(path)
    for i in range(200):
        cache.put("llm", {Request(f"{process} {i}"): HELLO, Request(f"shared {i}"): replace(HELLO, text=str(process))})


def test_four_processes_can_put_at_once(location: str) -> None:
    children = [FORK.Process(target=put_200, args=(location, process)) for process in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(300)
    assert [child.exitcode for child in children] == [0] * 4
    assert len(ReplyCache(location)) == 4 * 200 + 200
