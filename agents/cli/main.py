"""The command line ``pmlm COMMAND``; each command has typed options, ``--config FILE`` and ``--help``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from importlib import import_module

import pmlm_env
from agents.cli import processes
from agents.cli.errors import Attempt, exit_code
from agents.cli.library_warnings import quiet_transformers
from agents.cli.terminal import print_traceback, printable_output
from pmlm_env.processes import finish
from pmlm_env.registry import did_you_mean

#: Commands and their descriptions. The module ``agents.cli.COMMAND`` has ``Config`` and ``run``; it is imported lazily.
COMMANDS = {
    "demo": "The whole method on a simulated cohort, or on your own with --cohort.",
    "simulate": "Write a simulated cohort like the paper's.",
    "schema": "Write the schema that a cohort is read by, for you to check and change.",
    "prepare": "Stages 1 to 3: from a cohort to initial prompts.",
    "train": "Stage 4: train an agent on the prompts.",
    "evaluate": "Evaluate a trained agent on held-out patients.",
    "show": "Show evaluated patients: deleted words, replies before and after, scores.",
    "audit": "Audit a reward: what it pays for texts that nobody wrote for the patient.",
    "refine": "Refine patients' prompts with a trained agent, and ask for the replies.",
    "publish": "Publish a trained agent to a folder or to the Hugging Face hub.",
    "benchmark": "Fit agents within equal budgets and judge them on held-out patients.",
    "tune": "Tune agents under equal numbers of trials (needs optuna).",
    "experiment": "Repeat an experiment of the paper, or an ablation.",
    "report": "Make tables and figures of what `pmlm benchmark` found.",
    "models": "List or fetch the bundled models.",
    "cache": "Inspect, prune, export or import cached replies of an LLM.",
    "prefill": "Ask for the replies that training or evaluation will need, at once or through a batch API.",
    "doctor": "Say what is installed, which device, what is missing and how to get it.",
}

#: Commands that load models with transformers.
_LOADING = {
    "demo",
    "prepare",
    "train",
    "evaluate",
    "audit",
    "refine",
    "benchmark",
    "experiment",
    "tune",
    "prefill",
    "doctor",
}


def main(command: str | None = None, arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 = success, 2 = bad input or usage, 128 + N = stopped by signal N, 1 = other failure.

    Args:
        command: The command; by default the first of ``arguments``.
        arguments: The command-line arguments; by default those of the process.
    """
    rest = list(sys.argv[1:] if arguments is None else arguments)
    if command is None:
        if rest[:1] == ["--version"]:
            print(f"pmlm-env {pmlm_env.__version__}")
            sys.exit(0)
        if not rest or rest[0] in ("-h", "--help"):
            usage = "usage: pmlm COMMAND [OPTIONS] | --version; `pmlm COMMAND --help` shows the options\n"
            print("\n".join([usage, *(f"  {name:10} {text}" for name, text in COMMANDS.items())]))
            sys.exit(0 if rest else 2)
        command = rest.pop(0)
    if command not in COMMANDS:
        meant = did_you_mean(command, COMMANDS)
        print(f"pmlm: unknown command {command!r}{meant}: use one of {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    with printable_output():
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        for name in ("pmlm_env", "agents"):
            logging.getLogger(name).setLevel(logging.INFO)
        sys.excepthook = print_traceback
        sys.exit(exit_code(Attempt(command), lambda attempt: _run(attempt, rest)))


def _run(attempt: Attempt, arguments: Sequence[str]) -> int:
    """Import a command, read its settings and run it; if ``torchrun`` has started several processes, with them."""
    joined = processes.joined(attempt, arguments)
    module = import_module(f"agents.cli.{attempt.command}")
    from agents.cli.reading import read

    saved = getattr(module, "saved", None)
    attempt.config = processes.read_once(joined, lambda: read(attempt.command, module.Config, arguments, saved))
    if attempt.command in _LOADING:
        quiet_transformers()
    if processes.helps(joined, attempt.command):
        code = processes.help_first(joined)
    else:
        code = module.run(attempt.config)
        processes.dismiss(joined, attempt.command)
    finish()
    return code


if __name__ == "__main__":
    main()
