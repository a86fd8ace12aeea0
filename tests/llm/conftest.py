from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from pmlm_env.llm.openai import OpenAIChat
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
