"""Episodes that stay in their files are those that are read into memory."""

from __future__ import annotations

import errno
import gc
import json
import mmap
import pickle
import re
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pmlm_env.core.episode import Episode
from pmlm_env.core.episode_files import writing_episodes
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.labels import Label
from pmlm_env.core.stored_episodes import StoredEpisodes
from tests.standins import make_episodes, with_checkups

KNOWN = (Label("normal"), Label("gout", ("podagra",)))


def _made(n: int = 12) -> EpisodeSet:
    """Episodes of all splits, some without a label or a reference, of several peers, spaces and languages."""
    changed = []
    for i, episode in enumerate(with_checkups(make_episodes(n))):
        odd = {
            "words": ("Say:", "-", "好\u2028"[:1]),
            "roles": ("self",) * 3,
            "spaces": ("\n", " ", ""),
            "language": "de",
        }
        changed.append(
            replace(
                episode,
                split=("train", "validation", "test")[i % 3],
                label="" if i == 4 else ("gout", "normal")[i % 2],
                reference="" if i == 5 else f"Rest.\u2028Sleep {i}.",
                peers=("asthma",) * (i % 4),
                **(odd if i % 5 == 0 else {}),
            )
        )
    return EpisodeSet(changed, KNOWN)


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[EpisodeSet, EpisodeSet]:
    """A set in memory, and the same in its files."""
    made = _made()
    made.save(tmp_path)
    monkeypatch.setattr("pmlm_env.core.episodes.STORED_FROM", 0)
    return made, EpisodeSet.load(tmp_path)


def _plain(episode: Episode) -> dict:
    assert episode.checkups is not None
    arrays = {"vector": episode.vector.tolist(), "checkups": str(episode.checkups.values.tolist())}
    return episode.__dict__ | arrays


def assert_same(one: EpisodeSet, other: EpisodeSet) -> None:
    assert [*map(_plain, one)] == [*map(_plain, other)]
    assert one.digest == other.digest
    for name in ("labels", "conditions", "known_labels", "max_words", "has_checkups", "checkup_form"):
        assert getattr(one, name) == getattr(other, name)
    for name in ("lengths", "vectors"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    indices = [len(one) - 1, 0]
    np.testing.assert_array_equal(one.padded_checkups(indices), other.padded_checkups(indices))


def test_the_whole_set_is_the_same(both: tuple) -> None:
    assert_same(*both)
    assert isinstance(both[1].vectors, np.memmap)


def test_parts_are_the_same(both: tuple) -> None:
    made, stored = both
    for split in ("train", "validation", "test"):
        assert_same(made.of(split), stored.of(split))
        assert_same(made.of(split, include_unscored=True), stored.of(split, include_unscored=True))
    assert_same(made[3:9:2], stored[3:9:2])
    assert_same(made.of("train")[::-1], stored.of("train")[::-1])
    assert _plain(made[-2]) == _plain(stored[-2])
    with pytest.raises(IndexError):
        stored[12]


def test_an_episode_cannot_be_changed_in_its_file(both: tuple) -> None:
    with pytest.raises(ValueError, match="read-only"):
        both[1][0].vector[0] = 1


def test_its_vector_and_check_ups_stay_in_their_files(both: tuple) -> None:
    for array in (both[1][0].vector, both[1].checkups[0].values):
        while isinstance(array, np.ndarray):
            array = array.base
        assert isinstance(array, mmap.mmap)


def test_another_process_gets_the_same(both: tuple) -> None:
    for part in (both[1], both[1].of("test")):
        assert_same(pickle.loads(pickle.dumps(part)), part)


def test_another_process_may_be_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _made().save(tmp_path / "prepared")
    monkeypatch.setattr("pmlm_env.core.episodes.STORED_FROM", 0)
    monkeypatch.chdir(tmp_path)
    pickled = pickle.dumps(EpisodeSet.load("prepared"))
    monkeypatch.chdir("/")
    assert_same(pickle.loads(pickled), _made())


@pytest.mark.parametrize("name", ["episodes.jsonl", "vectors.safetensors", "checkups.safetensors"])
def test_another_process_is_not_given_other_files(both: tuple, tmp_path: Path, name: str) -> None:
    pickled = pickle.dumps(both[1])
    made = both[0]
    new = [replace(episode, vector=episode.vector + 1) for episode in made]
    EpisodeSet(new, KNOWN).save(tmp_path / "new")
    (tmp_path / "new" / name).replace(tmp_path / name)
    message = re.escape(f"{tmp_path / name} is not the file any more that these episodes are of")
    with pytest.raises(ValueError, match=message):
        pickle.loads(pickled)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=message):
        pickle.loads(pickled)


