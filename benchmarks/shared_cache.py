"""Speed of a reply cache on a PostgreSQL server beside that of a file: python -m benchmarks.shared_cache --json FILE.

Four processes share a cache and ask, in batches of 16, an LLM that replies at once, so that the time is that of claims,
of storing each reply in a transaction of its own, and of looking replies up. Then one process reads all replies. File
and server take turns within a round, on the same disk. The server is started from the system's packages with its usual
settings (every commit reaches the disk), unless --url names another one.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tyro

from pmlm_env.llm import LLM, CachedLLM, Completion, ReplyCache, Request
from pmlm_env.llm.base import Reply

_PROCESSES, _BATCH = 4, 16


@dataclass(frozen=True)
class Options:
    """Options of the measurement.

    Attributes:
        json: Output file.
        rounds: Number of rounds.
        prompts: Number of prompts of each process in a round.
        url: A database in which tables may be made, instead of a server of the benchmark's own.
    """

    json: Path | None = None
    rounds: int = 7
    prompts: int = 1_000
    url: str | None = None


class Instant(LLM):
    """Replies at once, one by one."""

    identity = "instant"

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        """Yield a reply of a usual length to each request."""
        for index in range(len(requests)):
            yield {index: Completion("Drink water and eat well. " * 16, 120, 90, "stop")}


def _prompts(round_: int, process: int, n: int) -> list[str]:
    text = "A pregnant woman leaves hospital today; her laboratory tests suggest anemia. " * 8
    return [f"{round_} {process} {number} {text}" for number in range(n)]


def ask(location: str, prompts: list[str]) -> None:
    """Ask for replies in batches, as a process of its own."""
    llm = CachedLLM(Instant(), ReplyCache(location))
    for start in range(0, len(prompts), _BATCH):
        llm.generate(prompts[start : start + _BATCH])


def _seconds_to_ask(location: str, prompts: list[list[str]]) -> float:
    processes = multiprocessing.get_context("fork")
    children = [processes.Process(target=ask, args=(location, each)) for each in prompts]
    started = time.perf_counter()
    for child in children:
        child.start()
    for child in children:
        child.join()
    seconds = time.perf_counter() - started
    assert [child.exitcode for child in children] == [0] * _PROCESSES
    return seconds


def _seconds_to_read(location: str, prompts: list[str]) -> float:
    llm = CachedLLM(Instant(), ReplyCache(location), replay=True)
    started = time.perf_counter()
    llm.generate(prompts)
    return time.perf_counter() - started


@contextmanager
def _database(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    from tests.llm.storage.postgres_server import PASSWORD, serve

    with serve(fsync=True) as server:
        os.environ["PGPASSWORD"] = PASSWORD
        yield server.new_database()


def main(options: Options) -> dict[str, list[float]]:
    """Measure, print the results, and write them as JSON."""
    n = _PROCESSES * options.prompts
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, _database(options.url) as url:
        places = {"file": str(Path(folder) / "replies.sqlite"), "server": url}
        for location in places.values():  # makes the tables
            ReplyCache(location).check_writable()
        for number in range(options.rounds):
            prompts = [_prompts(number, process, options.prompts) for process in range(_PROCESSES)]
            rates: dict[str, float] = {}
            for name in list(places) if number % 2 else list(reversed(places)):
                rates[f"{name}_asked_per_second"] = n / _seconds_to_ask(places[name], prompts)
                rates[f"{name}_read_per_second"] = n / _seconds_to_read(
                    places[name], [prompt for each in prompts for prompt in each]
                )
            for what in ("asked", "read"):
                server, file = (rates[f"{name}_{what}_per_second"] for name in ("server", "file"))
                rates[f"server_over_file_{what}"] = server / file
            for name, value in rates.items():
                figures.setdefault(name, []).append(value)
    for name, values in sorted(figures.items()):
        print(f"{name:26} median {statistics.median(values):,.2f}, {min(values):,.2f} to {max(values):,.2f}")
    if options.json is not None:
        rounded = {name: [round(value, 3) for value in values] for name, values in sorted(figures.items())}
        options.json.write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")
    return figures


if __name__ == "__main__":
    main(tyro.cli(Options))
