"""The command line: ``pmlm COMMAND``, each with typed options and ``--help``."""

from __future__ import annotations

import errno
import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import tyro

from agents.cli.library_warnings import library_warnings_in_one_line
from agents.cli.terminal import print_traceback, printable_output

Config = TypeVar("Config")

_COMMANDS = {
    "demo": "The whole method on a simulated cohort, or on your own with --cohort.",
    "simulate": "Write a simulated cohort like the paper's.",
    "prepare": "Stages 1 to 3: from a cohort to initial prompts.",
    "train": "Stage 4: train a policy on the prompts.",
    "evaluate": "Judge a trained policy on held-out patients.",
    "refine": "Refine prompts with a trained policy, without an LLM.",
    "publish": "Hand a trained policy on, to a folder or to the Hugging Face hub.",
    "benchmark": "Fit agents within equal budgets and judge them on held-out patients.",
    "tune": "Tune agents under equal numbers of trials (needs optuna).",
    "report": "Make tables and pictures of what `pmlm benchmark` found.",
    "models": "List or fetch the bundled models.",
    "cache": "Look at, prune, export or import kept replies of an LLM.",
    "doctor": "Say what is installed, which device, what is missing and how to get it.",
}


#: What to do after a command was stopped; `train` says it by itself.
_AFTER_STOP = {
    "demo": "replies are kept: run it again, and they are used",
    "evaluate": "replies are kept: run it again, and it asks for the others",
    "benchmark": "complete runs and all replies are kept: run it again, and it goes on",
    "tune": "agents that are done and all replies are kept: run it again, and it goes on",
}

#: What to do about errors of the system.
_CURES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO), "make room on the disk, then {again}"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "change its permissions, or give another path"),
}


