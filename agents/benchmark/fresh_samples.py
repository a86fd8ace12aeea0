"""FreshSamples: replies that no search has seen yet, to score what it found without its luck."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Generator, Sequence

from pmlm_env.llm import LLM, Reply, Request


class FreshSamples(LLM):
    """Asks an LLM for samples that nothing else asks for, a new one whenever a request comes again.

    Args:
        llm: The LLM.
        purpose: What the samples are for: the same purpose gets the same ones again.
    """

    def __init__(self, llm: LLM, purpose: str) -> None:
        """Choose the samples of the purpose."""
        self._llm = llm
        self._first = 1_000_000 * (1 + int(hashlib.sha256(purpose.encode()).hexdigest()[:8], 16) % 1_000)
        self._asked: Counter[Request] = Counter()

    @property
    def identity(self) -> str:
        """That of the LLM."""
        return self._llm.identity

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        """Ask for fresh samples; see ``LLM.replies``."""
        fresh = []
        for request in requests:
            self._asked[request] += 1
            fresh.append(Request(request.prompt, request.sample + self._first + 1_000 * self._asked[request]))
        yield from self._llm.replies(fresh)
