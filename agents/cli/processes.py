"""Commands in several processes that ``torchrun`` has started."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from typing import Any

from agents.cli.errors import Attempt
from pmlm_env.processes import Processes, launched, start

logger = logging.getLogger(__name__)

#: Commands that every process runs.
_BY_ALL = ("train",)

#: Commands that the first process runs; the others help it to fine-tune.
_BY_FIRST = ("prepare", "experiment table-2")


def joined(attempt: Attempt, arguments: Sequence[str]) -> Processes:
    """Join the other processes, if there are any.

    Raises:
        ValueError: The command runs in one process.
        SystemExit: Likewise, and the first process says so.
    """
    attempt.rank = int(os.environ["RANK"]) if launched() else 0
    names = {attempt.command, " ".join([attempt.command, *arguments[:1]])}
    if launched() and names.isdisjoint((*_BY_ALL, *_BY_FIRST)):
        if attempt.rank:
            raise SystemExit(2)
        raise ValueError(
            f"this command runs in one process: start it without torchrun, which is for {', '.join(_BY_ALL)}, "
            f"{' and '.join(_BY_FIRST)}"
        )
    processes = start(help_first=attempt.command not in _BY_ALL)
    if not processes.leads:
        for name in ("pmlm_env", "agents"):  # the first process says the same
            logging.getLogger(name).setLevel(logging.ERROR)
    return processes


def read_once(processes: Processes, read: Callable[[], Any]) -> Any:
    """Return the settings that ``read`` returns; only the first process prints the help, or what is wrong with any.

    Raises:
        ValueError, OSError, SystemExit: See ``agents.cli.reading.read``.
        RuntimeError: In the first process: another one cannot read its settings.
        EndedError: In the other processes: the first one reports what is wrong.
        LostProcessError: Another process has ended.
    """
    end: SystemExit | None = None
    try:
        with processes.together(), ExitStack() as muted:
            said = io.StringIO()
            if not processes.leads:
                muted.enter_context(redirect_stdout(io.StringIO()))
                muted.enter_context(redirect_stderr(said))
            try:
                return read()
            except SystemExit as error:
                end = error
                raise ValueError(_plain(said.getvalue()) or "it was asked for help only") from None
    except Exception:
        if end is None:
            raise
        raise end from None


def helps(processes: Processes, command: str) -> bool:
    """Return whether this process only helps the first one to run a command."""
    return command not in _BY_ALL and not processes.leads


def help_first(processes: Processes) -> int:
    """Help the first process to fine-tune, until it is done."""
    from pmlm_env.llm.lora.together import help_fine_tuning

    help_fine_tuning(processes)
    return 0


def dismiss(processes: Processes, command: str) -> None:
    """Let the processes end that have helped this one to run a command; warn if there was nothing to help with."""
    if command not in _BY_ALL and processes.size > 1:
        from pmlm_env.llm.lora.together import end_help

        if not end_help(processes):
            logger.warning("The other processes had nothing to do: they help with fine-tuning by LoRA only")


def _plain(box: str) -> str:
    """Return the words that tyro has put into a box."""
    return " ".join(word for word in box.split() if any(map(str.isalnum, word)))
