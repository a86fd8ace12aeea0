"""A patient's history as text: what is left out when there is little room, and that it is said."""

from __future__ import annotations

import re

import numpy as np
import pytest

from pmlm_env.cohort import Patient
from pmlm_env.cohort.schema import Indicator
from pmlm_env.prompting.history import History

INDICATORS = (Indicator("pH"), Indicator("alt", "U/L"), Indicator("total_protein", "g/L"))
NAN = np.nan


def history(*rows: tuple[float, float, float], days: tuple[int, ...] = ()) -> History:
    """Make a history, in which the usual values are 10, with a standard deviation of 1."""
    values = np.array(rows, dtype=float).reshape(-1, 3)
    dates = np.datetime64("2021-01-01") + np.array(days or range(len(rows)), dtype="timedelta64[D]")
    patient = Patient("a", "", "", np.datetime64("2021-12-31"), dates, values)
    return History(patient, INDICATORS, values - 10)


def within(n_words: int, of: History) -> str:
    return of.longest(lambda text: len(text.split()) <= n_words)


FOUR = history((10, 10, 14), (10, 11, NAN), (10, NAN, NAN), (10.2, 8, NAN), days=(0, 7, 12, 13))


def test_where_there_is_room_every_check_up_stands_whole_the_latest_first() -> None:
    assert within(1000, FOUR).splitlines() == [
        "Latest check-up: pH 10.2, alt 8 U/L (very low).",
        "1 day before: pH 10.",
        "6 days before: pH 10, alt 11 U/L (high).",
        "13 days before: pH 10, alt 10 U/L, total protein 14 g/L (extremely high).",
    ]


def test_with_less_room_the_earlier_check_ups_become_trends_from_first_to_last() -> None:
    assert FOUR.text(2).splitlines() == [
        "Latest check-up: pH 10.2, alt 8 U/L (very low).",
        "1 day before: pH 10.",
        "The 2 earlier check-ups, first to last: pH 10 to 10 steady, alt 10 to 11 rising (high), "
        "total protein 14 g/L once (extremely high).",
    ]


def test_with_hardly_any_room_what_is_most_usual_is_left_out_and_that_is_said() -> None:
    assert FOUR.text(1, 2).splitlines() == [
        "Latest check-up: pH 10.2, alt 8 U/L (very low).",
        "Left out of the 3 earlier check-ups: 3 indicators.",
    ]
    assert FOUR.text(1, 1).splitlines() == [
        "Latest check-up: alt 8 U/L (very low).",
        "Left out of the 3 earlier check-ups: 3 indicators.",
        "Left out of the latest check-up: 1 values.",
    ]


def test_a_check_up_of_which_all_is_left_out_is_not_one_without_values() -> None:
    assert FOUR.text(1, 0).splitlines() == [
        "Left out of the 3 earlier check-ups: 3 indicators.",
        "Left out of the latest check-up: 2 values.",
    ]
    assert within(0, history((10, 10, 14))) == "Left out of the latest check-up: 3 values."
    assert "first to last: total protein 14 g/L once (extremely high)." in FOUR.text(1, 3)


@pytest.mark.parametrize("n_words", range(18, 80))
def test_the_room_is_used_and_never_exceeded(n_words: int) -> None:
    everything = [FOUR.text(1, n) for n in range(5)] + [FOUR.text(n) for n in range(1, 5)]
    fitting = [place for place, text in enumerate(everything) if len(text.split()) <= n_words]
    found = everything.index(within(n_words, FOUR))
    assert found == fitting[-1]


def test_no_value_of_hundreds_of_check_ups_is_forgotten_silently() -> None:
    long = history(*((10.0, 10.0 + i / 400, 10.0) for i in range(400)))
    text = within(200, long)
    assert len(text.split()) > 150
    whole, earlier = len(re.findall("before:|Latest", text)), re.search(r"The (\d+) earlier check-ups", text)
    assert earlier is not None
    assert whole + int(earlier[1]) == 400


def test_patients_without_check_ups_or_values_have_a_text_too() -> None:
    assert within(100, history()) == "No check-up is on record."
    assert within(100, history((NAN, NAN, NAN))) == "Latest check-up: nothing was measured."
    assert history((NAN, NAN, NAN)).levels() == "In the mean of all check-ups, nothing is high or low."


def test_levels_are_those_of_the_mean_and_the_most_unusual_come_first() -> None:
    found = history((12, 8.6, 10), (NAN, 7.6, 10.4), (16, 8.6, 9.9)).levels()
    assert found == "In the mean of all check-ups, extremely high: pH; very low: alt."


def test_of_many_levels_the_most_unusual_are_written_and_the_others_counted() -> None:
    some, begin = history((12, 8.6, 14)), "In the mean of all check-ups, "
    assert some.levels(1) == f"{begin}extremely high: total protein; 2 more indicators are low or high."
    assert some.levels(0) == f"{begin}3 more indicators are low or high."
    assert some.levels(3) == some.levels()


def test_an_indicator_of_unknown_usual_values_has_no_level() -> None:
    plain = history((10, 30, 10))
    unknown = History(plain.patient, plain.indicators, np.array([[0.0, NAN, 0.0]]))
    assert unknown.text(1) == "Latest check-up: pH 10, alt 30 U/L, total protein 10 g/L."
    assert unknown.levels() == "In the mean of all check-ups, nothing is high or low."


def test_a_trend_of_unknown_usual_values_has_no_direction() -> None:
    plain = history((10, 30, 10), (10, 90, 10), (10, 10, 10))
    unknown = History(plain.patient, plain.indicators, np.array([[0.0, NAN, 0.0]] * 3))
    assert "first to last: pH 10 to 10 steady, alt 30 to 90, total protein 10 to 10 steady." in unknown.text(1)
