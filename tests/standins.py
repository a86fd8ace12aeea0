"""Stand-ins that need no weights: an encoder, a reward, an LLM, and prompts of made-up words."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pmlm_env.core.checkups import CheckupForm, Checkups
from pmlm_env.core.edits import EditRules
from pmlm_env.core.episodes import Episode, EpisodeSet
from pmlm_env.core.outcomes import Outcomes, Reward, Texts
from pmlm_env.core.task import EditTask, Encoder, ObservationForm
from pmlm_env.envs.lite.reward import word_f1
from pmlm_env.llm.base import LLM, Completion, LLMError, Reply, Request
from pmlm_env.rewards.bertscore import BertScores


class HashEncoder:
    """Embeds a word by a hash of its text, whatever stands beside it."""

    hidden_size = 16

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def encode(self, words: Sequence[Sequence[str]], kept: npt.NDArray[np.bool_]) -> torch.Tensor:
        out = np.zeros((*kept.shape, self.hidden_size), dtype=np.float32)
        for row, prompt in enumerate(words):
            for slot, word in enumerate(prompt):
                if kept[row, slot]:
                    digest = hashlib.sha256(word.encode()).digest()[: self.hidden_size]
                    out[row, slot] = np.frombuffer(digest, dtype=np.uint8).astype(np.float32) / 128 - 1
        return torch.from_numpy(out).to(self.device)


class WordScorer:
    """Stands in for BERTScore: shared words."""

    device = torch.device("cpu")

    def score(self, replies: Sequence[str], references: Sequence[str]) -> BertScores:
        f1 = torch.tensor([word_f1(a, b) for a, b in zip(replies, references, strict=True)])
        return BertScores(f1 / 2, f1 / 4, f1)

    score_once = score


class MarkedWordsReward:
    """Pays for each deleted word that is marked with an asterisk, and takes as much for one that is not."""

    def __init__(self, episodes: EpisodeSet, penalty: float = 0.0) -> None:
        self.episodes, self.penalty = episodes, penalty
        self.asked: list[list[str]] = []

    def __call__(self, indices: Sequence[int], prompts: Sequence[str]) -> Outcomes:
        self.asked.append(list(prompts))
        deltas = []
        for i, prompt in zip(indices, prompts, strict=True):
            words, left = self.episodes[i].words, prompt.split()
            marked = sum("*" in word for word in words) - sum("*" in word for word in left)
            other = len(words) - len(left) - marked
            deltas.append(0.1 * marked - self.penalty * other)
        n = len(deltas)
        texts = Texts(["reply"] * n, ["initial reply"] * n, ["reference"] * n)
        return Outcomes(np.array(deltas), np.zeros(n), np.zeros(n, dtype=np.int64), texts)


def make_episodes(n: int = 6, n_words: int = 12, n_marked: int = 3, seed: int = 0, decoys: bool = False) -> EpisodeSet:
    """Prompts of made-up words, ``n_marked`` of them marked with an asterisk, at random places.

    With ``decoys`` as many again, all of them in the second half (peer, instruction) and the others in the first.
    """
    rng = np.random.default_rng(seed)
    episodes = []
    for i in range(n):
        words = [f"word{rng.integers(40)}" for _ in range(n_words)]
        slots = rng.permutation(n_words)[:n_marked].tolist()
        if decoys:
            half = n_words // 2
            slots = [s for start in (0, half) for s in start + rng.permutation(half)[:n_marked]]
        for slot in slots:
            words[slot] = f"mark{rng.integers(4)}*"
        roles = tuple(("background", "self", "peer", "instruction")[slot * 4 // n_words] for slot in range(n_words))
        vector = rng.normal(size=128).astype(np.float32)
        episodes.append(
            Episode(f"P{i}", "train", tuple(words), roles, vector, "She is well.", "normal", "normal", ("normal",))
        )
    return EpisodeSet(episodes)


#: What the check-ups of made-up patients measure.
FORM = CheckupForm(("hgb", "alt"), ("g/L", "U/L"), 3)


def with_checkups(episodes: EpisodeSet, seed: int = 0, form: CheckupForm = FORM) -> EpisodeSet:
    """The same episodes with random check-ups: none to ``max_checkups`` of them, a fifth of the values missing."""
    rng, n = np.random.default_rng(seed), len(form.indicators)
    statistics = np.stack([np.full(n, 10.0), np.zeros(n), np.ones(n)])
    changed = []
    for episode in episodes:
        values = rng.normal(size=(rng.integers(form.max_checkups + 1), n)).astype(np.float32)
        values[rng.random(values.shape) < 0.2] = np.nan
        changed.append(replace(episode, checkups=Checkups(values, form, statistics)))
    return EpisodeSet(changed, episodes.known_labels)


def make_task(
    episodes: EpisodeSet | None = None,
    encoder: Encoder | None = None,
    reward: Reward | None = None,
    observation: ObservationForm = "embeddings",
    **rules: Any,
) -> EditTask:
    """The task of made-up prompts; ``rules`` are those of ``EditRules``."""
    episodes = episodes or make_episodes()
    reward = reward or MarkedWordsReward(episodes)
    return EditTask(episodes, encoder or HashEncoder(), reward, EditRules(**rules), observation)


class EchoLLM(LLM):
    """Repeats the prompt's words in alphabetical order, keeps a record, and fails on request.

    With ``fail`` it fails altogether, with words in ``broken`` it has no reply to prompts that hold one of them.
    """

    identity = "echo"

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.fail = False
        self.broken: set[str] = set()

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        self.batches.append([request.prompt for request in requests])
        yield {place: self._reply(request) for place, request in enumerate(requests)}

    def _reply(self, request: Request) -> Reply:
        words = request.prompt.split()
        if self.fail or self.broken & set(words):
            return LLMError("the endpoint is down")
        return Completion(" ".join(sorted(words)) or "nothing", len(words), 1, "stop")


class HashedSentences:
    """Stands in for ``SentenceEncoder``: a vector of each text by its words, whatever their order."""

    def __init__(self, device: str) -> None:
        pass

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        rows = np.zeros((len(texts), 64), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                row[zlib.crc32(word.encode()) % 64] += 1
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
