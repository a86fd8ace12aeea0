from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pmlm_env.episodes import EpisodeSet
from tests.standins import make_episodes


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    made = make_episodes(5)
    made = EpisodeSet([*made, replace(made[0], patient_id="Ü7", split="test", reference='say "ah",\nthen 好')])
    made.save(tmp_path)
    loaded = EpisodeSet.load(tmp_path)
    assert len(loaded) == 6
    for a, b in zip(made, loaded, strict=True):
        np.testing.assert_array_equal(a.vector, b.vector)
        assert replace(a, vector=b.vector).__dict__ == b.__dict__


def test_nothing_is_left_behind_by_saving(tmp_path: Path) -> None:
    make_episodes().save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["episodes.jsonl", "vectors.safetensors"]


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    make_episodes(3).save(tmp_path)
    path = tmp_path / "episodes.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace('"split": "train"', '"split": "trian"')
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"episodes.jsonl, line 2: .*unknown split 'trian'"):
        EpisodeSet.load(tmp_path)


def test_a_line_too_few_is_noticed(tmp_path: Path) -> None:
    make_episodes(3).save(tmp_path)
    path = tmp_path / "episodes.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:2]))
    with pytest.raises(ValueError, match="has 2 lines"):
        EpisodeSet.load(tmp_path)


def test_a_missing_folder_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pmlm prepare"):
        EpisodeSet.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"words": ("two words",), "roles": ("self",)}, "not one word"),
        ({"words": (), "roles": ()}, "no words"),
        ({"words": ("a", "b"), "roles": ("self",)}, "2 words, but 1 roles"),
        ({"words": ("a",), "roles": ("doctor",)}, "unknown role 'doctor'"),
    ],
)
def test_an_episode_that_cannot_be_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(make_episodes(1)[0], **change)


def test_a_split_without_episodes_is_an_error() -> None:
    with pytest.raises(ValueError, match="no episode belongs to split 'test'"):
        make_episodes().of("test")
