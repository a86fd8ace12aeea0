"""A reward, an encoder and an LLM of one's own, as a user would write them."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pmlm_env import Episode
from pmlm_env.llm import LLM, Completion, Reply, Request


@dataclass  # not hashable, as many classes of users
class WordCount:
    """Counts a word in the replies."""

    word: str
    weight: float = 1.0

    def score(self, replies: Sequence[str], episodes: Sequence[Episode]) -> list[float]:
        return [self.weight * reply.lower().split().count(self.word) for reply in replies]


class LabelLength:
    """Scores a reply by the letters of the patient's condition, whatever it says."""

    def score(self, replies: Sequence[str], episodes: Sequence[Episode]) -> npt.NDArray[np.float64]:
        assert len(replies) == len(episodes) > 0
        return np.array([float(len(episode.label)) for episode in episodes])


class BrokenReward:
    """Returns what it is told, or raises an error."""

    def __init__(self, returns: str) -> None:
        self.returns = returns

    def score(self, replies: Sequence[str], episodes: Sequence[Episode]) -> Any:
        n = len(replies)
        match self.returns:
            case "column":
                return np.zeros((n, 1))
            case "too few":
                return [0.5] * (n - 1)
            case "one number":
                return 0.5
            case "nan":
                return [float("nan")] * n
            case "infinity":
                return [0.5] * (n - 1) + [float("inf")]
            case "texts":
                return ["0.5"] * n
            case "nothing":
                return None
            case "missing":
                return [None] * n
            case "gradient":
                return torch.zeros(n, requires_grad=True)
        raise KeyError("a mistake in the user's class")


class NoScore:
    """Lacks the method that a reward needs."""


class LetterEncoder:
    """Embeds a word by its letters."""

    def __init__(self, size: int = 4, device: str = "auto", returns: str = "") -> None:
        self.hidden_size, self.returns = size, returns
        self.asked_device, self.device = device, torch.device("meta" if returns == "elsewhere" else "cpu")
        self.last = torch.zeros(0)

    def encode(self, words: Sequence[Sequence[str]], kept: npt.NDArray[np.bool_]) -> Any:
        out = torch.zeros(*kept.shape, self.hidden_size)
        for row, prompt in enumerate(words):
            for slot, word in enumerate(prompt):
                if kept[row, slot]:
                    out[row, slot, ord(word[0]) % self.hidden_size] = len(word)
        match self.returns:
            case "numpy":
                return out.numpy()
            case "narrow":
                return out[..., :1]
            case "deleted":
                return out + 1
            case "gradient":
                return out.requires_grad_()
            case "inference":
                with torch.inference_mode():
                    return out * 1
            case "same":
                self.last = out if self.last.shape != out.shape else self.last.copy_(out)
                return self.last
        return out


class Needs:
    """An encoder and a reward with a device that they need."""

    def __init__(self, device: str, size: int = 2) -> None:
        self.hidden_size, self.device = size, device

    def encode(self, words: Sequence[Sequence[str]], kept: npt.NDArray[np.bool_]) -> torch.Tensor:
        return torch.from_numpy(kept).float()[..., None].repeat(1, 1, self.hidden_size)

    def score(self, replies: Sequence[str], episodes: Sequence[Episode]) -> list[float]:
        return [float(len(reply)) for reply in replies]


class Shout(LLM):
    """Repeats the prompt in capitals."""

    def __init__(self, end: str = "!", identity: Any = None) -> None:
        self.end = end
        self._identity = json.dumps({"shout": end}) if identity is None else identity

    @property
    def identity(self) -> str:
        return self._identity

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        for index, request in enumerate(requests):
            words = request.prompt.upper() + self.end
            yield {index: Completion(words, len(request.prompt.split()), len(words.split()), "stop")}


class Sampled(Shout):
    """Repeats the prompt in capitals as the first sample, and without its second half as the others."""

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        for index, request in enumerate(requests):
            words = self.sample(request.prompt, request.sample)
            yield {index: Completion(words, len(request.prompt.split()), len(words.split()), "stop")}

    @staticmethod
    def sample(prompt: str, number: int) -> str:
        """Return a sample of the reply to a prompt."""
        return prompt.upper() if number == 0 else prompt[: len(prompt) // 2]


class Silent(Shout):
    """Returns what is not a reply."""

    def __init__(self, returns: str) -> None:
        super().__init__()
        self.returns = returns

    def replies(self, requests: Sequence[Request]) -> Generator[Any, None, None]:
        match self.returns:
            case "empty":
                yield {index: Completion(" ", 1, 1, "stop") for index in range(len(requests))}
            case "half":
                yield {index: Completion("a \ud800", 1, 1, "stop") for index in range(len(requests))}
            case "no text":
                yield {index: Completion(None, 1, 1, "stop") for index in range(len(requests))}  # type: ignore[arg-type]
            case "no tokens":
                yield {index: Completion("a", 1, None, "stop") for index in range(len(requests))}  # type: ignore[arg-type]
            case "another end":
                yield {index: Completion("a", 1, 1, "eos") for index in range(len(requests))}  # type: ignore[arg-type]
            case "texts":
                yield dict.fromkeys(range(len(requests)), "a reply")
            case "list":
                yield ["a reply"] * len(requests)
            case "unasked":
                yield {len(requests): Completion("a reply", 1, 1, "stop")}
            case "none":
                yield {}


class NoIdentity(LLM):
    """Lacks the identity, without which replies cannot be cached."""

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        yield {}


class NotAnLLM:
    """Is no subclass of ``LLM``."""


class Changing:
    """An encoder and a reward that change the arrays and lists that they get."""

    hidden_size, device = 3, "cpu"

    def encode(self, words: Sequence[Sequence[str]], kept: npt.NDArray[np.bool_]) -> torch.Tensor:
        kept[:] = False
        return torch.zeros(*kept.shape, self.hidden_size)

    def score(self, replies: list[str], episodes: list[Episode]) -> list[float]:
        scores = [0.5] * len(replies)
        replies.clear()
        episodes.clear()
        return scores


class Listed(Shout):
    """Returns its replies instead of yielding them."""

    def replies(self, requests: Sequence[Request]) -> Any:
        return list(super().replies(requests))


class Leaves(Shout):
    """Ends the program."""

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        sys.exit(0)
        yield {}
