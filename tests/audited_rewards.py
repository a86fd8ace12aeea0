"""Rewards that can be won, and an LLM that does not always reply, for tests of the audit."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np
import numpy.typing as npt

from pmlm_env import Episode
from pmlm_env.llm import Reply, Request
from pmlm_env.llm.base import LLMError
from pmlm_env.llm.responder import Responder
from pmlm_env.rewards.base import ScoredReply, Values


class Length:
    """Pays for every word."""

    def score(self, replies: Sequence[str], episodes: Sequence[Episode]) -> list[int]:
        return [len(reply.split()) for reply in replies]


class Phrase:
    """Pays for each of some phrases, once."""

    def __init__(self, phrases: list[str]) -> None:
        self.phrases = phrases

    def score(self, replies: Sequence[str], episodes: Sequence[Episode]) -> list[int]:
        return [sum(phrase in reply for phrase in self.phrases) for reply in replies]


class Condition:
    """Pays if the name of the patient's condition is in the reply."""

    def score(self, replies: Sequence[str], episodes: Sequence[Episode]) -> list[bool]:
        return [episode.label in reply for reply, episode in zip(replies, episodes, strict=True)]


class Echo:
    """Pays or charges for an echo of the prompt, by the last digit of the patient's number; for nothing else."""

    def __init__(self, even: float, odd: float) -> None:
        self.pays = (even, odd)

    def score(self, replies: Sequence[str], episodes: Sequence[Episode]) -> list[float]:
        return [
            self.pays[int(episode.patient_id[-1]) % 2] if reply == episode.prompt else 0.0
            for reply, episode in zip(replies, episodes, strict=True)
        ]


class OwnLetter:
    """Pays for the words that the doctor wrote to this patient and to nobody else, and for nothing else."""

    def score(self, replies: Sequence[str], episodes: Sequence[Episode]) -> list[bool]:
        return [f"Only {episode.patient_id}." in reply for reply, episode in zip(replies, episodes, strict=True)]


class Cut:
    """Pays for replies that were cut off."""

    names = ("cut",)

    def components(self, replies: Sequence[ScoredReply]) -> dict[str, list[bool]]:
        return {"cut": [reply.cut for reply in replies]}

    def score(self, components: Values) -> npt.NDArray[np.float64]:
        return components["cut"]

    def change(self, before: Values, after: Values) -> npt.NDArray[np.float64]:
        return after["cut"] - before["cut"]


class Unsteady(Responder):
    """Does not reply to prompts with certain words."""

    def __init__(self, words: list[str]) -> None:
        super().__init__()
        self.words = words

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        for batch in super().replies(requests):
            for index in batch:
                missing = any(word in requests[index].prompt for word in self.words)
                yield {index: LLMError("out of order") if missing else batch[index]}
