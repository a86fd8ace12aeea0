"""An LLM whose process is killed, in its second batch, if it is the second of two."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Sequence

from pmlm_env.llm import Reply, Request
from tests.own_parts import Shout


class Killed(Shout):
    """Shouts until then."""

    def __init__(self) -> None:
        super().__init__()
        self.n_batches = 0

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        self.n_batches += 1
        if self.n_batches > 1 and os.environ.get("RANK") == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        yield from super().replies(requests)
