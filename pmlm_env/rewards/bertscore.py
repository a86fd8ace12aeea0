"""BERTScore: similarity of replies and references, by greedy matching of contextual embeddings."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch

from pmlm_env.device import choose_device
from pmlm_env.encoders.bert import load_bert
from pmlm_env.rewards.base import BERTSCORES, ScoredReply, Values
from pmlm_env.rewards.options import LongTexts
from pmlm_env.weights import resolve
from pmlm_env.weights.pretrained import load_config, load_tokenizer
from pmlm_env.weights.transformer import DECODER_LAYERS, check_layer, input_limit, states_of
from pmlm_env.weights.vocabulary import ChineseCheck

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

#: Texts of similar length per forward pass on a GPU. On a CPU they are embedded one at a time: in a batch, rounding
#: would depend on the other texts, and so would a resumed run's scores on where it was stopped.
_BATCH = 32


@dataclass(frozen=True, slots=True)
class BertScores:
    """BERTScore precision, recall and F1 of replies against references, each float32 (N,) on the CPU."""

    precision: torch.Tensor
    recall: torch.Tensor
    f1: torch.Tensor


class Embedded(NamedTuple):
    """An embedded text.

    Attributes:
        vectors: A unit vector for every piece, with special tokens at both ends, float32 (pieces, H).
        own: The slice of pieces that are not special tokens.
        weights: The weights of these pieces, float32 (own pieces,); None = all the same.
    """

    vectors: torch.Tensor
    own: slice
    weights: torch.Tensor | None = None

    def mean(self, similarity: torch.Tensor) -> float:
        """Return the weighted mean of the pieces' similarities (pieces,); 0 if no piece has a weight."""
        own = similarity[self.own]
        if self.weights is None:
            return float(own.mean())
        total = float(self.weights.sum())
        return float(own @ self.weights) / total if total else 0.0