def main(command: str | None = None, arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 2 bad input or usage, 128 + N stopped by signal N, 1 anything else.

    Args:
        command: Which; by default the first of ``arguments``.
        arguments: By default those of the process.
    """
    rest = list(sys.argv[1:] if arguments is None else arguments)
    if command is None:
        if not rest or rest[0] in ("-h", "--help"):
            usage = "usage: pmlm COMMAND [OPTIONS]; `pmlm COMMAND --help` tells the options\n"
            print("\n".join([usage, *(f"  {name:10} {text}" for name, text in _COMMANDS.items())]))
            sys.exit(0 if rest else 2)
        command = rest.pop(0)
    if command not in _COMMANDS:
        print(f"pmlm: unknown command {command!r}: use one of {', '.join(_COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    with printable_output():
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        for name in ("pmlm_env", "agents"):
            logging.getLogger(name).setLevel(logging.INFO)
        sys.excepthook = print_traceback
        sys.exit(_run(command, rest))


@library_warnings_in_one_line()
def _run(command: str, rest: Sequence[str]) -> int:
    """Run a command; a foreseeable failure becomes one line that says what to do."""
    stops: list[int] = []
    try:
        with _stoppable(stops):
            code = _dispatch(command)(command, rest)
            sys.stdout.flush()
            return code
    except KeyboardInterrupt:
        return _stopped(command, rest, stops[0] if stops else signal.SIGINT)
    except Exception as error:
        if stops:  # an import that is interrupted, or a terminal that is gone, raises anything
            return _stopped(command, rest, stops[0])
        if isinstance(error, ValueError):
            _say(f"pmlm {command}: {error}")
            return 2
        if not isinstance(error, OSError | RuntimeError):  # what is raised where it is not the input's fault
            raise
        if isinstance(error, BrokenPipeError):  # `| head` has read enough; what Python holds for it must go elsewhere
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE
        logging.getLogger("agents").debug("traceback", exc_info=True)
        _say(f"pmlm {command}: {_told(command, error) if isinstance(error, OSError) else error}")
        return 1


def _stopped(command: str, rest: Sequence[str], number: int) -> int:
    _say(f"\npmlm {command}: stopped by {signal.Signals(number).name}; {_after_stop(command, rest)}")
    return 128 + number


@contextmanager
def _stoppable(stops: list[int]) -> Iterator[None]:
    """Turn the first signal that asks to end into an interruption, so that all is left in order.

    Its number is added to ``stops``. A second one ends the process at once.
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
        if signal.getsignal(number) not in (signal.SIG_IGN, None):  # nohup has signals ignored
            before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _say(line: str) -> None:
    with suppress(OSError):  # the terminal may be gone
        print(line, file=sys.stderr, flush=True)


def _told(command: str, error: OSError) -> str:
    """Return a system's error as a line that says what to do."""
    if error.strerror is None:
        return str(error)
    where = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    again = "go on with --resume: what was paid for is kept" if command == "train" else "run the command again"
    cure = _CURES.get(error.errno or 0)
    return f"{where}: {cure.format(again=again)}" if cure else where


def _after_stop(command: str, rest: Sequence[str]) -> str:
    if command != "train":
        return _AFTER_STOP.get(command, "run the command again")
    if "agents.training.train" not in sys.modules:  # nor may it be imported now, halfway through torch
        return "nothing was begun: run the command again"
    from agents.run_folder import RunFolder

    run = _run_folder(rest)
    if not RunFolder(run).begun:
        return "nothing was begun: run the command again"
    return f"complete updates and all replies are kept: go on with pmlm train --run {shlex.quote(str(run))} --resume"


def _dispatch(command: str) -> Callable[[str, Sequence[str]], int]:
    """Import what the command needs, and nothing more: ``--help`` should not wait for torch."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    if command == "doctor":
        from agents.cli.doctor import DoctorConfig, doctor

        return lambda _, rest: doctor(_parse(command, DoctorConfig, rest))
    if command == "models":
        from agents.cli.doctor import ModelsConfig, models

        return _with(ModelsConfig, models)
    if command == "cache":
        from agents.cli.cache import CacheCommand, run

        return _with(CacheCommand, run)
    if command == "simulate":
        from agents.cli.prepare import SimulateConfig, simulate

        return _with(SimulateConfig, simulate)
    if command == "prepare":
        from agents.cli.prepare import PrepareConfig, prepare

        return _with(PrepareConfig, prepare)
    if command == "demo":
        from agents.cli.demo import DemoConfig, demo

        return _with(DemoConfig, demo)
    if command == "benchmark":
        from agents.benchmark.runner import BenchmarkConfig, benchmark

        return _with(BenchmarkConfig, benchmark)
    if command == "tune":
        from agents.benchmark.tuning import TuneConfig, tune

        return _with(TuneConfig, tune)
    if command == "report":
        from agents.report.report import ReportConfig, report

        return _with(ReportConfig, report)
    if command == "refine":
        from agents.serving.refine import RefineConfig, refine

        return _with(RefineConfig, refine)
    if command == "publish":
        from agents.serving.publish import PublishConfig, publish

        return _with(PublishConfig, publish)
    if command == "evaluate":
        from agents.evaluation.evaluate import EvaluateConfig, evaluate

        return _with(EvaluateConfig, evaluate)
    return _train


def _with(config: Any, function: Callable[[Any], Any]) -> Callable[[str, Sequence[str]], int]:
    def run(command: str, rest: Sequence[str]) -> int:
        function(_parse(command, config, rest))
        return 0

    return run


@printable_output(bars=False)  # no colors, which some versions of tyro write to standard error too
def _parse(command: str, what: Any, rest: Sequence[str], default: Any = None) -> Any:
    extra = {} if default is None else {"default": default}
    config = tyro.cli(what, args=list(rest), prog=f"pmlm {command}", config=(tyro.conf.OmitArgPrefixes,), **extra)
    return _at_home(config)


def _at_home(config: Config) -> Config:
    """Put the home folder in the place of a leading "~", which a shell leaves as it is in ``--run=~/r``."""
    changes: dict[str, Any] = {}
    for each in fields(config):  # type: ignore[arg-type]
        value = getattr(config, each.name)
        if is_dataclass(value):
            changes[each.name] = _at_home(value)
        elif isinstance(value, Path) or (isinstance(value, str) and value.startswith("~/")):
            changes[each.name] = type(value)(os.path.expanduser(value))
    return replace(config, **changes)  # type: ignore[type-var]


def _train(command: str, rest: Sequence[str]) -> int:
    """``--agent`` and ``--resume`` say which other options there are, so they are looked at first."""
    from agents.registry import DEFAULT
    from agents.training.config import TrainConfig, with_agent_settings

    base = with_agent_settings(TrainConfig, _given(rest, "--agent", DEFAULT))()
    if "--resume" in rest and not {"-h", "--help"} & {*rest}:
        from agents.run_folder import RunFolder
        from agents.training.train import trained

        base = trained(RunFolder(_run_folder(rest)))
    config = _parse(command, type(base), rest, base)
    if config.dry_run:
        from agents.training.estimate import estimate

        print(estimate(config))
        return 0
    from agents.training.summary import training_summary
    from agents.training.train import train

    run = train(config)
    print(training_summary(run.metrics()))
    print(f"The checkpoint is in {run.checkpoint}. Next: pmlm evaluate --run {shlex.quote(str(run.path))}")
    return 0


def _run_folder(rest: Sequence[str]) -> Path:
    """Return the run folder that `pmlm train` was given."""
    from agents.training.config import TrainConfig

    return Path(os.path.expanduser(_given(rest, "--run", str(TrainConfig.run))))


def _given(rest: Sequence[str], option: str, default: str) -> str:
    """Return what an option was given, the last time."""
    value = default
    for i, word in enumerate(rest):
        name, equals, text = word.partition("=")
        if name == option:
            value = text if equals else (rest[i + 1] if i + 1 < len(rest) else default)
    return value


if __name__ == "__main__":
    main()
