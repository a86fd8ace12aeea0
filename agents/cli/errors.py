"""How commands end: exit codes, signals, and a one-line message that says what to do next."""

from __future__ import annotations

import errno
import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from agents.cli.library_warnings import library_warnings_in_one_line
from agents.run_folder import RunFolder
from agents.settings import plain
from agents.training.destination import given_again
from pmlm_env.processes import EndedError, LostProcessError
from pmlm_env.registry import failure

_AGAIN = "run the command again"

_OURS = ("pmlm_env", "agents")

#: What to do after a command was interrupted; for `train` it depends on the run.
_AFTER_STOP = {
    "demo": "all replies are kept: run the command again, and it uses them",
    "evaluate": "all replies are kept: run the command again, and it requests only the others",
    "audit": "all replies are kept: run the command again, and it requests only the others",
    "refine": "all replies are kept: run the command again, and it requests only the others",
    "prefill": "all replies are kept, and batches go on: run the command again, and it requests only the others",
    "benchmark": "complete runs and all replies are kept: run the command again to continue",
    "experiment": "complete runs are kept: run the command again to continue",
    "tune": "the results of completed agents and all replies are kept: run the command again to continue",
}

#: What to do about operating system errors.
_CURES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO), "free some disk space, then {again}"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "change its permissions, or give another path"),
}


@dataclass
class Attempt:
    """A running command.

    Attributes:
        command: Name of the command.
        config: Settings of the command; None until they are read.
        stops: Numbers of the signals that asked the command to end.
        rank: Number of this process among those that ``torchrun`` has started. The first speaks for all where they
            end for the same reason.
    """

    command: str
    config: Any = None
    stops: list[int] = field(default_factory=list)
    rank: int = 0

    def say(self, message: object) -> None:
        """Print an error message, after the name of the command."""
        process = f" (process {self.rank})" if self.rank else ""
        _say(f"pmlm {self.command}{process}: {message}")


@library_warnings_in_one_line()
def exit_code(attempt: Attempt, run: Callable[[Attempt], int]) -> int:
    """Run a command and return its exit code; an expected failure is reported in one line that says what to do."""
    try:
        with _stoppable(attempt.stops):
            code = run(attempt)
            sys.stdout.flush()
            return code
    except KeyboardInterrupt:
        return _stopped(attempt, attempt.stops[0] if attempt.stops else signal.SIGINT)
    except SystemExit as error:
        if attempt.config is None:  # of the help, or of an option that is wrong
            raise
        attempt.say(f"a class that the command uses called sys.exit({error.code!r}): it must not")
        return 1
    except EndedError:
        return 1
    except Exception as error:
        if attempt.stops:  # an interrupted import or a closed terminal can raise any error
            return _stopped(attempt, attempt.stops[0])
        if (failed := failure(error, _OURS)) is not None:
            attempt.say(failed)
            return 1
        if isinstance(error, ValueError):
            attempt.say(error)
            return 2
        if attempt.rank and isinstance(error, LostProcessError):  # the first says so
            return 1
        if not isinstance(error, OSError | RuntimeError):  # these types are raised for failures not caused by the input
            raise
        if isinstance(error, BrokenPipeError):  # e.g. `| head`; the rest of the buffer is discarded
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE
        logging.getLogger("agents").debug("traceback", exc_info=True)
        attempt.say(_cured(attempt, error) if isinstance(error, OSError) else _resumed(attempt, error))
        return 1


def _stopped(attempt: Attempt, number: int) -> int:
    if not attempt.rank:
        _say(f"\npmlm {attempt.command}: stopped by {signal.Signals(number).name}; {_after_stop(attempt)}")
    return 128 + number


@contextmanager
def _stoppable(stops: list[int]) -> Iterator[None]:
    """Turn the first termination signal into a KeyboardInterrupt, so that files are left in a consistent state.

    The signal's number is added to ``stops``. A second signal ends the process immediately.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        stops.append(number)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) not in (signal.SIG_IGN, None):  # nohup ignores SIGHUP
            before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _say(line: str) -> None:
    with suppress(OSError):  # the terminal may be closed
        print(line, file=sys.stderr, flush=True)


def _cured(attempt: Attempt, error: OSError) -> str:
    """Return an operating system error as one line that says what to do."""
    if error.strerror is None:
        return str(error)
    where = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    again = "continue with --resume: all replies are kept" if attempt.command == "train" else _AGAIN
    cure = _CURES.get(error.errno or 0)
    return f"{where}: {cure.format(again=again)}" if cure else where


def _resumed(attempt: Attempt, error: RuntimeError) -> str:
    """Return an error with the command that continues, if it ended a run that had started."""
    started = attempt.command == "train" and attempt.config is not None and RunFolder(attempt.config.run).begun
    return f"{error}; {_after_stop(attempt)}" if started else str(error)


def _after_stop(attempt: Attempt) -> str:
    if attempt.command != "train":
        return _AFTER_STOP.get(attempt.command, _AGAIN)
    if attempt.config is None or not RunFolder(attempt.config.run).begun:
        return f"the run had not started: {_AGAIN}"
    run = shlex.quote(str(attempt.config.run))
    more = "" if attempt.config.wandb is None else f" --wandb {shlex.quote(attempt.config.wandb)}"
    with suppress(ValueError):  # the providers' file is gone or damaged: the next command says so
        more += given_again(plain(attempt.config))
    return f"complete updates and all replies are kept: continue with pmlm train --run {run} --resume{more}"