class BertScorer:
    """BERTScore (Zhang et al., ICLR 2020) with each reference embedded once.

    Scores equal those of ``bert_score.BERTScorer(model_type, num_layers)`` without rescaling: greedy cosine matching of
    word pieces; special tokens can be matched but are not averaged over. Texts longer than the model's input are cut,
    as in bert-score, with one warning; or they are embedded in chunks, and all pieces are matched.

    Args:
        model: A bundled model's name, a directory or a hub name.
        num_layers: The layer whose states are compared. By default the one that bert-score recommends for the model;
            for other models and directories, the one at three quarters of the depth, rounded: 9 of 12, 18 of 24, and
            5 of 6, as in the bundled MiniLM. This is the average depth of the layers that bert-score recommends. For a
            bundled LLM, that of ``DECODER_LAYERS``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        long_texts: ``cut`` or ``chunks``: treatment of texts longer than the model's input. Shorter texts get the
            same score either way.
        idf: Texts, such as the training patients' letters: a piece weighs ``log((N + 1) / (n + 1))`` in the means if n
            of these N texts have it, as with ``bert_score.BERTScorer(idf=True, idf_sents=...)``, so that what stands in
            every letter counts little. None = all pieces weigh the same.

    Attributes:
        seconds: Wall time spent in ``score`` so far.

    Raises:
        ValueError: The model has no such layer, ``long_texts`` has another value, or ``idf`` has no texts.
    """

    def __init__(
        self,
        model: str = "minilm",
        num_layers: int | None = None,
        device: str = "auto",
        long_texts: LongTexts = "cut",
        idf: Sequence[str] | None = None,
    ) -> None:
        """Find the model; its weights are loaded when they are first used."""
        if long_texts not in get_args(LongTexts):
            raise ValueError(f"long_texts is {long_texts!r}: use one of {', '.join(get_args(LongTexts))}")
        if idf is not None and not idf:
            raise ValueError(
                "the scorer's idf weights come from training patients' letters: there are none (--scorer-idf)"
            )
        self.model_name, self.long_texts = model, long_texts
        self._idf_texts = idf
        self.device = choose_device(device)
        self.seconds = 0.0
        self._path = resolve(model)
        self.num_layers = _layer(model, self._path, num_layers)
        self._references: dict[str, Embedded] = {}
        # Of the last call: the same replies are often scored against letters, and then against their prompts.
        self._replies: dict[str, Embedded] = {}
        self._once: dict[str, Embedded] = {}
        self._warned = False

    def __getstate__(self) -> dict[str, Any]:
        """Pickle everything but weights, tokenizer and embeddings."""
        state = {key: value for key, value in self.__dict__.items() if key not in ("_bert", "_tokenizer", "_chinese")}
        return {**state, "_references": {}, "_replies": {}, "_once": {}}

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self._path)

    @cached_property
    def _bert(self) -> PreTrainedModel:
        logger.info("BERTScore compares the states of layer %d of %s", self.num_layers, self.model_name)
        return load_bert(self._path, self.device, self.num_layers)

    @cached_property
    def _chinese(self) -> ChineseCheck:
        return ChineseCheck(self._tokenizer, "scorer", self.model_name)

    def check_reads(self, texts: Iterable[str]) -> None:
        """Check that the model knows the language of some references, before any reply is bought.

        Raises:
            ValueError: The texts are Chinese, and the model does not know Chinese.
        """
        for text in texts:
            self._chinese.add(text, self._pieces(text)[1])

    @torch.inference_mode()
    def score(self, replies: Sequence[str], references: Sequence[str]) -> BertScores:
        """Score each reply against the reference at the same index.

        Args:
            replies: N texts; an empty one scores 0.
            references: N texts; the scorer embeds each distinct one only once.

        Raises:
            ValueError: The references are Chinese, and the model does not know Chinese. Replies may be: an LLM that
                answers English prompts in Chinese now and then must not end a run.
        """
        started = time.perf_counter()
        new = list(dict.fromkeys(text for text in references if text not in self._references))
        self.check_reads(new)
        for text in new:  # one at a time on a GPU, too: a reference is scored against many times
            embedded = self._embed([text])[0]
            self._references[text] = embedded._replace(vectors=embedded.vectors.clone())
        texts = list(dict.fromkeys(replies))
        left = [text for text in texts if text not in self._replies]
        known = {text: self._replies[text] for text in texts if text in self._replies}
        self._replies = {**known, **dict(zip(left, self._embed(left), strict=True))}
        rows = [_match(self._replies[a], self._references[b]) for a, b in zip(replies, references, strict=True)]
        table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 3)
        self.seconds += time.perf_counter() - started
        return BertScores(*table.unbind(dim=1))

    def f1(self, replies: Sequence[str], references: Sequence[str]) -> npt.NDArray[np.float64]:
        """Score like ``score``, and return the F1 of each reply, float64 (N,)."""
        return self.score(replies, references).f1.double().numpy()

    def score_once(self, replies: Sequence[str], references: Sequence[str]) -> BertScores:
        """Score like ``score``, storing the embeddings of the references until the next call of this method only."""
        known = self._references
        self._references = {**known, **self._once}
        try:
            return self.score(replies, references)
        finally:
            self._once = {text: self._references[text] for text in references if text in self._references}
            self._references = known

    @cached_property
    def limit(self) -> int:
        """Maximum number of pieces of the model's input, including special tokens."""
        return input_limit(self._tokenizer, self._bert)

    def too_long(self, texts: Iterable[str]) -> int:
        """Return how many texts have more pieces than ``limit``."""
        return sum(sum(map(len, self._pieces(text))) > self.limit for text in texts)

    @cached_property
    def _idf(self) -> dict[int, float] | None:
        """The weight of each piece in the texts for idf; None = all pieces weigh the same."""
        if self._idf_texts is None:
            return None
        counts = Counter(piece for text in self._idf_texts for piece in set(self._compared(self._pieces(text))))
        return {piece: math.log((len(self._idf_texts) + 1) / (n + 1)) for piece, n in counts.items()}

    def _compared(self, parts: tuple[list[int], list[int], list[int]]) -> list[int]:
        """Return the pieces that are compared, of a text's parts from ``_pieces``."""
        before, own, after = parts
        return own if self.long_texts == "chunks" else own[: self.limit - len(before) - len(after)]

    def _weights(self, pieces: Sequence[int]) -> torch.Tensor | None:
        if self._idf is None:
            return None
        new = math.log(len(self._idf_texts or ()) + 1)
        weights = [self._idf.get(piece, new) for piece in pieces]
        return torch.tensor(weights, dtype=torch.float32, device=self.device)

    def _pieces(self, text: str) -> tuple[list[int], list[int], list[int]]:
        """Return the special tokens before a text's pieces, the pieces, and the special tokens after them."""
        found = self._tokenizer(text.strip(), return_special_tokens_mask=True, verbose=False)
        ids, special = found["input_ids"], found["special_tokens_mask"]
        start = special.index(0) if 0 in special else len(ids)
        end = len(ids) - special[::-1].index(0) if 0 in special else len(ids)
        return ids[:start], ids[start:end], ids[end:]

    def _embed(self, texts: Sequence[str]) -> list[Embedded]:
        """Embed texts, each in as many windows as it needs."""
        parts = [self._pieces(text) for text in texts]
        windows: list[list[int]] = []
        spans: list[list[tuple[int, int]]] = []
        for before, own, after in parts:
            room = self.limit - len(before) - len(after)
            if len(own) > room and self.long_texts == "cut":
                self._warn(len(before) + len(own) + len(after))
            spans.append(_windows(len(own), room) if self.long_texts == "chunks" else [(0, min(len(own), room))])
            windows += [[*before, *own[start:end], *after] for start, end in spans[-1]]
        states = iter(self._states(windows))
        return [
            _joined([next(states) for _ in each], each, len(part[0]), len(part[2]))._replace(
                weights=self._weights(self._compared(part))
            )
            for each, part in zip(spans, parts, strict=True)
        ]

    def _states(self, windows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Return unit vectors of all pieces of all windows, [(pieces, H)]."""
        out: list[torch.Tensor] = [torch.empty(0, dtype=torch.float32)] * len(windows)
        by_length = sorted((i for i, window in enumerate(windows) if window), key=lambda i: len(windows[i]))
        size = 1 if self.device.type == "cpu" else _BATCH
        for first in range(0, len(by_length), size):
            rows = by_length[first : first + size]
            lengths = torch.tensor([len(windows[i]) for i in rows])
            inside = torch.arange(int(lengths.max())) < lengths[:, None]
            ids = torch.full(inside.shape, self._tokenizer.pad_token_id or 0)
            ids[inside] = torch.tensor([piece for i in rows for piece in windows[i]])
            inputs = {"input_ids": ids.to(self.device), "attention_mask": inside.long().to(self.device)}
            with torch.autocast(self.device.type, enabled=False):  # float32, because a delta is a small difference
                states = states_of(self._bert, self.num_layers, inputs)
            states = torch.nn.functional.normalize(states.float(), dim=-1)
            for row, i in enumerate(rows):
                out[i] = states[row, : len(windows[i])]
        return out

    def _warn(self, n_pieces: int) -> None:
        if not self._warned:
            logger.warning(
                "A text has %d pieces, more than the %d that the scorer %s takes: only its beginning is compared, and "
                "the same holds for all such texts. --long-texts chunks compares them in full "
                '(in gym.make, long_texts="chunks")',
                *(n_pieces, self.limit, self.model_name),
            )
        self._warned = True


class BertScoreReward:
    """BERTScore F1 of a reply against the doctor's reply (Eq. 9): the default reward.

    Args:
        scorer: BERTScore; by default with its default model.
    """

    names = BERTSCORES

    def __init__(self, scorer: BertScorer | None = None) -> None:
        """Store the scorer."""
        self._scorer = scorer or BertScorer()

    def components(self, replies: Sequence[ScoredReply]) -> dict[str, npt.NDArray[np.float64]]:
        """Return precision, recall and F1 of each reply, float64 (N,)."""
        scores = self._scorer.score([each.text for each in replies], [each.episode.reference for each in replies])
        columns = (scores.precision, scores.recall, scores.f1)
        return {name: column.double().numpy() for name, column in zip(BERTSCORES, columns, strict=True)}

    def score(self, components: Values) -> npt.NDArray[np.float64]:
        """Return the F1 of each reply, float64 (N,)."""
        return components["bertscore_f1"]

    def change(self, before: Values, after: Values) -> npt.NDArray[np.float64]:
        """Return the change of the F1, float64 (N,)."""
        return after["bertscore_f1"] - before["bertscore_f1"]


def _windows(n: int, room: int) -> list[tuple[int, int]]:
    """Return windows of ``room`` pieces that cover ``n`` pieces; neighbors share at least a quarter of their pieces.

    Returns:
        Start and end of each window, in order; if there are several, all are full.
    """
    if n <= room:
        return [(0, n)]
    count = 1 + math.ceil((n - room) / (room - room // 4))
    starts = [round(i * (n - room) / (count - 1)) for i in range(count)]
    return [(start, start + room) for start in starts]


def _joined(states: Sequence[torch.Tensor], spans: Sequence[tuple[int, int]], before: int, after: int) -> Embedded:
    """Join a text's windows: each piece is taken from the window where it has more context."""
    if len(states) == 1:
        return Embedded(states[0], slice(before, len(states[0]) - after))
    middles = [(end + start) // 2 for (_, end), (start, _) in pairwise(spans)]
    parts = [states[0][:before]]
    for window, (start, _), first, last in zip(states, spans, [0, *middles], [*middles, spans[-1][1]], strict=True):
        parts.append(window[before + first - start : before + last - start])
    vectors = torch.cat([*parts, states[-1][len(states[-1]) - after :]])
    return Embedded(vectors, slice(before, len(vectors) - after))


def _match(reply: Embedded, reference: Embedded) -> tuple[float, float, float]:
    """Match two texts greedily; return precision, recall and F1."""
    if any(text.own.start == text.own.stop for text in (reply, reference)):  # only special tokens
        return 0.0, 0.0, 0.0
    similarity = reply.vectors @ reference.vectors.T
    precision = reply.mean(similarity.amax(dim=1))
    recall = reference.mean(similarity.amax(dim=0))
    total = precision + recall
    return precision, recall, 2 * precision * recall / total if total else 0.0


#: Hub owners of models that bert-score lists without an owner, such as "FacebookAI/roberta-large".
_OWNERS = ("google-bert", "FacebookAI", "distilbert", "albert", "xlnet", "google-t5")


def _layer(model: str, path: str, chosen: int | None) -> int:
    """Return the layer to compare; see ``BertScorer``."""
    if model == "minilm" and chosen is None:
        return 5
    if model in DECODER_LAYERS and chosen is None:
        return DECODER_LAYERS[model]
    if chosen is None and not Path(model).is_dir():
        from bert_score.utils import model2layers  # imports matplotlib, so only if it is needed

        owner, _, name = model.rpartition("/")
        if known := model2layers.get(name if owner in _OWNERS else model):
            return int(known)
    depth = getattr(load_config(path), "num_hidden_layers", 0)
    if not depth:
        raise ValueError(f"{model} cannot be the scorer: its configuration has no number of layers (num_hidden_layers)")
    layer = max(1, math.floor(0.75 * depth + 0.5)) if chosen is None else chosen
    check_layer(layer, depth, model)
    return layer
