"""What the two BERTs cost: the words' embeddings in the envs, and BERTScore in the reward.

A shared machine's speed swings severalfold, so these are ratios of two ways that are timed in turn. Everything runs
on the CPU, with the bundled MiniLM and the simulated episodes.
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
    """Compare a step of 32 envs with the bare forward pass of BERT in it.

    The steps are ordinary ones: a random legal word goes from each prompt, and no episode ends.

    Args:
        repeats: How many steps to time.

    Returns:
        For each step its time over that of the model alone on the very inputs that the step gave it.
    """
    rng = np.random.default_rng(0)
    env = gym.make_vec("PMLM-v0", num_envs=32, device="cpu")
    vector_env: Any = env.unwrapped
    bert = vector_env.task.encoder._bert
    inputs: dict[str, torch.Tensor] = {}
    watch = bert.register_forward_pre_hook(lambda _, __, given: inputs.update(given), with_kwargs=True)
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
    return ratios[1:]  # the first warms up


def encoder_dedup(repeats: int = 10) -> list[float]:
    """Compare the encoding of 32 distinct prompts with that of 4 of them, 8 times each.

    Args:
        repeats: How many pairs of batches to time.

    Returns:
        For each pair the time that the distinct prompts took over that of the repeated ones.
    """
    rng = np.random.default_rng(0)
    episodes = demo_episodes()
    encoder = WordEncoder("minilm", "cpu")
    ratios = []
    for _ in range(repeats + 1):
        words = [episodes[int(i)].words for i in rng.choice(len(episodes), 32, replace=False)]
        kept = np.zeros((32, episodes.max_words), dtype=np.bool_)
        for row, prompt in enumerate(words):
            kept[row, rng.permutation(len(prompt))[4:]] = True  # four random words are gone
        few = np.repeat(rng.choice(32, 4, replace=False), 8)
        distinct, _ = _timed(encoder.encode, words, kept)
        repeated, _ = _timed(encoder.encode, [words[i] for i in few], kept[few])
        ratios.append(distinct / repeated)
    return ratios[1:]


def bertscore_speedup(repeats: int = 15, pairs: int = 64) -> tuple[list[float], float]:
    """Compare our BERTScore with bert-score's own.

    As in training, the references have been scored against before, and the replies are new. A reply is made of the
    words of a reference, shuffled and cut to about the 48 tokens that ``PMLM-v0`` lets its LLM write.

    Args:
        repeats: How many batches to time.
        pairs: Replies in a batch, each with a reference of its own.

    Returns:
        For each batch the time of bert-score over ours, and the largest difference in precision, recall or F1.
    """
    rng = np.random.default_rng(0)
    references = [episode.reference for episode in demo_episodes()]
    ours = BertScorer("minilm", device="cpu")
    theirs = BERTScorer(model_type=resolve("minilm"), num_layers=ours.num_layers, device="cpu")
    ours.score(references, references)
    ratios, difference = [], 0.0
    for _ in range(repeats + 1):
        chosen = [references[i] for i in rng.choice(len(references), pairs, replace=False)]
        replies = [_reply(references[i], rng) for i in rng.choice(len(references), pairs, replace=False)]
        our_time, scores = _timed(ours.score, replies, chosen)
        their_time, expected = _timed(theirs.score, replies, chosen)
        ratios.append(their_time / our_time)
        for a, b in zip((scores.precision, scores.recall, scores.f1), expected, strict=True):
            difference = max(difference, float((a - b).abs().max()))
    return ratios[1:], difference


def _reply(text: str, rng: np.random.Generator) -> str:
    """About 48 tokens of a text's words, in random order."""
    return " ".join(rng.permutation(text.split())[: rng.integers(26, 38)])


def _timed(call: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[float, Any]:
    """Call, and return the seconds that took with what came back."""
    started = time.perf_counter()
    result = call(*args, **kwargs)
    return time.perf_counter() - started, result
