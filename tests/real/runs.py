"""What the tests of runs have in common: a few patients, commands in this process, and commands in one of their own."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Generator, Mapping, Sequence
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from agents.cli.main import main
from pmlm_env.envs.lite import lite_episodes
from pmlm_env.llm.base import Reply, Request
from pmlm_env.llm.responder import Responder
from tests.commands import pmlm
from tests.tiny_models import save_small_bert

ROOT = Path(__file__).resolve().parents[2]

_OPTIONS = ["--device", "cpu", "--n-edits", "2", "--patients", "2", "--rollouts", "2"]


@cache
def small_bert() -> Path:
    """Return the folder of a random BERT, made once: how a run goes on does not hang on what its figures mean."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return save_small_bert(Path(folder.name))


def small_models() -> list[str]:
    """Return the options that put it in the place of encoder and scorer."""
    return ["--encoder", str(small_bert()), "--scorer", str(small_bert())]


def options() -> list[str]:
    """Return what these runs are trained with, but for the LLM."""
    return [*_OPTIONS, *small_models()]


def prepare(folder: Path, seed: int = 0, n_train: int = 4) -> Path:
    """Prepare the prompts of a few made-up patients."""
    lite_episodes({"train": n_train, "test": 3}, seed).save(folder)
    return folder


def train(episodes: Path, run: Path, *more: object, budget: int = 12) -> int:
    """Train the default agent with the rule-based LLM.

    Its first two updates take 6 completions each, two of them for initial prompts; later ones take 4.
    """
    common = ["--episodes", episodes, "--run", run, "--llm", "responder", *options()]
    return pmlm("train", *common, "--budget", budget, *more)


#: How far weights may be apart on average, and still be those of the same updates. Measured: 1.3e-3 at most if a
#: processor without AVX rounds otherwise, 1.7e-3 at least, and mostly 5e-3, if the last of eight updates are lost.
ROUNDING = 1.5e-3


def check_same_checkpoint(run: Path, other: Path) -> None:
    """Check that two runs' checkpoints hold the same.

    Weights may differ by rounding, which grows: a weight that has no effect on the policy, such as the bias of a unit
    that adds the same to the scores of all words, has a gradient of nothing but rounding errors, and Adam makes steps
    of full size of it.
    """
    names, others = (sorted(file.name for file in (each / "checkpoint").iterdir()) for each in (run, other))
    assert names == others
    for name in names:
        one, two = (each / "checkpoint" / name for each in (run, other))
        if not name.endswith(".safetensors"):
            assert one.read_bytes() == two.read_bytes(), name
            continue
        ours, theirs = load_file(one), load_file(two)
        assert ours.keys() == theirs.keys(), name
        apart = []
        for key, tensor in ours.items():
            if tensor.is_floating_point():
                apart.append((tensor.double() - theirs[key].double()).abs().flatten())
            else:
                assert torch.equal(tensor, theirs[key]), f"{name}: {key}"
        if apart:
            assert torch.cat(apart).sum() <= ROUNDING * sum(map(len, apart)), name


def evaluation(run: Path, *more: object) -> str:
    """Evaluate a run and return what was found."""
    assert pmlm("evaluate", "--run", run, *more) == 0
    return (run / "evaluation.json").read_text()


def error(capsys: Any) -> str:
    """What the last command said in the end: one line."""
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pmlm ")]
    return line


@cache
def processes() -> ForkServerContext:
    """Return where processes are forked that have imported what commands need: each would take seconds to do so.

    The server is started in the root, whatever folder a test is in: elsewhere it finds no tests, and says nothing.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.real.imported", __name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        forkserver.ensure_running()
    return context


def start(log: Path, command: str, *arguments: object) -> BaseProcess:
    """Run a command in a process of its own, with this process's environment, what it says going to a file."""
    texts = [str(argument) for argument in arguments]
    child = processes().Process(target=_logged_here, args=(dict(os.environ), log, command, texts))
    child.start()
    return child


def _logged_here(environment: Mapping[str, str], log: Path, command: str, arguments: Sequence[str]) -> None:
    os.environ.update(environment)  # the server, which may have begun long before, has that of its beginning
    logged(log, command, arguments)


def logged(log: Path, command: str, arguments: Sequence[str]) -> None:
    """Run a command, what it says going to a file."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which may be ignored where the tests are run
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with log.open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        main(command, list(arguments))


def killed(log: Path, n_replies: int, command: str, *arguments: object) -> None:
    """Run a command with the rule-based LLM in a process that dies by ``kill -9`` after so many replies."""
    texts = [str(argument) for argument in arguments]
    child = processes().Process(target=_logged_until_killed, args=(n_replies, log, command, texts))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL, log.read_text()


def _logged_until_killed(n_replies: int, log: Path, command: str, arguments: Sequence[str]) -> None:
    honest, left = Responder.replies, n_replies

    def counted(self: Responder, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        nonlocal left
        left -= len(requests)
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        yield from honest(self, requests)

    Responder.replies = counted
    logged(log, command, arguments)
