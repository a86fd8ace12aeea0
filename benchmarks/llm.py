"""Speed of cached replies and utilization of an endpoint: python -m benchmarks.llm --json FILE.

The endpoint is a mock server on this machine, in a separate process, that takes 200 ms per reply. With 64 requests in
flight, its maximum throughput is 64 / 0.2 s = 320 replies per second. Replies are cached and calls are booked in files,
as in a run.
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

_LATENCY, _IN_FLIGHT = 0.2, 64


@dataclass(frozen=True)
class Options:
    """Options of the measurement.

    Attributes:
        json: Output file.
        repeats: Number of repeats.
        prompts: Number of prompts sent to the endpoint per repeat.
        cached: Number of cached replies read per repeat.
    """

    json: Path | None = None
    repeats: int = 5
    prompts: int = 2560
    cached: int = 10_000


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
    """Send the port, then answer every request after 200 ms."""

    async def run() -> None:
        server = await asyncio.start_server(_answer, "127.0.0.1", 0, backlog=256)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def _llm(url: str, folder: Path) -> CachedLLM:
    return load_llm(
        LLMOptions("openai:m", base_url=url),
        concurrency=_IN_FLIGHT,
        cache=folder / "replies.sqlite",
        budget=Budget(path=folder / "spent.sqlite"),
    )


def _prompt(number: int) -> str:
    return f"{number} " + "A pregnant woman leaves hospital today; her laboratory tests suggest anemia. " * 8


def main(options: Options) -> dict[str, list[float]]:
    """Measure, print the results, and write them as JSON."""
    near, far = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(far,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{near.recv()}/v1"
    shares, seconds = [], []
    for repeat in range(options.repeats):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            llm = _llm(url, folder)
            llm.generate([_prompt(-number - 1) for number in range(_IN_FLIGHT)])  # opens the connections
            started = time.perf_counter()
            llm.generate([_prompt(number) for number in range(options.prompts)])
            ideal = options.prompts / _IN_FLIGHT * _LATENCY
            shares.append(ideal / (time.perf_counter() - started))
            cached = _llm(url, folder / "cached")
            cache = ReplyCache(folder / "cached" / "replies.sqlite")
            completion = llm.generate([_prompt(0)])[0]
            prompts = [_prompt(repeat * options.cached + number) for number in range(options.cached)]
            for start in range(0, options.cached, 1000):
                part = prompts[start : start + 1000]
                cache.put(cached.identity, {Request(prompt): completion for prompt in part})
            started = time.perf_counter()
            cached.generate(prompts)
            seconds.append(time.perf_counter() - started)
            assert cached.hits == options.cached
    server.terminate()
    figures = {"share_of_ideal_throughput": shares, "seconds_for_cached_replies": seconds}
    for name, values in figures.items():
        print(f"{name:28} median {statistics.median(values):.3f}, {min(values):.3f} to {max(values):.3f}")
    if options.json is not None:
        rounded = {name: [round(value, 3) for value in values] for name, values in figures.items()}
        options.json.write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")
    return figures


if __name__ == "__main__":
    main(tyro.cli(Options))
