"""The reward of Eq. 9: how much closer to her doctor's reply the edit brings the LLM's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch

from pmlm_env.device import choose_device
from pmlm_env.encoder import load_bert
from pmlm_env.episodes import EpisodeSet
from pmlm_env.llm.base import LLM, Completion, LLMError, Reply, Request
from pmlm_env.pretrained import load_tokenizer
from pmlm_env.weights import resolve

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
        return load_tokenizer(self._path)

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
        for text in fresh:
            # Alone: in a batch its last digits would hang on its company, and a resumed run's scores with them.
            self._references[text] = self._embed([text])[0].clone()
        texts = list(dict.fromkeys(replies))
        reply_of = dict(zip(texts, self._embed(texts), strict=True))
        rows = [_match(reply_of[a], self._references[b]) for a, b in zip(replies, references, strict=True)]
        table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 3)
        self.seconds += time.perf_counter() - started
        return BertScores(*table.unbind(dim=1))

    def score_once(self, replies: Sequence[str], references: Sequence[str]) -> BertScores:
        """Score as ``score`` does, but forget the references, which will not come again."""
        known = self._references
        self._references = dict(known)
        try:
            return self.score(replies, references)
        finally:
            self._references = known

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
        reply: The LLM's replies to the refined prompts; of several samples the first.
        initial_reply: Its replies to the initial prompts, likewise.
        reference: The doctors' replies.
    """

    reply: Sequence[str]
    initial_reply: Sequence[str]
    reference: Sequence[str]


@dataclass(frozen=True)
class Outcomes:
    """How n episodes ended.

    Attributes:
        score: F1 of the reply to the refined prompt against the reference, float64 (n,); the mean over samples.
        initial_score: F1 of the reply to the initial prompt, likewise.
        llm_calls: Calls made for each episode, int64 (n,); cached replies cost none.
        texts: What was said; None from a reward that keeps no texts.
        errors: Why an episode's reply could not be had, or "", n strings. Such an episode has no scores and teaches
            nothing.
        score_sd: Standard deviation of the score over samples of the reply, float64 (n,); None where there is one
            sample.
        initial_score_sd: Likewise, of the initial score.
    """

    score: npt.NDArray[np.float64]
    initial_score: npt.NDArray[np.float64]
    llm_calls: npt.NDArray[np.int64]
    texts: Texts | None = None
    errors: Sequence[str] = ()
    score_sd: npt.NDArray[np.float64] | None = None
    initial_score_sd: npt.NDArray[np.float64] | None = None

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


class TooManyFailuresError(RuntimeError):
    """So many episodes in a row got no reply that going on would be of no use."""


class Judged(NamedTuple):
    """The replies to one prompt, and how good they are.

    Attributes:
        reply: The first of them.
        score: Their mean F1.
        sd: Its standard deviation over samples (n - 1 in the denominator); 0 for a single one.
    """

    reply: str
    score: float
    sd: float


