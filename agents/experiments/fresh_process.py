"""Runs in a process of their own, which has used no memory and no time before."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

_STATUS = Path("/proc/self/status")


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``function(*arguments)``, called in a new process, which ends with this one's wait for it.

    Args:
        function: A function of a module.
        arguments: Its arguments.

    Raises:
        ValueError: The function raised it; OSError and RuntimeError likewise.
        RuntimeError: The process ended without a result.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_send, args=(sender, function, arguments), daemon=True)
    child.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        child.join()
        raise RuntimeError(
            f"the run's process ended with exit code {child.exitcode} and no result; with -9, memory may have run out"
        ) from None
    finally:
        child.kill()  # also if this process is asked to end
        child.join()
    if isinstance(result, Exception):
        raise result
    return result


def peak_memory() -> float:
    """Return the most memory that this process has had at a time, in MB (10^6 bytes)."""
    # On Linux, getrusage also counts what the parent process had when it started this one.
    if _STATUS.exists():
        lines = _STATUS.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (peak if sys.platform == "darwin" else peak * 1024) / 1e6


def _send(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes; the parent decides
    Thread(target=_end_with_parent, daemon=True).start()
    try:
        result = function(*arguments)
    except (ValueError, OSError, RuntimeError) as error:
        result = error
    sender.send(result)


def _end_with_parent() -> None:
    """Wait until the parent process has ended, even by kill -9, then end this one."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
