"""What a downstream LLM is to the rest of the house."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

FinishReason = Literal["stop", "length"]

#: What becomes of a reply that the limit on new tokens cut short: an ``LLMError``, or the part that is there.
OnTruncated = Literal["error", "keep"]


class LLMError(RuntimeError):
    """A reply could not be had. The message says why and what to do; such a call is never scored."""


class StopAsking(Exception):
    """Thrown into the generator of ``LLM.replies`` by whoever cannot keep more replies.

    A generator that has requests under way catches it, sends no more, and yields what those bring.
    """


@dataclass(frozen=True, slots=True)
class Completion:
    """One reply.

    Attributes:
        text: The reply, stripped of surrounding white space; never empty.
        prompt_tokens: Tokens in, as the LLM counts them; 0 where it does not tell.
        completion_tokens: Tokens out, likewise.
        finish_reason: ``"stop"``, or ``"length"`` where the limit on new tokens ended the reply.
        model: The model as the endpoint itself calls it, where it does.
        cached: Whether the reply was already there, so that no call was made for it.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: FinishReason
    model: str = ""
    cached: bool = False


class Request(NamedTuple):
    """A prompt (one user turn), and which of several replies to it is wanted.

    Attributes:
        prompt: The words, as text.
        sample: 0 for the first reply, 1 for the second, ...; where the LLM samples, each has a seed of its own.
    """

    prompt: str
    sample: int = 0


#: What becomes of a request.
Reply: TypeAlias = Completion | LLMError


class LLM(ABC):
    """A downstream LLM. To add one, write ``identity`` and ``replies``.

    Attributes:
        seconds: Wall time spent in ``ask`` and ``generate`` so far.
    """

    seconds: float = 0.0

    @property
    @abstractmethod
    def identity(self) -> str:
        """All that decides the reply besides the request (endpoint, model, sampling), as JSON; never a key."""

    @abstractmethod
    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        """Reply to each request, as soon as may be.

        Args:
            requests: N of them.

        Yields:
            Lots of replies as they are had, each by its request's place: N in all, every place once. What has been
            yielded is paid for, so whoever keeps replies should do so before asking for the next lot. Closing the
            generator calls off what is not there yet.

        Raises:
            BudgetExceededError: The rest was not asked for; all that was, has been yielded.
        """

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """Reply to each request, in order; where a reply could not be had, the error stands in its place."""
        started = time.perf_counter()
        out: dict[int, Reply] = {}
        try:
            with closing(self.replies(requests)) as lots:
                for lot in lots:
                    out.update(lot)
        finally:
            # Not every LLM lets itself be written to: OpenAIChat is frozen.
            object.__setattr__(self, "seconds", self.seconds + time.perf_counter() - started)
        return [out[place] for place in range(len(requests))]

    def generate(self, prompts: Sequence[str]) -> list[Completion]:
        """Reply to each prompt, in order.

        Raises:
            LLMError: A reply could not be had: the first of them that could not.
        """
        return all_or_error(self.ask([Request(prompt) for prompt in prompts]))


def all_or_error(replies: Sequence[Reply]) -> list[Completion]:
    """Return replies that are all there.

    Raises:
        LLMError: The first that is not.
    """
    completions = []
    for reply in replies:
        if isinstance(reply, LLMError):
            raise reply
        completions.append(reply)
    return completions
