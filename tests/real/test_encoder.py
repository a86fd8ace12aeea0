from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from pmlm_env.encoders.bert import WordEncoder
from pmlm_env.weights import resolve

pytestmark = pytest.mark.real

WORDS = "The patient's hyperbilirubinemia (12 µmol/L) was unremarkable ; 妊娠 糖尿病".split()


@pytest.fixture(scope="module")
def encoder() -> WordEncoder:
    return WordEncoder("minilm", "cpu")


def _by_hand(words: list[str]) -> torch.Tensor:
    """The same through transformers' own word alignment, one prompt at a time, without our code."""
    path = resolve("minilm")
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()
    inputs = tokenizer(words, is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**inputs).last_hidden_state[0]
    owners = inputs.word_ids()
    rows = [[i for i, owner in enumerate(owners) if owner == w] for w in range(len(words))]
    return torch.stack([states[pieces].mean(dim=0) for pieces in rows])


@contextmanager
def _rows_run(encoder: WordEncoder) -> Iterator[list[int]]:
    """How many rows each of BERT's forward passes has."""
    rows: list[int] = []
    watch = encoder._bert.register_forward_pre_hook(
        lambda _, __, inputs: rows.append(len(inputs["input_ids"])), with_kwargs=True
    )
    yield rows
    watch.remove()


def test_embeddings_are_the_mean_of_each_words_pieces(encoder: WordEncoder) -> None:
    ours = encoder.encode([WORDS], np.ones((1, len(WORDS)), dtype=bool))[0]
    torch.testing.assert_close(ours, _by_hand(WORDS), atol=2e-5, rtol=1e-4)


def test_a_deletion_changes_the_context_of_the_words_left(encoder: WordEncoder) -> None:
    kept = np.ones((1, len(WORDS)), dtype=bool)
    kept[0, 2] = False
    ours = encoder.encode([WORDS], kept)[0]
    left = [word for i, word in enumerate(WORDS) if i != 2]
    torch.testing.assert_close(ours[kept[0]], _by_hand(left), atol=2e-5, rtol=1e-4)
    assert not ours[2].any()


def test_neither_the_batch_nor_padding_nor_repetition_matters(encoder: WordEncoder) -> None:
    prompts = [WORDS, WORDS[:3], WORDS, WORDS[3:]]
    kept = np.zeros((4, 20), dtype=bool)
    for row, prompt in enumerate(prompts):
        kept[row, : len(prompt)] = True
    together = encoder.encode(prompts, kept)
    for row, prompt in enumerate(prompts):
        torch.testing.assert_close(together[row, : len(prompt)], _by_hand(prompt), atol=2e-5, rtol=1e-4)


def test_a_batch_that_repeats_itself_runs_bert_on_the_distinct_prompts_only(encoder: WordEncoder) -> None:
    kept = np.ones((8, len(WORDS)), dtype=bool)
    kept[2:4, 0] = False  # two rows that lost the same word, beside six that lost none
    with _rows_run(encoder) as rows:
        encoder.encode([WORDS] * 8, kept)
    assert rows == [2]


def test_a_batch_too_large_for_one_pass_is_parted_without_a_trace(
    encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [WORDS[:n] for n in range(1, 6)]
    kept = np.arange(5) <= np.arange(5)[:, None]
    at_once = encoder.encode(prompts, kept)
    monkeypatch.setattr("pmlm_env.encoders.bert._MAX_PIECES_ON_CPU", 30)
    with _rows_run(encoder) as rows:
        in_parts = encoder.encode(prompts, kept)
    assert rows == [1, 2, 2]
    torch.testing.assert_close(in_parts, at_once, atol=2e-5, rtol=1e-4)


def test_passes_have_each_chunk_once_and_hardly_any_padding(
    encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pmlm_env.encoders.bert._MAX_PIECES_ON_CPU", 4_096)
    lengths = [*range(20, 116, 3), *[510] * 32]  # as of long prompts, each in two chunks
    passes = list(encoder._passes(lengths))
    assert sorted(row for rows in passes for row in rows) == list(range(64))
    computed = [len(rows) * (2 + max(lengths[row] for row in rows)) for rows in passes]
    assert max(computed) <= 4_096
    assert sum(computed) < 1.2 * sum(lengths)  # in one pass 1.8 times
    assert list(encoder._passes([9_000, 9_000])) == [[0], [1]]
    assert list(encoder._passes([])) == []


def test_long_prompts_are_encoded_in_chunks_and_no_word_is_lost(encoder: WordEncoder) -> None:
    words = [f"word{i}" for i in range(600)]
    ours = encoder.encode([words], np.ones((1, 600), dtype=bool))[0]
    assert bool(ours.any(dim=1).all())
    pieces = [len(encoder._word_pieces(word)) for word in words]
    n_first = int(np.searchsorted(np.cumsum(pieces), 510, side="right"))
    assert n_first < 600
    torch.testing.assert_close(ours[:n_first], _by_hand(words[:n_first]), atol=5e-5, rtol=1e-3)


def test_a_word_longer_than_the_whole_input_is_encoded_too(encoder: WordEncoder) -> None:
    # Exclamation marks are one piece each, so this is one word of 700 pieces.
    ours = encoder.encode([["a", "!" * 700, "b"]], np.ones((1, 3), dtype=bool))[0]
    assert bool(ours.isfinite().all())
    assert bool(ours.any(dim=1).all())


def test_a_prompt_without_words_has_no_embeddings(encoder: WordEncoder) -> None:
    kept = np.array([[False, False], [True, True]])
    assert not encoder.encode([["a", "b"], ["a", "b"]], kept)[0].any()
    assert not encoder.encode([["a", "b"]], kept[:1]).any()


def test_weights_do_not_travel_in_a_pickle(encoder: WordEncoder) -> None:
    kept = np.ones((1, len(WORDS)), dtype=bool)
    before = encoder.encode([WORDS], kept)
    blob = pickle.dumps(encoder)
    assert len(blob) < 100_000
    torch.testing.assert_close(pickle.loads(blob).encode([WORDS], kept), before)
