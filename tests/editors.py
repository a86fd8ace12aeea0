"""Language models that edit prompts, by rules: they answer what ``agents.baselines.editor_answers`` asks."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Sequence

import numpy as np

from pmlm_env.llm.base import LLM, Completion, LLMError, Reply, Request


def _numbered(prompt: str) -> list[tuple[int, str]]:
    """Return the numbers and words of the prompt to improve, which stands last."""
    text = prompt.rpartition("The prompt to improve:\n")[2]
    return [(int(number), word) for number, word in re.findall(r"(?:^|\s)(\d+):(\S+)", text)]


class MarkedWordsEditor(LLM):
    """Names the words that are marked with an asterisk."""

    is_remote = False

    def __init__(self) -> None:
        self.asked: list[str] = []

    @property
    def identity(self) -> str:
        return type(self).__name__

    def answer(self, prompt: str) -> str:
        return ", ".join(str(number) for number, word in _numbered(prompt) if "*" in word) or "none"

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        self.asked += [request.prompt for request in requests]
        for index, request in enumerate(requests):
            answer = self.answer(request.prompt)
            yield {index: Completion(answer, 1, 1, "stop") if answer else LLMError("no answer")}


class HashedEditor(MarkedWordsEditor):
    """Names two words by a hash of all that it is shown."""

    def answer(self, prompt: str) -> str:
        rng = np.random.default_rng(list(hashlib.sha256(prompt.encode()).digest()))
        numbers = [number for number, _ in _numbered(prompt)]
        return ", ".join(map(str, rng.permutation(numbers)[:2])) or "none"


class ScriptedEditor(MarkedWordsEditor):
    """Gives the answers of its script, one after another; "" = a request that fails."""

    def __init__(self, *script: str) -> None:
        super().__init__()
        self.script = list(script)

    def answer(self, prompt: str) -> str:
        return self.script.pop(0)
