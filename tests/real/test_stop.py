"""Runs that are told to end, or find the disk full: what was paid for is kept, and what to do is said in one line."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pmlm_env.llm import ReplyCache
from pmlm_env.llm.responder import Responder
from tests.commands import pmlm
from tests.llm.endpoint import Answer, Endpoint, chat, serve
from tests.real.runs import evaluation, options, prepare, start

pytestmark = [pytest.mark.once, pytest.mark.real, pytest.mark.usefixtures("no_figures")]

CONCURRENCY = 3


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("work") / "prepared")


@pytest.fixture(scope="module")
def server() -> Iterator[Endpoint]:
    with serve() as state:
        yield state


@pytest.fixture(scope="module")
def whole(server: Endpoint, prepared: Path) -> str:
    """The evaluation of a run that nothing has disturbed."""
    run = prepared.parent / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "sk-0")
        server.answer = lambda count, prompt: reply(prompt)
        assert pmlm("train", *arguments(server, prepared, run)) == 0
        return evaluation(run, "--base-url", server.url)


@pytest.fixture
def endpoint(server: Endpoint, whole: str, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0")
    server.bodies.clear()
    return server


def reply(prompt: str) -> Answer:
    return chat(Responder().generate([prompt])[0].text)


def arguments(endpoint: Endpoint, prepared: Path, run: Path) -> list[str]:
    llm = ["--llm", "openai:some-model", "--base-url", endpoint.url, "--concurrency", CONCURRENCY]
    return [str(each) for each in ("--episodes", prepared, "--run", run, *options(), *llm, "--budget", 16)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_run_told_to_end_keeps_what_was_paid_for_and_names_the_command_that_goes_on(
    number: signal.Signals, endpoint: Endpoint, prepared: Path, whole: str, tmp_path: Path
) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip(f"{number.name} is ignored, as under nohup, and so it is by commands that tests start")

    async def answer(count: int, prompt: str) -> Answer:
        if count > 10:
            await asyncio.Event().wait()
        return reply(prompt)

    endpoint.answer = answer
    run, log = tmp_path / "a run", tmp_path / "log"
    child = start(log, "train", *arguments(endpoint, prepared, run))
    while child.is_alive() and not (endpoint.n_requests > 10 and len(ReplyCache(run / "replies.sqlite")) == 10):
        time.sleep(0.05)
    os.kill(child.pid or 0, number)
    child.join()
    said = log.read_text()
    assert child.exitcode == 128 + number, said
    assert said.splitlines()[-1] == (
        f"pmlm train: stopped by {number.name}; complete updates and all replies are kept: continue with "
        f"pmlm train --run '{run}' --resume --base-url {endpoint.url}"
    )
    assert "Traceback" not in said
    assert (run / "spent.json").is_file()
    assert len(ReplyCache(run / "replies.sqlite")) == 10
    under_way = Counter(endpoint.prompts[10:])
    endpoint.answer = lambda count, prompt: reply(prompt)
    assert pmlm("train", "--run", run, "--resume", "--base-url", endpoint.url) == 0
    assert evaluation(run, "--base-url", endpoint.url) == whole
    assert Counter(endpoint.prompts) - under_way == Counter(set(endpoint.prompts))


SCRIPT = """
mount -t tmpfs -o size=8m tmpfs "$DISK" && cp -r "$PREPARED" "$DISK/prepared" || exit 77
(while [ ! -e "$WORK/full" ]; do sleep 0.02; done
 cat /dev/zero > "$DISK/fill" 2>/dev/null
 touch "$WORK/filled") &
exec "$PYTHON" -m tests.real.full_disk_run "$@"
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs a file system of its own, which unshare gives")
def test_a_run_on_a_disk_that_fills_up_loses_no_reply_and_buys_none_twice(
    endpoint: Endpoint, prepared: Path, whole: str, tmp_path: Path
) -> None:
    async def answer(count: int, prompt: str) -> Answer:
        if count > 10:
            (tmp_path / "full").touch()
            while not (tmp_path / "filled").exists():
                await asyncio.sleep(0.02)
        return reply(prompt)

    endpoint.answer = answer
    disk = tmp_path / "disk"
    disk.mkdir()
    places = {"DISK": disk, "PREPARED": prepared, "WORK": tmp_path, "PYTHON": sys.executable}
    environment = {**os.environ, **{name: str(place) for name, place in places.items()}}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = ["unshare", "-Urm", "sh", "-c", SCRIPT, "sh", *arguments(endpoint, disk / "prepared", disk / "run")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    if ended.returncode == 77 or "unshare" in ended.stderr:
        pytest.skip(f"needs a file system of its own: {ended.stderr}")
    assert ended.returncode == 0, ended.stderr
    for name in ("said", "still"):
        lines = [line for line in (tmp_path / name).read_text().splitlines() if "%|" not in line and line]
        assert lines[-1].startswith("pmlm train: ")
        assert "free some" in lines[-1]
        assert "--resume" in lines[-1]
        assert "Traceback" not in (tmp_path / name).read_text()
    assert max(Counter(endpoint.prompts).values()) == 1
    assert (tmp_path / "evaluation.json").read_text() == whole
