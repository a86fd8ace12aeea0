"""The command line: ``pmlm COMMAND``, each with typed options and ``--help``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from agents.library_warnings import library_warnings_in_one_line
from agents.terminal import print_traceback, printable_output

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


def main(command: str | None = None, arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 2 bad input or usage, 1 anything else.

    Args:
        command: Which; by default the first of ``arguments``.
        arguments: By default those of the process.
    """
    rest = list(sys.argv[1:] if arguments is None else arguments)
    if command is None:
        if not rest or rest[0] in ("-h", "--help"):
            print("usage: pmlm COMMAND [OPTIONS]; `pmlm COMMAND --help` tells the options\n")
            print("\n".join(f"  {name:10} {text}" for name, text in _COMMANDS.items()))
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
    from pmlm_env.cohort import CohortError

    try:
        return _dispatch(command)(command, rest)
    except (CohortError, ValueError) as error:
        print(f"pmlm {command}: {error}", file=sys.stderr)
        return 2
    except (OSError, RuntimeError) as error:  # what the house raises where it is not the input's fault
        logging.getLogger("agents").debug("traceback", exc_info=True)
        print(f"pmlm {command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\npmlm {command}: stopped", file=sys.stderr)
        return 1


def _dispatch(command: str) -> Callable[[str, Sequence[str]], int]:
    """Import what the command needs, and nothing more: ``--help`` should not wait for torch."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    if command == "doctor":
        from agents.doctor import DoctorConfig, doctor

        return lambda _, rest: doctor(_parse(command, DoctorConfig, rest))
    if command == "models":
        from agents.doctor import ModelsConfig, models

        return _with(ModelsConfig, models)
    if command == "cache":
        from agents.cache import CacheCommand, run

        return _with(CacheCommand, run)
    if command == "simulate":
        from agents.prepare import SimulateConfig, simulate

        return _with(SimulateConfig, simulate)
    if command == "prepare":
        from agents.prepare import PrepareConfig, prepare

        return _with(PrepareConfig, prepare)
    if command == "demo":
        from agents.demo import DemoConfig, demo

        return _with(DemoConfig, demo)
    if command == "benchmark":
        from agents.benchmark import BenchmarkConfig, benchmark

        return _with(BenchmarkConfig, benchmark)
    if command == "tune":
        from agents.tuning import TuneConfig, tune

        return _with(TuneConfig, tune)
    if command == "report":
        from agents.report.report import ReportConfig, report

        return _with(ReportConfig, report)
    if command == "refine":
        from agents.refine import RefineConfig, refine

        return _with(RefineConfig, refine)
    if command == "publish":
        from agents.publish import PublishConfig, publish

        return _with(PublishConfig, publish)
    if command == "evaluate":
        from agents.evaluate import EvaluateConfig, evaluate

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
    return tyro.cli(what, args=list(rest), prog=f"pmlm {command}", config=(tyro.conf.OmitArgPrefixes,), **extra)


def _train(command: str, rest: Sequence[str]) -> int:
    """``--preset`` says where the other options' defaults come from, so it is looked at first."""
    from agents.estimate import estimate
    from agents.train import PRESETS, train, training_summary

    preset = "default"
    for i, word in enumerate(rest):
        name, equals, value = word.partition("=")
        if name == "--preset":
            preset = value if equals else (rest[i + 1] if i + 1 < len(rest) else "")
    config = _parse(command, type(PRESETS["default"]), rest, PRESETS.get(preset, PRESETS["default"]))  # type: ignore[call-overload]
    if config.dry_run:
        print(estimate(config))
        return 0
    run = train(config)
    print(training_summary(run.metrics()))
    print(f"The checkpoint is in {run.checkpoint}. Next: pmlm evaluate --run {run.path}")
    return 0


if __name__ == "__main__":
    main()
