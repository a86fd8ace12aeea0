"""What the LLM has cost, and a limit on it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from pmlm_env.llm.base import LLM, Completion


class BudgetExceededError(RuntimeError):
    """The next batch would go over the limit on calls. Nothing of it was sent."""


@dataclass(slots=True)
class Usage:
    """What was spent so far."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0


class BudgetedLLM:
    """Counts calls, tokens and time; put it inside the cache, so that kept replies are free.

    Args:
        llm: Who is asked.
        max_calls: Most calls in all; no limit by default. Checked before sending, so never overshot.

    Attributes:
        usage: What was spent so far. A batch that failed is counted in full: an endpoint may have billed it.
    """

    def __init__(self, llm: LLM, max_calls: int | None = None) -> None:
        """Start at nothing spent."""
        self.llm = llm
        self.max_calls = max_calls
        self.usage = Usage()

    @property
    def identity(self) -> str:
        """The inner LLM's."""
        return self.llm.identity

    def generate(self, prompts: Sequence[str]) -> list[Completion]:
        """Reply to each prompt, in order.

        Raises:
            BudgetExceededError: The batch does not fit into what is left.
        """
        usage = self.usage
        if self.max_calls is not None and usage.calls + len(prompts) > self.max_calls:
            raise BudgetExceededError(
                f"{len(prompts)} more LLM calls would go over the limit of {self.max_calls} ({usage.calls} are spent)"
            )
        started = time.perf_counter()
        usage.calls += len(prompts)
        try:
            replies = self.llm.generate(prompts)
        finally:
            usage.seconds += time.perf_counter() - started
        usage.prompt_tokens += sum(reply.prompt_tokens for reply in replies)
        usage.completion_tokens += sum(reply.completion_tokens for reply in replies)
        return replies
