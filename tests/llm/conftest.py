from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest

from agents.cli.main import main
from pmlm_env.llm.http.endpoint import OpenAIChat
from tests.llm.endpoint import KEY, Endpoint, serve


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serve() as state:
        yield state


@pytest.fixture
def other_endpoint() -> Iterator[Endpoint]:
    with serve() as state:
        yield state


@pytest.fixture
def connect(endpoint: Endpoint) -> Iterator[Callable[..., OpenAIChat]]:
    """Make clients of the endpoint, and close them in the end."""
    with ExitStack() as stack:

        def make(**settings: Any) -> OpenAIChat:
            ours = {"base_url": endpoint.url, "backoff": 0.0, "tries": 3, "read_timeout": 10.0}
            client = OpenAIChat("some-model", **{**ours, **settings})
            stack.callback(client.close)
            return client

        yield make


@pytest.fixture
def llm(connect: Callable[..., OpenAIChat], monkeypatch: pytest.MonkeyPatch) -> OpenAIChat:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return connect()


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that the client takes, which take no time; without those that only keep first requests apart."""
    taken: list[float] = []
    real = asyncio.sleep

    async def nap(seconds: float) -> None:
        if seconds > 0.1:
            taken.append(seconds)
        await real(0)

    monkeypatch.setattr("asyncio.sleep", nap)
    return taken


class Doctor(NamedTuple):
    """What `pmlm doctor --llm` did: its exit code, and all that it printed."""

    code: int
    said: str


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Doctor]:
    """Run `pmlm doctor --llm ARGUMENTS` with more environment variables, and no proxies, certificates or keys else."""
    for name in list(os.environ):
        if name.lower().endswith(("_proxy", "_api_key")) or name.startswith("SSL_CERT"):
            monkeypatch.delenv(name)

    def run(*arguments: str, **environment: str) -> Doctor:
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as end:
                main("doctor", ["--llm", *arguments])
        said = capsys.readouterr()
        return Doctor(int(end.value.code or 0), said.out + said.err)

    return run


@pytest.fixture
def refused(doctor: Callable[..., Doctor]) -> Callable[..., Doctor]:
    """Run `pmlm doctor` to where it ends with one line and without an answer."""

    def run(*arguments: str, **environment: str) -> Doctor:
        ended = doctor(*arguments, **environment)
        assert ended.code in (1, 2)
        assert ended.said.startswith("pmlm doctor: ")
        assert len(ended.said.splitlines()) == 1
        assert ended.said.rstrip("\n").isprintable()
        return ended

    return run
