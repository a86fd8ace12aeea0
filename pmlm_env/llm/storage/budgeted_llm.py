"""Books the calls of an LLM that runs in this process."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from functools import partial

from pmlm_env.llm.base import LLM, Completion, Reply, Request, changed
from pmlm_env.llm.storage.budget import Budget, BudgetExceededError, Usage


class BudgetedLLM(LLM):
    """Books the calls of an LLM that runs in this process; ``OpenAIChat`` books its own requests.

    Args:
        llm: The LLM. Cache this object, not the LLM, so that cached replies are free.
        budget: Where calls are booked.
        max_tokens: Maximum number of tokens of a reply.
    """

    def __init__(self, llm: LLM, budget: Budget, max_tokens: int) -> None:
        """Store the arguments; nothing is booked yet."""
        self.llm, self.budget, self.max_tokens = llm, budget, max_tokens

    @property
    def identity(self) -> str:
        """The identity of the inner LLM."""
        return self.llm.identity

    @property
    def is_remote(self) -> bool:
        """Whether the inner LLM is remote."""
        return self.llm.is_remote

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        """Reply to as many requests as the budget allows; failed requests cost nothing.

        Raises:
            BudgetExceededError: The remaining requests were not sent.
        """
        remaining = list(range(len(requests)))
        while remaining:
            booked = self._book(requests, remaining)
            indices = list(booked)
            try:
                batches = self.llm.replies([requests[index] for index in indices])
                stopped = yield from changed(batches, partial(self._settled, indices, booked))
            finally:
                for usage in booked.values():
                    self.budget.settle(usage, 0, 0, calls=0)
            if stopped:
                return
            remaining = remaining[len(indices) :]  # may fit now that actual usage has replaced the upper bounds

    def _settled(
        self, indices: Sequence[int], booked: dict[int, Usage], batch: Mapping[int, Reply]
    ) -> dict[int, Reply]:
        """Return a batch by the indices of all requests, and take what it cost from the booked upper bounds."""
        out = {indices[i]: reply for i, reply in batch.items()}
        for index, reply in out.items():
            if isinstance(reply, Completion):
                self.budget.settle(booked.pop(index), reply.prompt_tokens, reply.completion_tokens)
        return out

    def _book(self, requests: Sequence[Request], indices: Sequence[int]) -> dict[int, Usage]:
        """Book as many requests as fit, at least one."""
        booked: dict[int, Usage] = {}
        for index in indices:
            try:
                booked[index] = self.budget.reserve(requests[index].prompt, self.max_tokens)
            except BudgetExceededError:
                if not booked:
                    raise
                break
        return booked