class DeltaReward:
    """BERTScore F1 of the reply to the refined prompt, minus that of the reply to the initial one (Eqs. 9-10).

    All prompts that end in a step make one LLM batch and one BERTScore call. The initial reply is asked for when it
    is first needed, once an episode. An episode whose replies are not all there ends with an error; the others do not
    suffer from it.

    Args:
        episodes: The episodes that indices refer to.
        llm: The downstream LLM.
        scorer: BERTScore.
        n_samples: Replies to each prompt, whose mean F1 is the score; more than 1 for an LLM that does not always
            reply alike.
        max_failures: So many episodes in a row that end with an error stop the run; None = go on for ever.

    Attributes:
        initial: What is known of initial prompts so far, by episode index.

    Raises:
        ValueError: An episode has no reference, so nothing can be scored, or a number is below 1.
    """

    def __init__(
        self,
        episodes: EpisodeSet,
        llm: LLM,
        scorer: BertScorer,
        n_samples: int = 1,
        max_failures: int | None = 64,
    ) -> None:
        """Check that every episode can be scored."""
        for episode in episodes:
            if not episode.reference.strip():
                raise ValueError(f"patient {episode.patient_id} has no reference reply: PMLM-v0 cannot score her")
        if n_samples < 1 or (max_failures is not None and max_failures < 1):
            raise ValueError(f"n_samples ({n_samples}) and max_failures ({max_failures}) must be 1 or more")
        self.episodes, self.llm, self.scorer = episodes, llm, scorer
        self.n_samples, self.max_failures = n_samples, max_failures
        self.initial: dict[int, Judged] = {}
        self._failures = 0  # in a row

    def __call__(self, indices: Sequence[int], prompts: Sequence[str]) -> Outcomes:
        """Judge refined prompts; an LLM failure becomes an error, never a score.

        Raises:
            TooManyFailuresError: ``max_failures`` episodes in a row got no reply.
        """
        n = len(indices)
        if n == 0:
            return Outcomes.of_failures([])
        new = [i for i in dict.fromkeys(indices) if i not in self.initial]
        asked = [*prompts, *(self.episodes[i].prompt for i in new)]
        references = [self.episodes[i].reference for i in (*indices, *new)]
        replies = self.llm.ask([Request(prompt, sample) for prompt in asked for sample in range(self.n_samples)])
        groups = [replies[start : start + self.n_samples] for start in range(0, len(replies), self.n_samples)]
        judged = self._judge(groups, references)
        calls = [sum(isinstance(r, Completion) and not r.cached for r in group) for group in groups]
        for i, more in zip(new, calls[n:], strict=True):
            calls[list(indices).index(i)] += more  # the initial reply is on the first rollout's bill
        initial = {**self.initial, **dict(zip(new, judged[n:], strict=True))}
        self.initial = {i: each for i, each in initial.items() if isinstance(each, Judged)}
        pairs = [(after, initial[i]) for i, after in zip(indices, judged[:n], strict=True)]
        errors = [next((str(each) for each in pair if isinstance(each, LLMError)), "") for pair in pairs]
        self._count(errors)
        nothing = Judged("", 0.0, 0.0)
        whole = [(nothing, nothing) if e else pair for pair, e in zip(pairs, errors, strict=True)]
        after, before = (cast(tuple[Judged, ...], side) for side in zip(*whole, strict=True))
        return Outcomes(
            np.array([each.score for each in after]),
            np.array([each.score for each in before]),
            np.array(calls[:n], dtype=np.int64),
            Texts([each.reply for each in after], [each.reply for each in before], references[:n]),
            errors,
            np.array([each.sd for each in after]) if self.n_samples > 1 else None,
            np.array([each.sd for each in before]) if self.n_samples > 1 else None,
        )

    def _judge(self, groups: Sequence[Sequence[Reply]], references: Sequence[str]) -> list[Judged | LLMError]:
        """Score the replies to each prompt, all at once; the first error of a group stands for it."""
        errors = [next((reply for reply in group if isinstance(reply, LLMError)), None) for group in groups]
        whole = [i for i, error in enumerate(errors) if error is None]
        texts = {i: [reply.text for reply in groups[i] if isinstance(reply, Completion)] for i in whole}
        flat = [(text, references[i]) for i in whole for text in texts[i]]
        f1 = self.scorer.score([text for text, _ in flat], [reference for _, reference in flat]).f1.double().numpy()
        table = f1.reshape(len(whole), self.n_samples)
        sd = table.std(axis=1, ddof=1) if self.n_samples > 1 else np.zeros(len(whole))
        scored = {
            i: Judged(texts[i][0], float(row.mean()), float(s)) for i, row, s in zip(whole, table, sd, strict=True)
        }
        return [scored[i] if error is None else error for i, error in enumerate(errors)]

    def _count(self, errors: Sequence[str]) -> None:
        for error in errors:
            self._failures = self._failures + 1 if error else 0
            if self.max_failures is not None and self._failures >= self.max_failures:
                self._failures = 0  # for whoever goes on with this object
                raise TooManyFailuresError(
                    f"{self.max_failures} episodes in a row got no reply, the last because: {error}. "
                    "See to that, then run the command again (pmlm train with --resume)"
                )
