"""What a downstream LLM is to the rest of the house."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

FinishReason = Literal["stop", "length"]


class LLMError(RuntimeError):
    """A reply could not be had. The message says why and what to do; such a call is never scored."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One reply.

    Attributes:
        text: The reply, stripped of surrounding white space; never empty.
        prompt_tokens: Tokens in, as the LLM counts them.
        completion_tokens: Tokens out.
        finish_reason: ``"stop"``, or ``"length"`` where the limit on new tokens ended the reply.
        cached: Whether the reply was already there, so that no call was made for it.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: FinishReason
    cached: bool = False


@runtime_checkable
class LLM(Protocol):
    """A downstream LLM: a batch of prompts in, as many replies out, in the same order."""

    @property
    def identity(self) -> str:
        """All that decides the reply besides the prompt (endpoint, model, sampling), as a cache key."""
        ...

    def generate(self, prompts: Sequence[str]) -> list[Completion]:
        """Reply to each prompt (one user turn each), in order.

        Raises:
            LLMError: A reply could not be had.
        """
        ...
