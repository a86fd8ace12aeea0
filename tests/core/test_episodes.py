from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pmlm_env.core.episodes import EpisodeSet
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


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\r"])
def test_line_separators_within_texts_end_no_line(tmp_path: Path, mark: str) -> None:
    EpisodeSet([replace(e, reference=f"Rest.{mark}Sleep.", label=f"a{mark}b") for e in make_episodes(3)]).save(tmp_path)
    assert [(e.reference, e.label) for e in EpisodeSet.load(tmp_path)] == [(f"Rest.{mark}Sleep.", f"a{mark}b")] * 3


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


@pytest.mark.parametrize("lost", ["label", "reference"])
def test_a_split_in_which_nobody_can_be_judged_is_an_error(lost: str) -> None:
    episodes = EpisodeSet([replace(e, **{lost: ""}) for e in make_episodes(4)])
    with pytest.raises(ValueError, match="none of the 4 train patients has both a label and a doctor's reply"):
        episodes.of("train")
    assert len(episodes.of("train", everybody=True)) == 4


def test_a_split_without_episodes_is_an_error() -> None:
    with pytest.raises(ValueError, match="no episode belongs to split 'test'"):
        make_episodes().of("test")
