"""Patients with the vectors of others: python -m benchmarks.shuffled_vectors --episodes prepared --out shuffled.

An agent that learns from the patient vector should do worse with them; see docs/learning.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro

from pmlm_env.core.episodes import EpisodeSet


@dataclass(frozen=True)
class Options:
    """Options of the command.

    Attributes:
        episodes: The folder of ``pmlm prepare``.
        out: The folder to write.
        seed: Seed of the permutations.
    """

    episodes: Path
    out: Path
    seed: int = 0


def shuffled(episodes: EpisodeSet, seed: int = 0) -> EpisodeSet:
    """Return the episodes with their patient vectors permuted at random within each split."""
    rng, splits = np.random.default_rng(seed), np.asarray([episode.split for episode in episodes])
    source = np.arange(len(episodes))
    for split in np.unique(splits):
        own = np.flatnonzero(splits == split)
        source[own] = rng.permutation(own)
    vectors = episodes.vectors[source]
    return episodes.part(replace(each, vector=vector) for each, vector in zip(episodes, vectors, strict=True))


def main(options: Options) -> None:
    """Write the folder."""
    shuffled(EpisodeSet.load(options.episodes), options.seed).save(options.out)


if __name__ == "__main__":
    main(tyro.cli(Options))
