"""Commands in several processes that ``torchrun`` has started."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from agents.cli.errors import Attempt
from pmlm_env.processes import Processes, launched, start

logger = logging.getLogger(__name__)

#: Commands that every process runs.
_BY_ALL = ("train",)

#: Commands that the first process runs; the others help it to fine-tune.
_BY_FIRST = ("prepare", "experiment")


def joined(attempt: Attempt) -> Processes:
    """Join the other processes, if there are any.

    Raises:
        ValueError: The command runs in one process.
    """
    attempt.rank = int(os.environ["RANK"]) if launched() else 0
    if launched() and attempt.command not in (*_BY_ALL, *_BY_FIRST):
        raise ValueError(
            f"this command runs in one process: start it without torchrun, which is for {', '.join(_BY_ALL)}, "
            f"{' and '.join(_BY_FIRST)}"
        )
    processes = start()
    if not processes.leads:
        for name in ("pmlm_env", "agents"):  # the first process says the same
            logging.getLogger(name).setLevel(logging.ERROR)
    return processes


def read_once(processes: Processes, read: Callable[[], Any]) -> Any:
    """Return the settings that ``read`` returns; only the first process prints the help, or what is wrong."""
    if processes.leads:
        return read()
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return read()


def helps(processes: Processes, command: str) -> bool:
    """Return whether this process only helps the first one to run a command."""
    return command in _BY_FIRST and not processes.leads


def help_first(processes: Processes) -> int:
    """Help the first process to fine-tune, until it is done."""
    from pmlm_env.llm.lora.together import help_fine_tuning

    help_fine_tuning(processes)
    return 0


def dismiss(processes: Processes, command: str) -> None:
    """Let the processes end that have helped this one to run a command; warn if there was nothing to help with."""
    if command in _BY_FIRST and processes.size > 1:
        from pmlm_env.llm.lora.together import end_help

        if not end_help(processes):
            logger.warning("The other processes had nothing to do: they help with fine-tuning by LoRA only")
