"""benchmarks.shuffled_vectors: each patient gets the vector of a patient in the same split, and keeps all else."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.shuffled_vectors import Options, main, shuffled
from pmlm_env.core.episodes import Episode, EpisodeSet
from tests.standins import make_episodes

pytestmark = pytest.mark.once


def _others(episode: Episode) -> tuple[object, ...]:
    return tuple(getattr(episode, each.name) for each in fields(episode) if each.name != "vector")


def test_vectors_change_places_within_their_split_and_nothing_else_does(tmp_path: Path) -> None:
    episodes = EpisodeSet(replace(each, split="train" if i % 3 else "test") for i, each in enumerate(make_episodes(30)))
    episodes.save(tmp_path / "prepared")
    main(Options(tmp_path / "prepared", tmp_path / "shuffled"))
    found = EpisodeSet.load(tmp_path / "shuffled")
    for split in ("train", "test"):
        before, after = episodes.of(split).vectors, found.of(split).vectors
        assert sorted(map(tuple, before.tolist())) == sorted(map(tuple, after.tolist()))
        assert np.mean((before == after).all(axis=1)) < 0.5
    assert [_others(each) for each in found] == [_others(each) for each in episodes]
    assert found.labels == episodes.labels
    assert np.array_equal(shuffled(episodes).vectors, found.vectors)
    assert not np.array_equal(shuffled(episodes, 1).vectors, found.vectors)
