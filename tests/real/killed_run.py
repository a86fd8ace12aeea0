"""What tests/real/test_kill.py runs in processes that it kills."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from agents.cli.main import main
from agents.report import figures
from pmlm_env.rewards import advice
from tests.standins import HashedSentences

OPTIONS = [
    "--llm", "openai:some-model", "--device", "cpu", "--n-edits", "2", "--budget", "12", "--patients", "2",
    "--rollouts", "2", "--concurrency", "3",
]  # fmt: skip


def train_and_evaluate(prepared: Path, run: Path, bert: Path, base_url: str) -> None:
    """Begin, or go on with, a run, and evaluate it."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    advice.SentenceEncoder = HashedSentences  # type: ignore[assignment,misc]
    figures.svg = lambda figure: "<svg/>"
    resume = ["--resume"] if (run / "config.json").exists() else []
    models = ["--encoder", str(bert), "--scorer", str(bert), "--base-url", base_url]
    train = ["--episodes", str(prepared), "--run", str(run), *models, *OPTIONS, *resume]
    with Path(f"{run}.log").open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        _pmlm("train", train)
        _pmlm("evaluate", ["--run", str(run), "--base-url", base_url])


def _pmlm(command: str, arguments: list[str]) -> None:
    try:
        main(command, arguments)
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"pmlm {command} failed") from None
