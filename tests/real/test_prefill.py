"""Replies that are asked for beforehand: the results are those of a run that asks as it goes."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pmlm_env.llm import ReplyCache
from pmlm_env.llm.http import batches
from pmlm_env.llm.storage.budget import Account
from tests.commands import pmlm
from tests.llm.endpoint import KEY
from tests.llm.http.batch_server import BatchServer, serve_batches
from tests.real.runs import evaluation, options, prepare, start

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("no_figures")]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(batches, "_FIRST_PAUSE", 0.01)
    with serve_batches() as state:
        yield state


def train_options(server: BatchServer, folder: Path, run: str) -> list[Any]:
    llm = ["--llm", "openai:m", "--base-url", server.url, "--max-new-tokens", "256"]
    return ["--episodes", folder / "prepared", "--run", folder / run, *llm, *options(), "--budget", "12"]


@pytest.fixture
def run(server: BatchServer, tmp_path: Path) -> Path:
    """A trained run, which nothing has been evaluated of."""
    prepare(tmp_path / "prepared")
    assert pmlm("train", *train_options(server, tmp_path, "run")) == 0
    return tmp_path / "run"


@pytest.mark.parametrize("way", [["--batch", "4"], []])
def test_an_evaluation_of_prefilled_replies_is_that_of_a_run_that_asks_as_it_goes(
    server: BatchServer, run: Path, tmp_path: Path, way: list[str]
) -> None:
    shutil.copytree(run, tmp_path / "prefilled")
    address = ["--base-url", server.url]
    live = evaluation(run, *address)
    before = server.calls.count("POST chat/completions")
    assert pmlm("prefill", "evaluate", "--run", tmp_path / "prefilled", *address, *way) == 0
    assert (server.calls.count("POST chat/completions") > before) == (not way)
    assert bool(server.batches) == bool(way)
    calls = len(server.calls)
    assert evaluation(tmp_path / "prefilled", "--replay") == live
    assert len(server.calls) == calls
    ledgers = [Account(path=folder / "spent.sqlite").usage for folder in (run, tmp_path / "prefilled")]
    assert ledgers[0] == ledgers[1]


def test_training_asks_for_nothing_that_was_prefilled(
    server: BatchServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(tmp_path / "prepared")
    given = train_options(server, tmp_path, "run")
    assert pmlm("prefill", "train", *given, "--random", "2", "--batch", "50") == 0
    assert "0 missing" in capsys.readouterr().out
    asked = Counter(server.all_prompts)
    assert max(asked.values()) == 1
    untouched = {episode["prompt"] for episode in _episodes(tmp_path) if episode["split"] == "train"}
    assert untouched <= asked.keys()
    assert pmlm("train", *given) == 0
    # The first update is there already: two patients with two rollouts each.
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert metrics[0]["llm_calls"] == len(asked)
    assert metrics[0]["cached_replies"] == 6


def test_a_whole_training_run_can_be_replayed_if_its_prompts_do_not_depend_on_replies(
    server: BatchServer, tmp_path: Path
) -> None:
    prepare(tmp_path / "prepared")
    given = [*train_options(server, tmp_path, "run"), "--budget", "6"]  # one update
    assert pmlm("prefill", "train", *given) == 0
    calls = len(server.calls)
    assert pmlm("train", *given, "--replay") == 0
    assert len(server.calls) == calls


def _episodes(folder: Path) -> list[dict[str, Any]]:
    from pmlm_env.core.episodes import EpisodeSet

    return [{"prompt": each.prompt, "split": each.split} for each in EpisodeSet.load(folder / "prepared")]


@pytest.mark.once
def test_a_command_that_is_killed_goes_on_with_its_batches(server: BatchServer, run: Path, tmp_path: Path) -> None:
    server.n_looks = 10**9
    command = ["prefill", "evaluate", "--run", run, "--base-url", server.url, "--batch", "4"]
    child = start(tmp_path / "log", *command)
    while not any(call.startswith("GET batches/") for call in server.calls) and child.is_alive():
        time.sleep(0.001)
    assert child.is_alive(), (tmp_path / "log").read_text()
    child.kill()
    child.join()
    server.n_looks = 0
    assert pmlm(*command) == 0
    assert max(Counter(server.all_prompts).values()) == 1
    assert Account(path=run / "spent.sqlite").usage.calls == len(ReplyCache(run / "replies.sqlite"))


def test_what_is_missing_is_counted_and_asked_for_by_the_next_command(
    server: BatchServer, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.fate, server.end = (lambda prompt: "batch_expired" if len(prompt) % 2 else "reply"), "expired"
    command = ["prefill", "evaluate", "--run", run, "--base-url", server.url, "--batch", "50"]
    assert pmlm(*command) == 1
    said = capsys.readouterr()
    assert " missing because: m at " in said.err
    server.fate, server.end = (lambda prompt: "reply"), "completed"
    assert pmlm(*command) == 0
    assert all(len(prompt) % 2 for prompt in server.prompts("batch_1"))
    assert pmlm(*command) == 0
    assert ": 0 new replies, 0 missing" in capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    capsys.readouterr()
    assert pmlm(*command) == 2
    return capsys.readouterr().err


def test_options_without_effect_are_refused(
    server: BatchServer, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate = ["prefill", "evaluate", "--run", run, "--base-url", server.url]
    assert "--replay has no effect" in refused(capsys, *evaluate, "--replay")
    assert "--rule-calls has no effect" in refused(capsys, *evaluate, "--rule-calls", "5")
    assert "--batch is 0" in refused(capsys, *evaluate, "--batch", "0")
    given = train_options(server, tmp_path, "new")
    assert "--dry-run has no effect" in refused(capsys, "prefill", "train", *given, "--dry-run")
    assert "--random is -1" in refused(capsys, "prefill", "train", *given, "--random", "-1")
    assert "already contains a run" in refused(capsys, "prefill", "train", *train_options(server, tmp_path, "run"))
    local = ["--episodes", tmp_path / "prepared", "--run", tmp_path / "new", "--llm", "responder", *options()]
    assert "which has no batch API" in refused(capsys, "prefill", "train", *local, "--batch", "4")
    both = ["--batch", "4", "--ray", "local"]
    assert "are two ways to ask the LLM" in refused(capsys, "prefill", "train", *local, *both)