def test_the_form_and_some_check_ups_are_read_without_the_others(both: tuple) -> None:
    stored, asked = both[1], []
    one_of = StoredEpisodes.checkups_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StoredEpisodes, "checkups_of", lambda self, i: (asked.append(i), one_of(self, i))[1])
        assert stored.checkup_form == both[0].checkup_form
        stored.padded_checkups([7])
    assert {*asked} == {0, 7}
    assert [str(each.values) for each in stored.checkups[2:9:3]] == [
        str(each.values) for each in both[0].checkups[2:9:3]
    ]


def test_the_files_may_be_replaced_by_those_of_a_part(both: tuple, tmp_path: Path) -> None:
    made, stored = both
    stored.of("test").save(tmp_path)
    assert_same(made, stored)
    again = EpisodeSet.load(tmp_path)
    assert [*map(_plain, again)] == [*map(_plain, made.of("test"))]


def _held(load: Callable[[], object]) -> int:
    """The bytes that what was loaded takes."""
    load()  # what is loaded once, such as modules
    gc.collect()
    tracemalloc.start()
    try:
        kept = load()
        gc.collect()
        assert kept is not None
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_words_of_stored_episodes_take_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_episodes(400, n_words=150).save(tmp_path)
    in_memory = _held(lambda: EpisodeSet.load(tmp_path))
    monkeypatch.setattr("pmlm_env.core.episodes.STORED_FROM", 0)
    assert _held(lambda: EpisodeSet.load(tmp_path).of("train")) < in_memory / 10


def test_equal_words_in_memory_are_one_object(tmp_path: Path) -> None:
    made = make_episodes(2)
    EpisodeSet([made[0], replace(made[0], patient_id="again")]).save(tmp_path)
    first, second = EpisodeSet.load(tmp_path)
    assert all(one is other for one, other in zip(first.words, second.words, strict=True))


@pytest.mark.parametrize("damage", ["[]", "{", '{"words": 3}', ""])
def test_a_line_that_is_no_episode_is_named_when_the_set_is_loaded(both: tuple, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "episodes.jsonl"
    lines = path.read_text().removesuffix("\n").split("\n")
    path.write_text("\n".join([*lines[:2], damage, *lines[3:]]) + "\n")
    with pytest.raises(ValueError, match=re.escape(f"{path}, line 3: ")) as caught:
        EpisodeSet.load(tmp_path)
    assert str(caught.value).endswith("prepare it again with `pmlm prepare`")


def test_a_line_whose_words_are_no_prompt_is_named_when_it_is_read(both: tuple, tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    lines = path.read_text().removesuffix("\n").split("\n")
    row = json.loads(lines[6])
    row["words"][0] = "two words"
    path.write_text("\n".join([*lines[:6], json.dumps(row), *lines[7:]]))
    stored = EpisodeSet.load(tmp_path)
    assert stored[5].patient_id == "P5"
    with pytest.raises(ValueError, match=r"line 7: patient P6: slot 0 holds 'two words', which is not one word"):
        stored[6]


def test_files_of_different_sets_are_refused(both: tuple, tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    path.write_text("\n".join(path.read_text().split("\n")[:5]))
    with pytest.raises(ValueError, match=r"has 5 lines, .* 12 rows: prepare both again"):
        EpisodeSet.load(tmp_path)


@pytest.mark.parametrize("name", ["vectors.safetensors", "checkups.safetensors"])
def test_damaged_arrays_are_named(both: tuple, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} is damaged"):
        EpisodeSet.load(tmp_path)


def test_batches_are_written_as_the_whole_set_is(tmp_path: Path) -> None:
    made = _made()
    made.save(tmp_path / "whole")
    with writing_episodes(tmp_path / "batches", KNOWN) as writer:
        for start in range(0, 12, 5):
            writer.add(made[start : start + 5])
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "batches" / path.name).read_bytes()


def test_after_an_error_the_earlier_files_are_there_and_no_others(tmp_path: Path) -> None:
    made = _made()
    made.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = replace(made[1], vector=np.zeros(3, dtype=np.float32))
    bare = replace(made[1], checkups=None)
    for wrong, message in (
        (other, "all patient vectors must have the same shape"),
        (bare, "the check-ups are missing"),
    ):
        with pytest.raises(ValueError, match=message), writing_episodes(tmp_path) as writer:
            writer.add([made[0], wrong])
    with pytest.raises(ValueError, match="needs at least one episode"), writing_episodes(tmp_path):
        pass
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("number", range(4))
def test_if_the_disk_fails_when_a_file_is_flushed_the_earlier_files_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    _made().save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    flushed = []

    def fsync(file: int) -> None:
        flushed.append(file)
        if len(flushed) > number:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        _made(6).save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
