from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmlm_env.llm.http.pacing import Pacer

_INSTANT = 1e-6  # seconds by which sums of floats may differ


def most_in_a_minute(starts: list[tuple[float, float]]) -> float:
    """The largest amount that starts in any minute, by trying those that begin with a start."""
    return max(sum(amount for at, amount in starts if begin <= at < begin + 60 - _INSTANT) for begin, _ in starts)


def play(pacer: Pacer, schedule: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Book (seconds since the one before, amount) in turn, and return (start, amount)."""
    now, starts = 0.0, []
    for later, amount in schedule:
        now += later
        starts.append((now + pacer.book(amount, now), amount))
    return starts


gaps = st.one_of(st.just(0.0), st.floats(0, 0.5), st.floats(0, 90))


@given(st.integers(1, 40), st.lists(gaps, min_size=1, max_size=120))
def test_in_no_minute_do_more_requests_start_than_allowed(per_minute: int, schedule: list[float]) -> None:
    starts = play(Pacer(per_minute), [(gap, 1) for gap in schedule])
    assert most_in_a_minute(starts) <= per_minute


@given(st.integers(100, 2000), st.lists(st.tuples(gaps, st.integers(1, 500).map(float)), min_size=1, max_size=80))
def test_in_no_minute_do_more_tokens_start_than_allowed_and_one_request_has(
    per_minute: int, schedule: list[tuple[float, float]]
) -> None:
    starts = play(Pacer(per_minute), schedule)
    assert most_in_a_minute(starts) <= per_minute + max(amount for _, amount in starts)


@given(st.integers(1, 40), st.lists(gaps, min_size=1, max_size=50))
def test_nobody_goes_before_the_one_in_front_nor_before_now(per_minute: int, schedule: list[float]) -> None:
    pacer, now, last = Pacer(per_minute), 0.0, 0.0
    for gap in schedule:
        now += gap
        wait = pacer.book(1, now)
        assert wait >= 0
        assert now + wait >= last
        last = now + wait


@given(st.integers(1, 100), st.integers(2, 200))
def test_a_full_row_moves_as_fast_as_allowed(per_minute: int, n: int) -> None:
    starts = play(Pacer(per_minute), [(0, 1)] * n)
    assert math.isclose(starts[-1][0], (n - 1) * 60 / per_minute)


@given(st.lists(st.tuples(gaps, st.integers(1, 500).map(float)), min_size=1, max_size=30))
def test_without_a_limit_nobody_waits(schedule: list[tuple[float, float]]) -> None:
    pacer, now = Pacer(None), 0.0
    for gap, amount in schedule:
        now += gap
        assert pacer.book(amount, now) == 0


def test_the_first_goes_at_once_and_the_next_when_its_turn_comes() -> None:
    pacer = Pacer(30)
    assert [pacer.book(1, now) for now in (100.0, 100.0, 103.0, 110.0)] == [0.0, 2.0, 1.0, 0.0]


def test_time_that_went_by_unused_is_not_made_up_for() -> None:
    pacer = Pacer(60)
    pacer.book(1, 0.0)
    assert [pacer.book(1, 1000.0) for _ in range(3)] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(("correction", "wait"), [(-200, 8.0), (0, 10.0), (500, 15.0)])
def test_a_wrong_guess_is_put_right(correction: float, wait: float) -> None:
    pacer = Pacer(6000)
    pacer.book(1000, 0.0)
    pacer.correct(correction)
    assert pacer.book(1000, 0.0) == pytest.approx(wait)


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(1, 500)), min_size=1, max_size=40))
def test_when_all_guesses_are_put_right_the_row_is_as_long_as_if_they_had_been_right(
    amounts: list[tuple[int, int]],
) -> None:
    guessing, knowing = Pacer(600), Pacer(600)
    for guess, truth in amounts:
        guessing.book(guess, 0.0)
        guessing.correct(truth - guess)
        knowing.book(truth, 0.0)
    assert guessing.book(1, 0.0) == pytest.approx(knowing.book(1, 0.0), abs=_INSTANT)


def test_a_pause_holds_everybody_then_the_row_moves_on() -> None:
    pacer = Pacer(60)
    pacer.hold(50.0)
    assert [pacer.book(1, 20.0) for _ in range(3)] == [30.0, 31.0, 32.0]


def test_a_pause_is_never_cut_short_by_a_shorter_one() -> None:
    pacer = Pacer(None)
    pacer.hold(50.0)
    pacer.hold(40.0)
    assert pacer.book(1, 20.0) == 30.0
