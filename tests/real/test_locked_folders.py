"""While a command writes into a folder, no other does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agents.run_folder import RunFolder
from pmlm_env.llm.responder import Responder
from pmlm_env.llm.storage.budget import Account
from tests.commands import pmlm
from tests.llm.endpoint import Answer, chat, serve
from tests.real.runs import (
    error,
    options,
    prepare,
    start,
)

pytestmark = [pytest.mark.once, pytest.mark.real, pytest.mark.usefixtures("no_figures")]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("work") / "prepared")


def test_while_a_run_is_trained_nobody_else_writes_into_its_folder_and_it_ends_as_if_nobody_had_tried(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0")
    goes_on = threading.Event()

    async def answer(count: int, prompt: str) -> Answer:
        while count > 8 and not goes_on.is_set():
            await asyncio.sleep(0.01)
        return chat(Responder().generate([prompt])[0].text)

    with serve() as endpoint:
        endpoint.answer = answer
        llm = ["--llm", "openai:some-model", "--base-url", endpoint.url]
        common = ["--episodes", prepared, *options(), *llm, "--budget", 16, "--run"]
        child = start(tmp_path / "log", "train", *common, tmp_path / "run")
        while len(endpoint.prompts) <= 8 and child.is_alive():
            time.sleep(0.01)
        for command, arguments in {
            "train": [*common, tmp_path / "run"],
            "evaluate": ["--run", tmp_path / "run"],
            "demo": ["--run", tmp_path / "run", *llm],
        }.items():
            for more in ([], ["--resume"]) if command == "train" else ([],):
                assert pmlm(command, *arguments, *more) == 2
                assert error(capsys) == (
                    f"pmlm {command}: {tmp_path}/run is in use by another pmlm command: wait until it ends, or stop it"
                )
        goes_on.set()
        child.join()
        assert child.exitcode == 0, (tmp_path / "log").read_text()
        disturbed = Counter(endpoint.prompts)
        assert pmlm("train", *common, tmp_path / "alone") == 0
        assert Counter(endpoint.prompts) - disturbed == disturbed
    assert [line["update"] for line in RunFolder(tmp_path / "run").metrics()] == [1, 2, 3]
    for name in ("run", "alone"):
        assert Account(path=tmp_path / name / "spent.sqlite").usage.calls == disturbed.total()


@pytest.mark.parametrize("command", ["prepare", "benchmark", "tune"])
def test_two_commands_do_not_write_into_one_folder_of_results_or_prompts_at_once(
    command: str, tmp_path: Path, capsys: Any
) -> None:
    assert pmlm("simulate", "--out", tmp_path / "cohort", "--patients", 40) == 0
    out = {"prepare": tmp_path / "out"}.get(command, tmp_path / "out" / "lite")
    arguments = {"prepare": ["--cohort", tmp_path / "cohort"]}.get(command, ["--agents", "surrogate", "--seeds", 1])
    ended = []

    def other() -> None:  # another thread is as good as another process
        with RunFolder(out).locked():
            began.set()
            done.wait()

    began, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=other)
    thread.start()
    began.wait()
    try:
        ended.append(pmlm(command, *arguments, "--out", tmp_path / "out"))
    finally:
        done.set()
        thread.join()
    assert ended == [2]
    assert error(capsys) == f"pmlm {command}: {out} is in use by another pmlm command: wait until it ends, or stop it"
