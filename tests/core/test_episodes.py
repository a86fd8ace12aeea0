from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pmlm_env.core.episodes import Episode, EpisodeSet
from pmlm_env.core.labels import Label
from pmlm_env.core.words import Prompt, Word
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


def _list() -> Episode:
    return replace(
        make_episodes(1)[0],
        **{"words": ("Say:", "-", "one"), "roles": ("self",) * 3, "spaces": ("\n", " ", ""), "language": "de"},
    )


def test_line_breaks_and_the_language_are_saved_and_loaded(tmp_path: Path) -> None:
    EpisodeSet([_list(), *make_episodes(2)]).save(tmp_path)
    first, second, _ = EpisodeSet.load(tmp_path)
    assert first.prompt == "Say:\n- one"
    assert first.initial == Prompt(
        (Word("Say:", "\n"), Word("-", " "), Word("one", "")), ("self", "self", "self"), "de"
    )
    assert (second.prompt, second.language) == (" ".join(second.words), "en")


def test_a_prompt_of_single_spaces_is_stored_as_it_always_was(tmp_path: Path) -> None:
    episode = make_episodes(1)[0]
    spelled_out = replace(episode, spaces=(" ",) * 11 + ("",))
    assert spelled_out.spaces == ()
    assert EpisodeSet([spelled_out]).digest == EpisodeSet([episode]).digest
    EpisodeSet([spelled_out]).save(tmp_path)
    assert set(json.loads((tmp_path / "episodes.jsonl").read_text())) == {
        "patient_id", "split", "label", "predicted", "peers", "words", "roles", "reference",
    }  # fmt: skip


def test_the_digest_is_that_of_earlier_versions() -> None:
    """Committed results name their episodes by it."""
    assert EpisodeSet(make_episodes(3)).digest == ("3d8874359c0a54b5544e96e2df2ffe26b33f864e214f4893e9a6d76fe4ef6d0a")


KNOWN = (Label("normal", ("no abnormality",), no_finding=True), Label("gout", ("podagra", "痛风")))


def _with_known_labels() -> EpisodeSet:
    """Patients of the label ``normal``, one of whom has gout and a peer with asthma."""
    first, *others = make_episodes(4)
    return EpisodeSet([replace(first, label="gout", peers=("asthma", "normal")), *others], KNOWN)


def test_known_labels_are_saved_and_loaded(tmp_path: Path) -> None:
    _with_known_labels().save(tmp_path)
    assert EpisodeSet.load(tmp_path).known_labels == KNOWN


def test_parts_of_a_set_know_the_same_labels() -> None:
    episodes = _with_known_labels()
    assert episodes[:2].known_labels == episodes.of("train").known_labels == KNOWN


def test_conditions_are_the_labels_that_occur_with_what_is_known_of_them() -> None:
    episodes = _with_known_labels()
    assert episodes.conditions == (Label("asthma"), KNOWN[1], KNOWN[0])
    assert EpisodeSet([*episodes][1:], KNOWN).conditions == (KNOWN[0],)


def test_parts_of_a_set_have_its_conditions_whoever_is_in_them() -> None:
    episodes = _with_known_labels()
    parts = [episodes[1:], episodes.of("train"), episodes.part([episodes[1]]), episodes[1:][1:]]
    assert [part.conditions for part in parts] == [episodes.conditions] * 4
    assert "gout" not in episodes[1:].labels


def test_known_labels_leave_the_digest_as_it_is() -> None:
    episodes = _with_known_labels()
    assert episodes.digest == EpisodeSet(episodes).digest


def test_a_folder_without_labels_knows_no_other_names_of_conditions_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _with_known_labels().save(tmp_path)
    (tmp_path / "labels.json").unlink()
    assert EpisodeSet.load(tmp_path).known_labels == ()
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{tmp_path / 'labels.json'} is missing, so replies are searched for")


def test_a_saved_set_that_knows_no_labels_knows_none_when_it_is_loaded(tmp_path: Path) -> None:
    make_episodes().save(tmp_path)
    assert EpisodeSet.load(tmp_path).known_labels == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "is damaged: it is not JSON: prepare it again"),
        ("{}", 'has no list "labels": prepare it again'),
        ('{"labels": ["gout"]}', "'gout' is not a label: give its name"),
        ('{"labels": [{"name": "gout"}, {"aliases": []}]}', "{'aliases': []} is not a label"),
        ('{"labels": [{"name": " "}]}', "{'name': ' '} is not a label"),
        ('{"labels": [{"name": "gout", "aliases": "podagra"}]}', "is not a label: give its name"),
        ('{"labels": [{"name": "gout", "aliases": [1]}]}', "is not a label: give its name"),
        ('{"labels": [{"name": "gout", "no_finding": 0}]}', "is not a label: give its name"),
        ('{"labels": [{"name": "gout", "alias": "podagra"}]}', "is not a label: give its name"),
    ],
)
def test_a_damaged_file_of_labels_is_named(tmp_path: Path, content: str, message: str) -> None:
    make_episodes().save(tmp_path)
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        EpisodeSet.load(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'labels.json'}")
    assert "\n" not in str(caught.value)


