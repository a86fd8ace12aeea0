"""One process's connections to an endpoint, and its rate limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from pmlm_env.llm.http.pacing import Pacer
from pmlm_env.llm.http.transport import Route


@dataclass(frozen=True)
class Connections:
    """One process's connections to the endpoint and its rate limits.

    ``clients`` is a stack with one client per connection, last used on top, None for those not needed yet. httpx's own
    pool checks all its connections for each request, which takes ten milliseconds with a hundred of them.
    """

    route: Route
    timeout: httpx.Timeout
    clients: asyncio.LifoQueue[httpx.AsyncClient | None]
    requests: Pacer
    tokens: Pacer
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    first: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def first_request_alone(self) -> AsyncGenerator[None, None]:
        """Send the first request alone: its answer shows whether the endpoint bills more than requested."""
        if not self.answered.is_set():
            async with self.first:
                if not self.answered.is_set():
                    try:
                        yield
                    finally:
                        self.answered.set()
                    return
        yield

    async def close(self) -> None:
        """Close idle connections; later requests open new ones."""
        idle = [self.clients.get_nowait() for _ in range(self.clients.qsize())]
        for _ in idle:
            self.clients.put_nowait(None)
        for client in idle:
            if client is not None:
                await client.aclose()
