"""FreshSamples: replies that no search has seen, for scoring a search's result without selection bias."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Generator, Sequence

from pmlm_env.llm import LLM, Reply, Request


class FreshSamples(LLM):
    """Requests samples from an LLM that no other code requests; a repeated request gets a new sample each time.

    Args:
        llm: The LLM.
        purpose: What the samples are for; the same purpose gets the same samples again.
    """

    def __init__(self, llm: LLM, purpose: str) -> None:
        """Choose the range of sample numbers for this purpose."""
        self._llm = llm
        self._first = 1_000_000 * (1 + int(hashlib.sha256(purpose.encode()).hexdigest()[:8], 16) % 1_000)
        self._asked: Counter[Request] = Counter()

    @property
    def identity(self) -> str:
        """The identity of the LLM."""
        return self._llm.identity

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        """Ask for fresh samples; see ``LLM.replies``."""
        fresh = []
        for request in requests:
            self._asked[request] += 1
            fresh.append(Request(request.prompt, request.sample + self._first + 1_000 * self._asked[request]))
        yield from self._llm.replies(fresh)
