"""Coroutines run from synchronous code, whether or not the caller itself stands in a running event loop (notebooks)."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")

_loops: dict[int, asyncio.AbstractEventLoop] = {}  # by process: a forked child has no thread to run its parent's
_lock = threading.Lock()


def _new_lock() -> None:
    """Another thread may have held the lock when this process was forked, and will not let go of it here."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_new_lock)


def event_loop() -> asyncio.AbstractEventLoop:
    """Return this process's background loop, which runs in a thread of its own until the process ends."""
    with _lock:
        pid = os.getpid()
        if pid not in _loops:
            _loops[pid] = asyncio.new_event_loop()
            threading.Thread(target=_loops[pid].run_forever, name="pmlm-llm", daemon=True).start()
        return _loops[pid]


def as_they_come(work: Callable[[Callable[[T], None]], Coroutine[Any, Any, None]]) -> Generator[list[T], None, None]:
    """Run a coroutine on the background loop, and yield what it hands out.

    Closing the generator (or an interruption, such as Ctrl-C) cancels the coroutine and waits until it is over. After
    an interruption what has been handed out by then is still yielded.

    Args:
        work: Makes the coroutine, given a function to hand things out with.

    Yields:
        What has been handed out since the last time, one thing at least.

    Raises:
        BaseException: What the coroutine raised, once all that it handed out has been yielded.
    """
    loop = event_loop()
    arrived: list[T] = []
    running: list[asyncio.Task[None]] = []
    news, over = threading.Semaphore(0), threading.Event()

    def put(thing: T) -> None:
        arrived.append(thing)
        news.release()

    def end(_: asyncio.Task[None]) -> None:
        over.set()
        news.release()

    def start() -> None:
        running.append(loop.create_task(work(put)))
        running[0].add_done_callback(end)

    def cancel() -> None:
        loop.call_soon_threadsafe(lambda: running[0].cancel())
        over.wait()

    loop.call_soon_threadsafe(start)
    taken, ended = 0, False
    try:
        while not ended:
            news.acquire()
            ended = over.is_set()
            if things := arrived[taken:]:
                yield things
                taken += len(things)
    except KeyboardInterrupt:
        cancel()
        if things := arrived[taken:]:
            yield things
        raise
    finally:
        if not over.is_set():
            cancel()
    running[0].result()
