"""How fast kept replies come, and how well an endpoint is kept busy: python -m benchmarks.llm --json FILE.

The endpoint is a stand-in on this machine, in a process of its own, that takes 200 ms for every reply. With 64
requests under way nobody could get more than 64 / 0.2 s = 320 replies a second from it. Replies are kept and calls are
booked in files, as in a run.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import tyro

from pmlm_env.llm import Budget, CachedLLM, LLMOptions, ReplyCache, Request, load_llm

_LATENCY, _UNDER_WAY = 0.2, 64


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        json: Where to write the figures.
        repeats: Repeats of each measurement.
        prompts: Prompts sent to the endpoint in each.
        kept: Kept replies read in each.
    """

    json: Path | None = None
    repeats: int = 5
    prompts: int = 2560
    kept: int = 10_000


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Eat well."}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 120, "completion_tokens": 3}
    body = json.dumps({"choices": [choice], "usage": usage}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    try:
        while True:
            request = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(request.split(b"content-length: ")[1].split(b"\r\n")[0]))
            await asyncio.sleep(_LATENCY)
            writer.write(head + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def serve(port: Connection) -> None:
    """Answer every request after 200 ms; sends its port first."""

    async def run() -> None:
        server = await asyncio.start_server(_answer, "127.0.0.1", 0, backlog=256)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def _llm(url: str, folder: Path) -> CachedLLM:
    return load_llm(
        LLMOptions("openai:m", base_url=url),
        concurrency=_UNDER_WAY,
        cache=folder / "replies.sqlite",
        budget=Budget(path=folder / "spent.sqlite"),
    )


def _prompt(number: int) -> str:
    return f"{number} " + "A pregnant woman leaves hospital today; her laboratory tests suggest anaemia. " * 8


def main(options: Options) -> dict[str, list[float]]:
    """Measure and print."""
    near, far = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(far,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{near.recv()}/v1"
    shares, seconds = [], []
    for repeat in range(options.repeats):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            llm = _llm(url, folder)
            llm.generate([_prompt(-number - 1) for number in range(_UNDER_WAY)])  # opens the connections
            started = time.perf_counter()
            llm.generate([_prompt(number) for number in range(options.prompts)])
            ideal = options.prompts / _UNDER_WAY * _LATENCY
            shares.append(ideal / (time.perf_counter() - started))
            kept = _llm(url, folder / "kept")
            cache = ReplyCache(folder / "kept" / "replies.sqlite")
            completion = llm.generate([_prompt(0)])[0]
            prompts = [_prompt(repeat * options.kept + number) for number in range(options.kept)]
            for start in range(0, options.kept, 1000):
                part = prompts[start : start + 1000]
                cache.put(kept.identity, {Request(prompt): completion for prompt in part})
            started = time.perf_counter()
            kept.generate(prompts)
            seconds.append(time.perf_counter() - started)
            assert kept.hits == options.kept
    server.terminate()
    figures = {"share_of_ideal_throughput": shares, "seconds_for_kept_replies": seconds}
    for name, values in figures.items():
        print(f"{name:28} median {statistics.median(values):.3f}, {min(values):.3f} to {max(values):.3f}")
    if options.json is not None:
        rounded = {name: [round(value, 3) for value in values] for name, values in figures.items()}
        options.json.write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")
    return figures


if __name__ == "__main__":
    main(tyro.cli(Options))
