"""Made-up patients for ``PMLMLite-v0``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pmlm_env.cohort.schema import OBSTETRIC, Schema
from pmlm_env.core.episodes import Episode, EpisodeSet, Split
from pmlm_env.encoders.hashed import seed_of
from pmlm_env.envs.lite.rules import CONDITIONS, FOLLOW_UP, HEADING
from pmlm_env.prompting.initial import InitialPrompt

_NOISE = 0.2  # standard deviation of a vector's elements around its condition's center, which has unit length
_PREDICTOR, _PEER = 0.75, 0.55  # how often stage 1 and each peer have the right condition
_SIZES: dict[Split, int] = {"train": 256, "validation": 64, "test": 64}


def lite_episodes(sizes: Mapping[Split, int] | None = None, seed: int = 0, template: str = "short") -> EpisodeSet:
    """Make episodes of made-up patients from a real template, with predictions and peers that are often right.

    Args:
        sizes: Number of patients in each split; 256, 64 and 64 by default.
        seed: Random seed.
        template: A template's name or file.
    """
    rng = np.random.default_rng(seed)
    names = list(CONDITIONS)
    centers = np.stack([np.random.default_rng(seed_of(name)).normal(size=128) for name in names])
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    schema = Schema.load(OBSTETRIC)
    prompt = InitialPrompt(template, schema=schema)
    episodes = []
    for split, size in (_SIZES if sizes is None else sizes).items():
        for i in range(size):
            label = int(rng.integers(len(names)))
            others = [name for name in names if name != names[label]]
            predicted = names[label] if rng.random() < _PREDICTOR else str(rng.choice(others))
            rivals = rng.permutation(others)[:3]
            peers = tuple(names[label] if rng.random() < _PEER else str(rng.choice(rivals)) for _ in range(10))
            filled = prompt.fill(predicted, peers)
            vector = (centers[label] + rng.normal(0, _NOISE, 128)).astype(np.float32)
            description, advice = CONDITIONS[names[label]]
            reference = f"{HEADING} {description} {advice} {FOLLOW_UP}"
            episodes.append(
                Episode(
                    *(f"{split}-{i}", split, filled.texts, filled.roles, vector, reference, names[label]),
                    *(predicted, peers, filled.spaces, filled.language),
                )
            )
    return EpisodeSet(episodes, schema.labels)
