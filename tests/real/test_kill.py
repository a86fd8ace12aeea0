"""kill -9 at any moment: what is resumed ends as if nothing had happened, and pays for nothing twice."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from pmlm_env.llm import ReplyCache, Request
from pmlm_env.llm.responder import Responder
from pmlm_env.llm.storage.budget import Account
from tests.llm.endpoint import Answer, Endpoint, chat, serve
from tests.real.killed_run import train_and_evaluate
from tests.real.runs import check_same_checkpoint, prepare, processes, small_bert

pytestmark = [pytest.mark.once, pytest.mark.real]

N_KILLS = 20
CONCURRENCY = 3  # as in killed_run.OPTIONS


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """An endpoint that takes a moment, so that kills find requests under way."""

    async def answer(count: int, prompt: str) -> Answer:
        await asyncio.sleep(0.03)
        return chat(Responder().generate([prompt])[0].text)

    with serve() as state:
        state.answer = answer
        yield state


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    return prepare(tmp_path / "prepared")


def _asked(endpoint: Endpoint) -> Counter[str]:
    return Counter(endpoint.prompts)


def _kept(run: Path) -> set[str]:
    return {reply.request["prompt"] for reply in ReplyCache(run / "replies.sqlite")}


def test_runs_killed_at_20_random_moments_end_like_one_that_was_not_and_buy_no_reply_twice(
    endpoint: Endpoint, prepared: Path, tmp_path: Path
) -> None:
    draw = random.Random(0)

    def start(run: Path) -> BaseProcess:
        child = processes().Process(target=train_and_evaluate, args=(prepared, run, small_bert(), endpoint.url))
        child.start()
        return child

    def ended(child: BaseProcess, run: Path) -> str:
        child.join()
        assert child.exitcode == 0, Path(f"{run}.log").read_text()
        return (run / "evaluation.json").read_text()

    whole = ended(start(tmp_path / "whole"), tmp_path / "whole")
    length = endpoint.n_requests
    kills, runs, after = 0, 0, Counter[int]()
    while kills < N_KILLS:
        run = tmp_path / f"killed-{runs}"
        runs += 1
        before = _asked(endpoint)
        killed_here = 0
        bought: list[tuple[set[str], Counter[str]]] = []  # at each kill: what was kept, what had been asked
        child = start(run)
        while kills < N_KILLS:
            # A moment of the run, not of the clock: on a busy machine most of its time goes by before it begins.
            moment = endpoint.n_requests + draw.randrange(length)
            while endpoint.n_requests < moment and child.is_alive():
                time.sleep(0.001)
            child.join(draw.choice([0.0, 0.2]) * draw.random())  # amid a batch of requests, or after it
            if not child.is_alive():
                break
            os.kill(child.pid or 0, signal.SIGKILL)
            child.join()
            kills += 1
            killed_here += 1
            after[len(_kept(run))] += 1
            bought.append((_kept(run), _asked(endpoint)))
            child = start(run)
        assert ended(child, run) == whole
        check_same_checkpoint(run, tmp_path / "whole")
        asked = _asked(endpoint)
        for kept, then in bought:
            assert [prompt for prompt in kept if asked[prompt] != then[prompt]] == []
        requests = (asked - before).total()
        # Lost at a kill: what was under way, and replies that came in the last moments and were not yet written.
        assert len(_kept(run)) <= requests <= len(_kept(run)) + killed_here * 2 * CONCURRENCY
        booked = Account(path=run / "spent.sqlite").usage.calls
        assert requests <= booked <= requests + killed_here * CONCURRENCY
    assert len(after) >= 3, f"the kills came at too few different moments: {after}"


def test_the_replies_of_a_killed_run_are_whole(endpoint: Endpoint, prepared: Path, tmp_path: Path) -> None:
    child = processes().Process(
        target=train_and_evaluate, args=(prepared, tmp_path / "run", small_bert(), endpoint.url)
    )
    child.start()
    while endpoint.n_requests < 5 and child.is_alive():
        time.sleep(0.001)
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    for reply in ReplyCache(tmp_path / "run" / "replies.sqlite"):
        assert reply.reply["text"] == Responder().ask([Request(reply.request["prompt"])])[0].text
