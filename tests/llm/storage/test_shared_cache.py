"""Several processes with one cache: who sends what, and what becomes of the claims of one that dies."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from agents.model_options import CallOptions, ModelOptions
from agents.models import RunModels
from agents.problem import Editor
from pmlm_env.llm.base import LLM, Completion, LLMError, Reply, Request
from pmlm_env.llm.storage.budget import Account, Budget
from pmlm_env.llm.storage.budgeted_llm import BudgetedLLM
from pmlm_env.llm.storage.cache import ReplyCache
from pmlm_env.llm.storage.cached_llm import CachedLLM

pytestmark = pytest.mark.once

FORK = multiprocessing.get_context("fork")
PROMPTS = [f"prompt {i}" for i in range(120)]
N_PROCESSES, N_KILLS, CHUNK = 4, 12, 10


class LoggedLLM(LLM):
    """Writes into a file what it is asked, and by whom, before it replies."""

    identity = "logged"

    def __init__(self, log: Path, fail: bool = False, before: Callable[[], object] = lambda: None) -> None:
        self.log, self.fail, self.before = log, fail, before

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        for index, request in enumerate(requests):
            self._write(f"asked {os.getpid()} {request.prompt}\n")
            self.before()
            time.sleep(0.005)
            yield {index: LLMError("no") if self.fail else Completion(f"re {request.prompt}", 3, 2, "stop")}
            self._write(f"stored {os.getpid()} {request.prompt}\n")  # whoever asks for more has stored this

    def _write(self, line: str) -> None:
        with self.log.open("ab", buffering=0) as file:
            file.write(line.encode())


def events(log: Path) -> list[tuple[str, int, str]]:
    lines = (line.split(" ", 2) for line in log.read_text().splitlines()) if log.exists() else ()
    return [(what, int(pid), prompt) for what, pid, prompt in lines]


def asked(log: Path) -> list[tuple[int, str]]:
    return [(pid, prompt) for what, pid, prompt in events(log) if what == "asked"]


def ask_everything(location: str, log: Path, ledger: Path, seed: int, allowed: ctypes.c_int) -> None:
    def wait() -> None:
        while len(asked(log)) > allowed.value:
            time.sleep(0.001)

    llm = CachedLLM(BudgetedLLM(LoggedLLM(log, before=wait), Budget(path=ledger), 5), ReplyCache(location))
    prompts = random.Random(seed).sample(PROMPTS, len(PROMPTS))
    for start in range(0, len(prompts), CHUNK):
        chunk = prompts[start : start + CHUNK]
        assert [reply.text for reply in llm.generate(chunk)] == [f"re {prompt}" for prompt in chunk]


def start(task: Callable[..., None], *arguments: object) -> BaseProcess:
    child = FORK.Process(target=task, args=arguments)
    child.start()
    return child


def kill(child: BaseProcess) -> None:
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()


def test_four_processes_killed_at_random_ask_nothing_twice_and_lose_nothing(location: str, tmp_path: Path) -> None:
    draw, log, ledger = random.Random(0), tmp_path / "log", tmp_path / "spent.sqlite"
    allowed = FORK.RawValue(ctypes.c_int, 0)  # how many requests may be replied to
    arguments = ((location, log, ledger, seed, allowed) for seed in range(1000))
    children = [start(ask_everything, *next(arguments)) for _ in range(N_PROCESSES)]
    killed = set[int]()
    for number in range(1, N_KILLS + 1):  # at moments of the work, not of the clock
        allowed.value = number * len(PROMPTS) // (N_KILLS + 1)
        while len(asked(log)) < allowed.value:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.01))
        victim = draw.randrange(N_PROCESSES)
        kill(children[victim])
        killed.add(children[victim].pid or 0)
        children[victim] = start(ask_everything, *next(arguments))
    allowed.value = 10**6
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0] * N_PROCESSES

    requests = asked(log)
    counts = Counter(prompt for _, prompt in requests)
    for prompt, count in counts.items():
        askers = [pid for pid, each in requests if each == prompt]
        assert set(askers[: count - 1]) <= killed, "asked again, though the first asker lived"
    assert counts.keys() == set(PROMPTS)
    assert len(requests) - len(PROMPTS) <= len(killed)  # one request was under way at each kill
    order = events(log)
    stored = {prompt: place for place, (what, _, prompt) in reversed(list(enumerate(order))) if what == "stored"}
    late = [
        place for place, (what, _, prompt) in enumerate(order) if what == "asked" and place > stored.get(prompt, place)
    ]
    assert late == [], "asked again, though it was stored"
    kept = {reply.request["prompt"]: reply.reply["text"] for reply in ReplyCache(location)}
    assert kept == {prompt: f"re {prompt}" for prompt in PROMPTS}
    booked = Account(path=ledger).usage.calls
    assert len(requests) <= booked <= len(requests) + len(killed) * CHUNK


def test_a_process_waits_for_a_reply_that_another_has_asked_for(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pmlm_env.llm.storage.cached_llm._SILENT_WAIT", 0.05)
    monkeypatch.setattr("pmlm_env.llm.storage.cached_llm._LONGEST_PAUSE", 0.05)
    caplog.set_level(logging.INFO)
    log, go_on = tmp_path / "log", FORK.Event()
    child = start(lambda: CachedLLM(LoggedLLM(log, before=go_on.wait), ReplyCache(location)).generate(["a", "b"]))
    while not asked(log):
        time.sleep(0.001)

    def reply_soon() -> None:
        while "Waiting" not in caplog.text:
            time.sleep(0.001)
        go_on.set()

    threading.Thread(target=reply_soon).start()
    ours = CachedLLM(LoggedLLM(log), ReplyCache(location)).generate(["b", "c", "a"])
    child.join(60)
    assert [(reply.text, reply.cached) for reply in ours] == [("re b", True), ("re c", False), ("re a", True)]
    assert Counter(prompt for _, prompt in asked(log)) == {"a": 1, "b": 1, "c": 1}
    assert "Waiting for 2 replies that another command has asked for" in caplog.text


def test_what_a_dead_process_had_asked_for_is_asked_again(location: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = start(
        lambda: CachedLLM(LoggedLLM(log, before=lambda: time.sleep(600)), ReplyCache(location)).generate(["a"])
    )
    while not asked(log):
        time.sleep(0.001)
    kill(child)
    assert CachedLLM(LoggedLLM(log), ReplyCache(location)).generate(["a"])[0].text == "re a"
    assert asked(log) == [(child.pid, "a"), (os.getpid(), "a")]


def test_what_failed_for_one_process_is_asked_by_the_next(location: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = start(lambda: CachedLLM(LoggedLLM(log, fail=True), ReplyCache(location)).ask([Request("a")]))
    child.join(60)
    assert CachedLLM(LoggedLLM(log), ReplyCache(location)).generate(["a"])[0].text == "re a"
    assert len(asked(log)) == 2


def test_a_request_that_was_called_off_is_free_for_others(location: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    batches = CachedLLM(LoggedLLM(log), ReplyCache(location)).replies([Request("a"), Request("b")])
    next(batches)
    batches.close()
    child = start(lambda: CachedLLM(LoggedLLM(log), ReplyCache(location)).generate(["a", "b"]))
    child.join(60)
    assert [prompt for _, prompt in asked(log)] == ["a", "b"]


def test_what_an_agent_asks_an_llm_is_stored_with_the_replies(location: str) -> None:
    for n_hits in (0, 1):
        models = RunModels(ModelOptions(llm="responder"), CallOptions(cache=location))
        llm = models.editor(Editor("tests.editors:MarkedWordsEditor"))
        assert all(isinstance(reply, Completion) for reply in llm.ask([Request("0:keep 1:drop*")]))
        assert llm.hits == n_hits


def test_a_forked_child_makes_claims_of_its_own_and_leaves_its_parents_alone(location: str) -> None:
    cache = ReplyCache(location)
    with cache.claimed("logged", [Request("a")]) as ours:
        assert ours == [Request("a")]
        child = start(lambda: os._exit(0 if _claim(cache, "a", "b") == ["b"] else 1))
        child.join(60)
        assert child.exitcode == 0
        other = start(lambda: os._exit(0 if _claim(ReplyCache(location), "a", "b") == ["b"] else 1))
        other.join(60)
        assert other.exitcode == 0  # the child's claim on "b" ended with it, ours on "a" did not


def _claim(cache: ReplyCache, *prompts: str) -> list[str]:
    with cache.claimed("logged", [Request(prompt) for prompt in prompts]) as mine:
        return [request.prompt for request in mine]


def test_thousands_of_claims_are_taken_and_given_up(location: str) -> None:
    cache, requests = ReplyCache(location), [Request("p", sample) for sample in range(3000)]
    with cache.claimed("logged", requests) as mine:
        assert mine == requests
        assert cache._database.read("SELECT COUNT(*) FROM claims") == [(3000,)]
    assert cache._database.read("SELECT COUNT(*) FROM claims") == [(0,)]


def test_a_file_of_an_earlier_version_gets_a_table_of_claims(tmp_path: Path) -> None:
    ReplyCache(tmp_path / "a").check_writable()
    with sqlite3.connect(tmp_path / "a") as connection:
        connection.execute("DROP TABLE claims")
    connection.close()
    assert _claim(ReplyCache(tmp_path / "a"), "a") == ["a"]
