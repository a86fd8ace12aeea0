from __future__ import annotations

import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch

import pmlm_env  # noqa: F401  (registers the environments)
from pmlm_env.encoders import once
from pmlm_env.encoders.base import load_encoder
from pmlm_env.encoders.bert import WordEncoder
from pmlm_env.encoders.once import OnceEncoder
from pmlm_env.weights import resolve

pytestmark = pytest.mark.real

PROMPTS = ["A woman leaves hospital today .".split(), "Write her a short letter".split()]
WHOLE = np.arange(6) < np.array([[6], [5]])


@pytest.fixture
def encoder() -> OnceEncoder:
    return OnceEncoder(device="cpu")


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many prompts each call to BERT has."""
    counts: list[int] = []
    encode = WordEncoder.encode

    def watched(self: WordEncoder, words: list[list[str]], kept: np.ndarray) -> torch.Tensor:
        counts.append(len(words))
        return encode(self, words, kept)

    monkeypatch.setattr(WordEncoder, "encode", watched)
    return counts


def test_a_word_that_is_left_keeps_its_embedding_in_the_whole_prompt(encoder: OnceEncoder, encoded: list[int]) -> None:
    whole = WordEncoder("minilm", "cpu").encode(PROMPTS, WHOLE)
    assert encoded == [2]
    torch.testing.assert_close(encoder.encode(PROMPTS, WHOLE), whole, atol=2e-5, rtol=1e-4)
    kept = WHOLE.copy()
    kept[0, 2:4] = kept[1, 0] = False
    some = encoder.encode(PROMPTS, kept)
    assert encoded == [2, 2]  # of a prompt that is known, nothing is encoded again
    torch.testing.assert_close(some[kept], whole[kept], atol=2e-5, rtol=1e-4)
    assert not some[~kept].any()
    reencoded = WordEncoder("minilm", "cpu").encode(PROMPTS, kept)
    assert (some - reencoded)[kept].abs().max() > 0.01
    assert not encoder.encode([[]], np.zeros((1, 3), dtype=bool)).any()
    twice = encoder.encode(PROMPTS[:1] * 2, np.stack([kept[0], WHOLE[0]]))
    torch.testing.assert_close(twice, torch.stack([some[0], whole[0]]), atol=2e-5, rtol=1e-4)


def test_what_is_kept_in_memory_is_limited(
    encoder: OnceEncoder, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(once, "_MOST_NUMBERS", 384 * 8)
    for _ in range(2):
        for prompt, kept in zip(PROMPTS, WHOLE, strict=True):
            assert encoder.encode([prompt], kept[None]).any()
    assert encoder.encode(PROMPTS, WHOLE).any(dim=-1).equal(torch.from_numpy(WHOLE))  # a batch may be larger than that
    assert encoded == [1, 1, 1, 1, 2]


def test_embeddings_do_not_travel_in_a_pickle(encoder: OnceEncoder) -> None:
    before = encoder.encode(PROMPTS, WHOLE)
    blob = pickle.dumps(encoder)
    assert len(blob) < 100_000
    torch.testing.assert_close(pickle.loads(blob).encode(PROMPTS, WHOLE), before)


def test_it_is_found_by_name_and_takes_another_model() -> None:
    assert load_encoder("once", device="cpu").model_name == "once"
    other = load_encoder("once", {"model": resolve("minilm")}, "cpu")
    assert (other.model_name, other.hidden_size) == (f"once:{resolve('minilm')}", 384)
    with pytest.raises(ValueError, match=r"the encoder once does not take these arguments: .*'size'"):
        load_encoder("once", {"size": 3})


def test_the_env_observes_these_embeddings() -> None:
    env = gym.make("PMLM-v0", encoder="once", llm="responder")
    before, _ = env.reset(seed=0)
    slot = int(before["action_mask"].argmax())
    after, *_ = env.step(slot)
    left = np.arange(len(before["embeddings"])) != slot
    np.testing.assert_array_equal(after["embeddings"][left], before["embeddings"][left])
    assert before["embeddings"][slot].any()
    assert not after["embeddings"][slot].any()