def test_other_spaces_and_another_language_are_another_prompt() -> None:
    plain, changed = replace(_list(), spaces=(), language="en"), _list()
    digests = {
        EpisodeSet([replace(plain, spaces=spaces, language=language)]).digest
        for spaces in (plain.spaces, changed.spaces)
        for language in ("en", "de")
    }
    assert len(digests) == 4


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\r"])
def test_line_separators_within_texts_end_no_line(tmp_path: Path, mark: str) -> None:
    EpisodeSet([replace(e, reference=f"Rest.{mark}Sleep.", label=f"a{mark}b") for e in make_episodes(3)]).save(tmp_path)
    assert [(e.reference, e.label) for e in EpisodeSet.load(tmp_path)] == [(f"Rest.{mark}Sleep.", f"a{mark}b")] * 3


def test_nothing_is_left_behind_by_saving(tmp_path: Path) -> None:
    make_episodes().save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["episodes.jsonl", "labels.json", "vectors.safetensors"]


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    make_episodes(3).save(tmp_path)
    path = tmp_path / "episodes.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace('"split": "train"', '"split": "trian"')
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"episodes.jsonl, line 2: .*unknown split 'trian'"):
        EpisodeSet.load(tmp_path)


def test_a_line_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    make_episodes(2).save(tmp_path)
    path = tmp_path / "episodes.jsonl"
    first, second = path.read_bytes().splitlines()
    path.write_bytes(first + b"\n" + second[:40] + b"\xff" + second[41:] + b"\n")
    with pytest.raises(
        ValueError, match=r"episodes.jsonl, line 2: .*byte 0xff in position 40.*: prepare it again with"
    ):
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
        ({"spaces": ("\n",)}, "12 words, but 1 spaces"),
        ({"spaces": ("-",) * 11 + ("",)}, "slot 0 is followed by '-', which is not white space"),
        ({"spaces": (" ",) * 12}, "' ' follows the last word"),
    ],
)
def test_an_episode_that_cannot_be_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(make_episodes(1)[0], **change)


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("form", ["whole", "row", "broadcast"])
def test_a_vector_stays_what_it_was_whatever_becomes_of_the_array_it_came_from(form: str, read_only: bool) -> None:
    table = np.ones((2, 4), dtype=np.float32)
    given = {"whole": table[0].copy(), "row": table[0], "broadcast": np.broadcast_to(table[0], 4)}[form]
    source = given if form == "whole" else table
    given = given.view()
    given.flags.writeable = given.flags.writeable and not read_only
    episode = replace(make_episodes(1)[0], vector=given)
    source[:] = 7
    assert episode.vector.tolist() == [1.0] * 4
    assert replace(episode, label="gout").vector is episode.vector  # not copied again
    with pytest.raises(ValueError, match="read-only"):
        episode.vector[0] = 1


@pytest.mark.parametrize("dtype", ["float64", "int64", "uint8", "float16", ">f4"])
def test_vectors_of_other_numbers_become_float32(dtype: str) -> None:
    episode = replace(make_episodes(1)[0], vector=np.arange(4).astype(dtype))
    assert episode.vector.dtype == np.float32
    assert episode.vector.dtype.isnative
    assert episode.vector.tolist() == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (np.zeros((2, 2), np.float32), "is float32 of shape (2, 2): use finite numbers of one dimension, float32"),
        (np.float32(1), "is float32 of shape (): use finite numbers of one dimension, float32"),
        (np.array(["a"]), "is <U1 of shape (1,): use finite numbers of one dimension, float32"),
        (np.array([1, 2], dtype=bool), "is bool of shape (2,): use finite numbers of one dimension, float32"),
        (np.array([0, np.nan, 1], np.float32), "number 1 is nan: use finite numbers, float32"),
        (np.array([0, -np.inf]), "number 1 is -inf: use finite numbers, float32"),
        (np.array([1e300]), "number 0 is 1e+300: use finite numbers, float32"),
    ],
)
def test_a_vector_that_is_not_one_of_finite_numbers_is_refused_in_one_line(vector: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match="patient P0: ") as caught:
        replace(make_episodes(1)[0], vector=vector)
    assert str(caught.value).endswith(message)
    assert "\n" not in str(caught.value)


def test_vectors_that_were_read_from_a_file_are_not_copied(tmp_path: Path) -> None:
    make_episodes(3).save(tmp_path)
    first, second, _ = EpisodeSet.load(tmp_path)
    assert first.vector.base is not None
    assert first.vector.base is second.vector.base


@pytest.mark.parametrize("lost", ["label", "reference"])
def test_a_split_in_which_nobody_can_be_judged_is_an_error(lost: str) -> None:
    episodes = EpisodeSet([replace(e, **{lost: ""}) for e in make_episodes(4)])
    with pytest.raises(ValueError, match="none of the 4 train patients has both a label and a doctor's reply"):
        episodes.of("train")
    assert len(episodes.of("train", include_unscored=True)) == 4


def test_a_split_without_episodes_is_an_error() -> None:
    with pytest.raises(ValueError, match="no episode belongs to split 'test'"):
        make_episodes().of("test")
