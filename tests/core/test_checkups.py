from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.problem import blind
from pmlm_env.core.checkups import CheckupForm, Checkups, padded
from pmlm_env.core.episodes import EpisodeSet
from tests.standins import FORM, make_episodes, with_checkups

NAN = float("nan")


def test_padding_has_the_latest_first_then_zeros_and_a_mask_that_tells_the_three_kinds_of_zero_apart() -> None:
    made = padded([np.array([[1.5, NAN], [0.0, -2.0]]), np.empty((0, 2))], 3, 2)
    assert made.dtype == np.float32
    assert made.tolist() == [
        [[[1.5, 0.0], [0.0, -2.0], [0.0, 0.0]], [[1.0, -1.0], [1.0, 1.0], [0.0, 0.0]]],
        [[[0.0, 0.0]] * 3, [[0.0, 0.0]] * 3],
    ]


def test_check_ups_are_saved_and_loaded_to_the_last_digit(tmp_path: Path) -> None:
    made = with_checkups(make_episodes(5))
    made.save(tmp_path)
    loaded = EpisodeSet.load(tmp_path)
    assert loaded.checkup_form == FORM
    for own, other in zip(made.checkups, loaded.checkups, strict=True):
        np.testing.assert_array_equal(own.values, other.values)
        np.testing.assert_array_equal(own.statistics, other.statistics)
    assert (tmp_path / "checkups.safetensors").stat().st_mode & 0o777 == 0o600


def test_episodes_that_are_saved_without_check_ups_leave_none_of_others_behind(tmp_path: Path) -> None:
    with_checkups(make_episodes(5)).save(tmp_path)
    make_episodes(5, seed=1).save(tmp_path)
    assert not (tmp_path / "checkups.safetensors").exists()
    assert not EpisodeSet.load(tmp_path).has_checkups


def test_parts_of_a_set_and_blind_episodes_have_their_own_patients_check_ups() -> None:
    made = with_checkups(make_episodes(5))
    assert [each.values.tolist() for each in made[2:4].checkups] == [
        each.values.tolist() for each in made.checkups[2:4]
    ]
    assert blind(made).padded_checkups(range(5)).tolist() == made.padded_checkups(range(5)).tolist()
    assert made.padded_checkups([3, 3, 0]).shape == (3, FORM.size) == (3, 12)


def test_check_ups_do_not_change_the_digest_by_which_committed_results_name_episodes() -> None:
    assert with_checkups(make_episodes(3)).digest == make_episodes(3).digest


def test_no_message_and_no_repr_of_an_episode_has_its_check_ups() -> None:
    (episode,) = with_checkups(make_episodes(1), seed=1)
    assert episode.checkups is not None
    assert len(episode.checkups.values)
    assert "checkups" not in repr(episode)


def test_they_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        with_checkups(make_episodes(1), seed=1).checkups[0].values[0] = 0


def test_they_stay_what_they_were_whatever_becomes_of_the_array_they_came_from(tmp_path: Path) -> None:
    (known,) = with_checkups(make_episodes(1), seed=1).checkups
    values = np.array(known.values)
    row = values[:]
    row.flags.writeable = False
    made = [replace(known, values=values), replace(known, values=row)]
    values[:] = 7
    for each in made:
        np.testing.assert_array_equal(each.values, known.values)
    assert replace(known).values is known.values  # not copied again
    with_checkups(make_episodes(3)).save(tmp_path)
    first, second, _ = EpisodeSet.load(tmp_path).checkups
    assert first.values.base is second.values.base is not None


def test_episodes_without_check_ups_say_what_to_do() -> None:
    whole = with_checkups(make_episodes(3))
    for episodes in (make_episodes(3), EpisodeSet([*whole, replace(whole[0], checkups=None)])):
        with pytest.raises(ValueError, match="lack their patients' check-ups: prepare them again with `pmlm prepare`"):
            episodes.padded_checkups([0])


def test_check_ups_of_different_cohorts_are_not_mixed() -> None:
    one = with_checkups(make_episodes(2))
    scaled = replace(one.checkups[0], statistics=one.checkups[0].statistics + 1)
    units = replace(one.checkups[0], form=replace(FORM, units=("g/dL", "U/L")))
    for other in (scaled, units):
        with pytest.raises(ValueError, match="are of different cohorts: prepare them as one"):
            _ = EpisodeSet([*one, replace(one[0], checkups=other)]).checkups


@pytest.mark.parametrize("change", ["cut", "another file", "fewer patients"])
def test_a_damaged_file_is_one_line(tmp_path: Path, change: str) -> None:
    with_checkups(make_episodes(5)).save(tmp_path)
    file = tmp_path / "checkups.safetensors"
    if change == "cut":
        file.write_bytes(file.read_bytes()[:-8])
    elif change == "another file":
        file.write_bytes((tmp_path / "vectors.safetensors").read_bytes())
    else:
        with_checkups(make_episodes(4)).save(tmp_path / "fewer")
        file.write_bytes((tmp_path / "fewer" / "checkups.safetensors").read_bytes())
    with pytest.raises(
        ValueError, match=r"^.*checkups\.safetensors is damaged, or of other patients: prepare it again"
    ):
        EpisodeSet.load(tmp_path)


@pytest.mark.parametrize(
    ("values", "statistics", "message"),
    [
        (np.zeros((4, 2), np.float32), np.ones((3, 2)), "expected at most 3 of 2 values"),
        (np.zeros((1, 3), np.float32), np.ones((3, 2)), "expected at most 3 of 2 values"),
        (np.zeros((1, 2)), np.ones((3, 2)), "float64 values, statistics of shape"),
        (np.zeros((1, 2), np.float32), np.ones((3, 3)), "expected float32 and"),
    ],
)
def test_what_does_not_fit_its_form_is_refused(values: Any, statistics: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Checkups(values, FORM, statistics)


@pytest.mark.parametrize("form", [(("a",), (), 3), ((), (), 3), (("a",), ("g",), 0), (("a",), ("g",), 2**20)])
def test_a_form_that_cannot_be_is_refused(form: Any) -> None:
    with pytest.raises(ValueError, match="there should be as many units as indicators, and at most 524,288 values"):
        CheckupForm(*form)
