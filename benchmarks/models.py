"""Cost of the two BERT models: word embeddings in the envs, and BERTScore in the reward.

Because the speed of a shared machine varies severalfold, the results are ratios of two timings that alternate.
Everything runs on the CPU, with the bundled MiniLM and the simulated episodes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from bert_score import BERTScorer

import pmlm_env  # noqa: F401  (registers PMLM-v0)
from pmlm_env.encoders.bert import WordEncoder
from pmlm_env.pipeline import demo_episodes
from pmlm_env.rewards.bertscore import BertScorer
from pmlm_env.weights import resolve


def encoder_overhead(repeats: int = 15) -> list[float]:
    """Compare a step of 32 envs with the forward pass of BERT that it contains.

    Each step deletes a random legal word from each prompt; no episode ends.

    Args:
        repeats: Number of timed steps.

    Returns:
        For each step, its time divided by that of the model alone with the same inputs.
    """
    rng = np.random.default_rng(0)
    env = gym.make_vec("PMLM-v0", num_envs=32, device="cpu")
    vector_env: Any = env.unwrapped
    bert = vector_env.task.encoder._bert
    inputs: dict[str, torch.Tensor] = {}
    watch = bert.register_forward_pre_hook(lambda _, __, kwargs: inputs.update(kwargs), with_kwargs=True)
    ratios = []
    for i in range(repeats + 1):
        if i % 5 == 0:  # half of the budget of ten deletions
            env.reset(seed=i)
        legal = vector_env.action_masks()
        step, _ = _timed(env.step, (rng.random(legal.shape) * legal).argmax(axis=1))
        with torch.inference_mode():
            bare, _ = _timed(bert, **inputs)
        ratios.append(step / bare)
    watch.remove()
    env.close()
    return ratios[1:]  # the first is a warm-up


def encoder_dedup(repeats: int = 10) -> list[float]:
    """Compare the encoding of 32 distinct prompts with that of 4 prompts repeated 8 times each.

    Args:
        repeats: Number of timed pairs of batches.

    Returns:
        For each pair, the time of the distinct prompts divided by that of the repeated ones.
    """
    rng = np.random.default_rng(0)
    episodes = demo_episodes()
    encoder = WordEncoder("minilm", "cpu")
    ratios = []
    for _ in range(repeats + 1):
        words = [episodes[int(i)].words for i in rng.choice(len(episodes), 32, replace=False)]
        present = np.zeros((32, episodes.max_words), dtype=np.bool_)
        for row, prompt in enumerate(words):
            present[row, rng.permutation(len(prompt))[4:]] = True  # delete four random words
        few = np.repeat(rng.choice(32, 4, replace=False), 8)
        distinct, _ = _timed(encoder.encode, words, present)
        repeated, _ = _timed(encoder.encode, [words[i] for i in few], present[few])
        ratios.append(distinct / repeated)
    return ratios[1:]


def bertscore_speedup(repeats: int = 15, pairs: int = 64) -> tuple[list[float], float]:
    """Compare our BERTScore with that of bert-score.

    As in training, the references are cached and the replies are new. A reply consists of the shuffled words of a
    reference, cut to about 48 tokens.

    Args:
        repeats: Number of timed batches.
        pairs: Number of replies per batch, each with its own reference.

    Returns:
        For each batch, the time of bert-score divided by ours; and the largest difference in precision, recall or F1.
    """
    rng = np.random.default_rng(0)
    references = [episode.reference for episode in demo_episodes()]
    our_scorer = BertScorer("minilm", device="cpu")
    reference_scorer = BERTScorer(model_type=resolve("minilm"), num_layers=our_scorer.num_layers, device="cpu")
    our_scorer.score(references, references)
    ratios, difference = [], 0.0
    for _ in range(repeats + 1):
        chosen = [references[i] for i in rng.choice(len(references), pairs, replace=False)]
        replies = [_reply(references[i], rng) for i in rng.choice(len(references), pairs, replace=False)]
        our_time, scores = _timed(our_scorer.score, replies, chosen)
        reference_time, expected = _timed(reference_scorer.score, replies, chosen)
        ratios.append(reference_time / our_time)
        for a, b in zip((scores.precision, scores.recall, scores.f1), expected, strict=True):
            difference = max(difference, float((a - b).abs().max()))
    return ratios[1:], difference


def _reply(text: str, rng: np.random.Generator) -> str:
    """Return about 48 tokens of a text, in random word order."""
    return " ".join(rng.permutation(text.split())[: rng.integers(26, 38)])


def _timed(call: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[float, Any]:
    """Return the duration of a call in seconds, and its result."""
    started = time.perf_counter()
    result = call(*args, **kwargs)
    return time.perf_counter() - started, result
