"""The reward of Eq. 9: how much closer to her doctor's reply the edit brings the LLM's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from pmlm_env.device import choose_device
from pmlm_env.encoder import load_bert
from pmlm_env.episodes import EpisodeSet
from pmlm_env.llm.base import LLM, LLMError
from pmlm_env.models import resolve

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: Texts of like length in one forward pass: with more of them, a CPU spends more on padding than it saves on calls.
_BATCH = 32


@dataclass(frozen=True, slots=True)
class BertScores:
    """BERTScore precision, recall and F1 of replies against references, each float32 (N,) on the CPU."""

    precision: torch.Tensor
    recall: torch.Tensor
    f1: torch.Tensor


class BertScorer:
    """BERTScore (Zhang et al., ICLR 2020) with each reference embedded once.

    The same numbers as ``bert_score.BERTScorer(model_type, num_layers)`` without idf or rescaling: greedy cosine
    matching of word pieces, special tokens to be matched but not averaged over. Texts beyond the model's input are
    cut as there.

    Args:
        model: A bundled model's name, a directory or a hub name.
        num_layers: The layer whose states are compared; by default the one bert-score recommends for the model,
            5 for the bundled MiniLM.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Attributes:
        seconds: Wall time spent in ``score`` so far.
    """

    def __init__(self, model: str = "minilm", num_layers: int | None = None, device: str = "auto") -> None:
        """Find the model; its weights come at the first use."""
        self.model_name = model
        self.num_layers = _default_layer(model) if num_layers is None else num_layers
        self.device = choose_device(device)
        self.seconds = 0.0
        self._path = resolve(model)
        self._references: dict[str, torch.Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave weights, tokenizer and embeddings behind."""
        state = {key: value for key, value in self.__dict__.items() if key not in ("_bert", "_tokenizer")}
        return {**state, "_references": {}}

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self._path)

    @cached_property
    def _bert(self) -> PreTrainedModel:
        return load_bert(self._path, self.device, self.num_layers)

    @torch.inference_mode()
    def score(self, replies: Sequence[str], references: Sequence[str]) -> BertScores:
        """Score each reply against the reference beside it.

        Args:
            replies: N texts; an empty one scores 0.
            references: N texts; each distinct one is embedded once in the scorer's life.
        """
        started = time.perf_counter()
        fresh = list(dict.fromkeys(text for text in references if text not in self._references))
        texts = list(dict.fromkeys(replies))
        embedded = self._embed([*texts, *fresh])
        for text, vectors in zip(fresh, embedded[len(texts) :], strict=True):
            self._references[text] = vectors.clone()  # a view would keep its whole batch in memory
        reply_of = dict(zip(texts, embedded, strict=False))
        rows = [_match(reply_of[a], self._references[b]) for a, b in zip(replies, references, strict=True)]
        table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 3)
        self.seconds += time.perf_counter() - started
        return BertScores(*table.unbind(dim=1))

    def _embed(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """Unit vectors of every piece of every text, special tokens first and last: [(pieces, H)]."""
        tokenizer = self._tokenizer
        limit = min(tokenizer.model_max_length, self._bert.config.max_position_embeddings)
        pieces = [tokenizer.encode(text.strip(), truncation=True, max_length=limit) for text in texts]
        out: list[torch.Tensor] = [torch.empty(0)] * len(texts)
        by_length = sorted(range(len(texts)), key=lambda i: len(pieces[i]))
        for start in range(0, len(texts), _BATCH):
            rows = by_length[start : start + _BATCH]
            batch = tokenizer.pad({"input_ids": [pieces[i] for i in rows]}, return_tensors="pt").to(self.device)
            with torch.autocast(self.device.type, enabled=False):  # float32: a delta is a small difference
                states = self._bert(
                    input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
                ).last_hidden_state
            states = torch.nn.functional.normalize(states.float(), dim=-1)
            for row, i in enumerate(rows):
                out[i] = states[row, : len(pieces[i])]
        return out


def _match(reply: torch.Tensor, reference: torch.Tensor) -> tuple[float, float, float]:
    """Greedy matching of two texts: precision, recall, F1."""
    if len(reply) <= 2 or len(reference) <= 2:  # nothing but special tokens
        return 0.0, 0.0, 0.0
    similarity = reply @ reference.T
    precision = float(similarity.max(dim=1).values[1:-1].mean())
    recall = float(similarity.max(dim=0).values[1:-1].mean())
    total = precision + recall
    return precision, recall, 2 * precision * recall / total if total else 0.0


def _default_layer(model: str) -> int:
    if model == "minilm":
        return 5
    from bert_score.utils import model2layers  # imports matplotlib: only where it is needed

    if model not in model2layers:
        raise ValueError(f"bert-score recommends no layer for {model!r}: pass num_layers")
    return int(model2layers[model])


@dataclass(frozen=True)
class Texts:
    """What was said in n episodes, each a sequence of n strings.

    Attributes:
        reply: The LLM's replies to the refined prompts.
        initial_reply: Its replies to the initial prompts.
        reference: The doctors' replies.
    """

    reply: Sequence[str]
    initial_reply: Sequence[str]
    reference: Sequence[str]


@dataclass(frozen=True)
class Outcomes:
    """How n episodes ended.

    Attributes:
        score: F1 of the reply to the refined prompt against the reference, float64 (n,).
        initial_score: F1 of the reply to the initial prompt, float64 (n,).
        llm_calls: Calls made for each episode, int64 (n,); cached replies cost none.
        texts: What was said; None from a reward that keeps no texts.
        errors: Why an episode's reply could not be had, or "", n strings. Such an episode has no scores and teaches
            nothing.
    """

    score: npt.NDArray[np.float64]
    initial_score: npt.NDArray[np.float64]
    llm_calls: npt.NDArray[np.int64]
    texts: Texts | None = None
    errors: Sequence[str] = ()

    @property
    def failed(self) -> npt.NDArray[np.bool_]:
        """Whether there was an error, bool (n,)."""
        if not any(self.errors):
            return np.zeros(len(self.score), dtype=np.bool_)
        return np.array([bool(error) for error in self.errors])

    @property
    def delta(self) -> npt.NDArray[np.float64]:
        """The rewards, float64 (n,): score minus initial score, 0 where there was an error."""
        return np.where(self.failed, 0.0, self.score - self.initial_score)

    @classmethod
    def of_failures(cls, errors: Sequence[str]) -> Outcomes:
        """Return the outcomes of episodes that got no reply."""
        n = len(errors)
        return cls(np.zeros(n), np.zeros(n), np.zeros(n, dtype=np.int64), None, errors)


class Reward(Protocol):
    """What the envs ask when episodes end."""

    def __call__(self, indices: Sequence[int], prompts: Sequence[str]) -> Outcomes:
        """Judge refined prompts of the episodes at ``indices``, in order."""
        ...


class DeltaReward:
    """BERTScore F1 of the reply to the refined prompt, minus that of the reply to the initial one (Eqs. 9-10).

    All prompts that end in a step make one LLM batch and one BERTScore call. The initial reply is asked for when it
    is first needed, once an episode.

    Args:
        episodes: The episodes that indices refer to.
        llm: The downstream LLM.
        scorer: BERTScore.

    Raises:
        ValueError: An episode has no reference, so nothing can be scored.
    """

    def __init__(self, episodes: EpisodeSet, llm: LLM, scorer: BertScorer) -> None:
        """Check that every episode can be scored."""
        for episode in episodes:
            if not episode.reference.strip():
                raise ValueError(f"patient {episode.patient_id} has no reference reply: PMLM-v0 cannot score her")
        self.episodes, self.llm, self.scorer = episodes, llm, scorer
        self._initial: dict[int, tuple[str, float]] = {}

    def __call__(self, indices: Sequence[int], prompts: Sequence[str]) -> Outcomes:
        """Judge refined prompts; an LLM failure becomes an error, never a score."""
        n = len(indices)
        new = [i for i in dict.fromkeys(indices) if i not in self._initial]
        asked = [*prompts, *(self.episodes[i].prompt for i in new)]
        try:
            replies = self.llm.generate(asked)
        except LLMError as error:
            return Outcomes.of_failures([str(error)] * n)
        references = [self.episodes[i].reference for i in (*indices, *new)]
        f1 = self.scorer.score([reply.text for reply in replies], references).f1.tolist()
        calls = np.array([not reply.cached for reply in replies], dtype=np.int64)
        for i, reply, score, call in zip(new, replies[n:], f1[n:], calls[n:], strict=True):
            self._initial[i] = (reply.text, score)
            calls[list(indices).index(i)] += call  # the initial reply is on the first rollout's bill
        initial_replies, initial_scores = zip(*(self._initial[i] for i in indices), strict=True)
        texts = Texts([reply.text for reply in replies[:n]], initial_replies, references[:n])
        return Outcomes(np.array(f1[:n]), np.array(initial_scores), calls[:n], texts)
