"""A worker: a process on a machine of a cluster that does runs of a command, one after another."""

from __future__ import annotations

import copy
import logging
import os
import signal
import socket
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from logging import LogRecord
from types import FrameType
from typing import Any, Protocol

from agents.cluster.files import open_files_on
from pmlm_env.registry import OUTSIDE, failure

#: Packages whose messages the command shows.
OURS = ("pmlm_env", "agents")

#: The signal that ends a run. Ray's processes block SIGINT, which a terminal sends to all of a command's processes.
_STOP = signal.SIGUSR1


class Runs(Protocol):
    """What does the runs of a command, in its own process or in a worker.

    Attributes:
        identity: What determines results besides the job, as JSON values. Those of all workers must be equal.
    """

    identity: dict[str, Any]

    def __call__(self, job: Any, /) -> Any:
        """Do a run. The job and the result consist of JSON values."""


@dataclass(frozen=True)
class Answer:
    """What a call of a worker came to.

    Attributes:
        value: What was returned.
        error: What was raised instead.
        trace: The error's traceback as text.
        warnings: Warnings of our packages meanwhile, with the names of their loggers.
    """

    value: Any = None
    error: BaseException | None = None
    trace: str = ""
    warnings: list[tuple[str, int, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """Where a worker runs.

    Attributes:
        host: The machine's name.
        node: Ray's identifier of the node.
        pid: The process.
        lacks: Which of the folders that the command needs the machine does not have.
    """

    host: str
    node: str
    pid: int
    lacks: tuple[str, ...] = ()


class Worker:
    """Does runs of a command; an actor. Its methods run one after another, in the process's main thread."""

    def __init__(self) -> None:
        """Do nothing that can fail."""
        self._busy = False
        self._warnings: list[tuple[str, int, str]] = []

    def start(self, folder: str, node: str, shared: Sequence[str] = ()) -> Place:
        """Get ready to act for a command: in its working folder, with its files of replies and spending.

        Args:
            folder: The command's working folder. Without one of that name on this machine, the relative paths of other
                files than those of replies and spending fail.
            node: Ray's identifier of the node where the command runs.
            shared: Files that the command has just made in folders that all machines must share.
        """
        import ray

        signal.signal(_STOP, self._stop)
        collector = _Collector(self._warnings)
        for name in OURS:  # the command shows them; Ray's files of logs get none
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = [collector], False
        if os.path.isdir(folder):
            os.chdir(folder)
        open_files_on(node, folder)
        lacks = [*(() if os.path.isdir(folder) else (folder,)), *(file for file in shared if not os.path.isfile(file))]
        return Place(socket.gethostname(), ray.get_runtime_context().get_node_id(), os.getpid(), tuple(lacks))

    def prepare(self, make: Callable[..., Runs], arguments: tuple[Any, ...], outside: Sequence[Any]) -> Answer:
        """Make what does the runs, and answer with its identity.

        Args:
            make: Makes it.
            arguments: The arguments.
            outside: Which arguments have classes from outside pmlm-env, as in ``pmlm_env.registry.OUTSIDE``.
        """
        OUTSIDE.extend(outside)

        def made() -> dict[str, Any]:
            self._runs = make(*arguments)
            return self._runs.identity

        return self._answer(made)

    def do(self, job: Any) -> Answer:
        """Do a run."""
        return self._answer(lambda: self._runs(job))

    def _answer(self, call: Callable[[], Any]) -> Answer:
        self._warnings.clear()
        value, trace = None, ""
        error: BaseException | None = None
        try:
            self._busy = True
            value = call()
        except KeyboardInterrupt:
            error = KeyboardInterrupt()
        except SystemExit as raised:
            error = RuntimeError(f"a class that the command uses called sys.exit({raised.code!r}): it must not")
        except Exception as raised:
            error, trace = _portable(raised), traceback.format_exc()
        finally:
            self._busy = False
        return Answer(value, error, trace, list(self._warnings))

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """End a run as Ctrl-C does in a command's own process: replies that are under way are stored first."""
        if self._busy:
            self._busy = False  # only once
            raise KeyboardInterrupt


def stop(pid: int) -> None:
    """Ask a worker on this machine to end its run."""
    os.kill(pid, _STOP)


class _Collector(logging.Handler):
    def __init__(self, into: list[tuple[str, int, str]]) -> None:
        super().__init__(logging.WARNING)
        self._into = into

    def emit(self, record: LogRecord) -> None:
        if len(self._into) < 100:
            self._into.append((record.name, record.levelno, record.getMessage()))


def _portable(error: Exception) -> Exception:
    """Return an error that another process can raise and describe as this one would."""
    if (said := failure(error, OURS)) is not None:
        return RuntimeError(said)
    try:
        copy.deepcopy(error)  # takes an object apart and makes it anew as Ray does
    except Exception:  # an error's class decides how that is done, and may raise anything
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
