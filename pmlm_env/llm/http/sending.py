"""Sends many requests at once, and yields the replies as they arrive."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import closing

from pmlm_env.llm.base import Reply, Request, StopSending
from pmlm_env.llm.http.background import stream_results
from pmlm_env.llm.storage.budget import BudgetExceededError
from pmlm_env.llm.storage.database import DatabaseError

#: Gets the reply to a request.
Complete = Callable[[Request], Awaitable[Reply]]


def send_all(
    requests: Sequence[Request], concurrency: int, begin: Callable[[], Complete]
) -> Generator[dict[int, Reply], None, None]:
    """Yield replies in completion order; closing the generator cancels the requests in flight.

    If the budget is exceeded or cannot be written, or ``StopSending`` is thrown in, no new requests are sent.

    Args:
        requests: The requests.
        concurrency: Maximum number of requests in flight.
        begin: Called once on the event loop; returns what gets the reply to one request.

    Raises:
        BudgetExceededError: The remaining requests were not sent.
        DatabaseError: Likewise, because spending cannot be booked.
    """
    pending = deque(enumerate(requests))

    async def work(put: Callable[[tuple[int, Reply]], None]) -> None:
        complete = begin()
        refusals: list[BudgetExceededError | DatabaseError] = []

        async def worker() -> None:
            while not refusals:
                try:
                    index, request = pending.popleft()
                except IndexError:  # another thread may have cleared it just now
                    return
                try:
                    put((index, await complete(request)))
                except (BudgetExceededError, DatabaseError) as refusal:
                    refusals.append(refusal)

        workers = [asyncio.ensure_future(worker()) for _ in range(min(concurrency, len(pending)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        if refusals:
            raise refusals[0]

    with closing(stream_results(work)) as batches:
        for batch in batches:
            try:
                yield dict(batch)
            except StopSending:
                pending.clear()
