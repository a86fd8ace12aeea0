"""Running coroutines from synchronous code, even if the caller runs in an event loop (as in notebooks)."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")

_loops: dict[
    int, asyncio.AbstractEventLoop
] = {}  # by process id: a forked child has no thread that runs its parent's loop
_lock = threading.Lock()


def _new_lock() -> None:
    """Replace the lock, which another thread may have held at the fork and would never release here."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_new_lock)


def event_loop() -> asyncio.AbstractEventLoop:
    """Return this process's background loop, which runs in its own thread until the process ends."""
    with _lock:
        pid = os.getpid()
        if pid not in _loops:
            _loops[pid] = asyncio.new_event_loop()
            threading.Thread(target=_loops[pid].run_forever, name="pmlm-llm", daemon=True).start()
        return _loops[pid]


def stream_results(work: Callable[[Callable[[T], None]], Coroutine[Any, Any, None]]) -> Generator[list[T], None, None]:
    """Run a coroutine on the background loop and yield its results as they arrive.

    Closing the generator, or an interruption such as Ctrl-C, cancels the coroutine and waits until it has ended. After
    an interruption, the results so far are still yielded.

    Args:
        work: Takes a callback for results and returns the coroutine.

    Yields:
        The results since the last batch, at least one.

    Raises:
        BaseException: What the coroutine raised, after all its results have been yielded.
    """
    loop = event_loop()
    collected: list[T] = []
    running: list[asyncio.Task[None]] = []
    progress, finished = threading.Semaphore(0), threading.Event()

    def put(result: T) -> None:
        collected.append(result)
        progress.release()

    def end(_: asyncio.Task[None]) -> None:
        finished.set()
        progress.release()

    def start() -> None:
        running.append(loop.create_task(work(put)))
        running[0].add_done_callback(end)

    def cancel() -> None:
        loop.call_soon_threadsafe(lambda: running[0].cancel())
        finished.wait()

    loop.call_soon_threadsafe(start)
    n_yielded, ended = 0, False
    try:
        while not ended:
            progress.acquire()
            ended = finished.is_set()
            if results := collected[n_yielded:]:
                yield results
                n_yielded += len(results)
    except KeyboardInterrupt:
        cancel()
        if results := collected[n_yielded:]:
            yield results
        raise
    finally:
        if not finished.is_set():
            cancel()
    running[0].result()
