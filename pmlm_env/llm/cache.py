"""Ask nothing twice: replies kept in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pmlm_env.llm.base import LLM, Completion


class CachedLLM:
    """Keeps every reply of an LLM that always answers alike (temperature 0, or a fixed seed).

    The key is the LLM's ``identity`` (endpoint, model, every sampling parameter) and the prompt.

    Args:
        llm: Who is asked where no reply is kept.
    """

    def __init__(self, llm: LLM) -> None:
        """Start with nothing kept."""
        self.llm = llm
        self._kept: dict[tuple[str, str], Completion] = {}

    @property
    def identity(self) -> str:
        """The inner LLM's."""
        return self.llm.identity

    def generate(self, prompts: Sequence[str]) -> list[Completion]:
        """Reply to each prompt, in order; a prompt that occurs twice is asked once."""
        keys = [(self.identity, prompt) for prompt in prompts]
        new = list(dict.fromkeys(key for key in keys if key not in self._kept))
        if new:
            replies = self.llm.generate([prompt for _, prompt in new])
            self._kept.update(zip(new, replies, strict=True))
        bought = set(new)
        out = []
        for key in keys:
            completion = self._kept[key]
            out.append(completion if key in bought else replace(completion, cached=True))
            bought.discard(key)
        return out
