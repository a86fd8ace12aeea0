"""Interface of a downstream LLM."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

FinishReason = Literal["stop", "length"]

#: What to do with a reply that the limit on new tokens cut: raise an ``LLMError``, or keep the truncated text.
OnTruncated = Literal["error", "keep"]


class LLMError(RuntimeError):
    """The LLM gave no reply. The message says why and what to do; such a call is never scored."""


class StopSending(Exception):
    """Thrown into the generator of ``LLM.replies`` by a caller that cannot store more replies.

    A generator that has requests in flight catches it, sends no more, and yields the replies to those in flight.
    """


@dataclass(frozen=True, slots=True)
class Completion:
    """One reply.

    Attributes:
        text: The reply without surrounding whitespace; never empty.
        prompt_tokens: Prompt tokens, as the LLM counts them; 0 if unknown.
        completion_tokens: Completion tokens, likewise.
        finish_reason: ``"stop"``, or ``"length"`` if the limit on new tokens ended the reply.
        model: The model's name according to the endpoint; "" if unknown.
        cached: Whether the reply came from the cache, without a call.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: FinishReason
    model: str = ""
    cached: bool = False


class Request(NamedTuple):
    """A prompt (one user turn), and the number of the sample.

    Attributes:
        prompt: The text.
        sample: 0 for the first reply, 1 for the second, ...; with sampling, each has its own seed.
    """

    prompt: str
    sample: int = 0


#: The result of a request.
Reply: TypeAlias = Completion | LLMError


class LLM(ABC):
    """A downstream LLM. Subclasses implement ``identity`` and ``replies``.

    Attributes:
        seconds: Total wall time in ``ask`` and ``generate``, in seconds.
    """

    seconds: float = 0.0

    @property
    @abstractmethod
    def identity(self) -> str:
        """Everything that determines a reply besides the request (endpoint, model, sampling), as JSON; no keys."""

    @property
    def is_remote(self) -> bool:
        """Whether prompts may leave this machine; True unless a subclass knows that they do not."""
        return True

    @abstractmethod
    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        """Reply to each request.

        Args:
            requests: N requests.

        Yields:
            Batches of replies in completion order, each reply by the index of its request; every index occurs once.
            Yielded replies are paid for, so store them before requesting the next batch. Closing the generator cancels
            the requests in flight.

        Raises:
            BudgetExceededError: The remaining requests were not sent; all replies to the others have been yielded.
        """

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """Return the reply to each request, in order; a failed request gives its error."""
        started = time.perf_counter()
        out: dict[int, Reply] = {}
        try:
            with closing(self.replies(requests)) as batches:
                for batch in batches:
                    out.update(batch)
        finally:
            # Some LLMs, such as OpenAIChat, are frozen dataclasses.
            object.__setattr__(self, "seconds", self.seconds + time.perf_counter() - started)
        return [out[index] for index in range(len(requests))]

    def generate(self, prompts: Sequence[str]) -> list[Completion]:
        """Return the reply to each prompt, in order.

        Raises:
            LLMError: The first error, if a request failed.
        """
        return all_or_error(self.ask([Request(prompt) for prompt in prompts]))


def changed(
    batches: Generator[dict[int, Reply], None, None], change: Callable[[dict[int, Reply]], dict[int, Reply]]
) -> Generator[dict[int, Reply], None, bool]:
    """Yield what ``change`` makes of each batch of replies of an inner LLM, to which ``StopSending`` is passed on.

    Args:
        batches: A generator of ``LLM.replies``; closed at the end.
        change: Takes a batch, and returns the batch to yield.

    Returns:
        Whether ``StopSending`` was thrown in, after which ``batches`` need not reply to all requests.
    """
    stopped = False
    following: Callable[[], dict[int, Reply]] = partial(next, batches)
    with closing(batches):
        while True:
            try:
                batch = following()
            except StopIteration:
                return stopped
            following = partial(next, batches)
            try:
                yield change(batch)
            except StopSending as stop:
                stopped, following = True, partial(batches.throw, stop)


def all_or_error(replies: Sequence[Reply]) -> list[Completion]:
    """Return the replies if all requests succeeded.

    Raises:
        LLMError: The first error.
    """
    completions = []
    for reply in replies:
        if isinstance(reply, LLMError):
            raise reply
        completions.append(reply)
    return completions
