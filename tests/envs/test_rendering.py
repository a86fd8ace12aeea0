from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import ImageFont

from pmlm_env.core.words import Word, split
from pmlm_env.envs import rendering
from pmlm_env.envs.rendering import render_ansi, render_rgb


def _words(*texts: str) -> list[Word]:
    return [Word(text) for text in texts[:-1]] + [Word(texts[-1], "")]


WORDS = _words(*(f"{word}{number}" for number in range(8) for word in ("jump", "Qualify,", "a", "fjord")))
SCORES = {"initial_score": 0.6412, "score": 0.663}
ENDINGS: list[dict[str, Any]] = [
    SCORES,
    {**SCORES, "reply": "Rest.", "initial_reply": "Run."},
    {**SCORES, "reply": "Rest and drink. " * 200},
    {**SCORES, "reply": ""},
    {"llm_error": "the machine at the other end is silent"},
    {"llm_error": "silence " * 500},
]


def _without(*slots: int, n_words: int = len(WORDS)) -> npt.NDArray[np.bool_]:
    return ~np.isin(np.arange(n_words), slots)


def _ink(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    return (image != 255).any(-1)


def _has_colour(image: npt.NDArray[np.uint8], red: int, green: int, blue: int) -> bool:
    return bool((image == (red, green, blue)).all(-1).any())


@pytest.mark.parametrize("n_words", [1, 2, 97, 600])
@pytest.mark.parametrize("final", [None, *ENDINGS])
def test_a_picture_is_uint8_with_even_sides(n_words: int, final: dict[str, Any] | None) -> None:
    image = render_rgb((WORDS * 20)[:n_words], np.ones(n_words, dtype=bool), final)
    height, width, channels = image.shape
    assert image.dtype == np.uint8
    assert channels == 3
    assert height % 2 == width % 2 == 0


@pytest.mark.parametrize("final", ENDINGS)
def test_frames_of_an_episode_keep_their_shape(final: dict[str, Any]) -> None:
    first = render_rgb(WORDS, _without())
    assert render_rgb(WORDS, _without(3, 4)).shape == first.shape
    assert render_rgb(WORDS, _without(*range(len(WORDS)))).shape == first.shape
    assert render_rgb(WORDS, _without(3, 4), final).shape == first.shape


@pytest.mark.parametrize("pillows_own_font", [True, False])
def test_each_deletion_changes_a_place_of_its_own(monkeypatch: pytest.MonkeyPatch, pillows_own_font: bool) -> None:
    if pillows_own_font:
        monkeypatch.setattr(rendering, "_font", lambda: ImageFont.load_default(18))
    whole = render_rgb(WORDS, _without())
    changed = [(render_rgb(WORDS, _without(slot)) != whole).any(-1) for slot in range(len(WORDS))]
    assert all(mask.any() for mask in changed)
    assert not any((one & other).any() for one, other in combinations(changed, 2))
    places = [(np.nonzero(mask.any(1))[0].mean() // 28, np.nonzero(mask.any(0))[0].min()) for mask in changed]
    assert places == sorted(places)  # in reading order, in lines of 28 pixels
    together = (render_rgb(WORDS, _without(2, 9, 10)) != whole).any(-1)
    np.testing.assert_array_equal(together, changed[2] | changed[9] | changed[10])


def test_a_deleted_word_is_struck_through_from_end_to_end() -> None:
    plain = _ink(render_rgb(_words("nosine"), np.array([True])))
    struck = render_rgb(_words("nosine"), np.array([False]))
    rows, columns = np.nonzero((struck == (0xC6, 0x28, 0x28)).all(-1))
    letters = np.nonzero(plain[: rows.max() + 20].any(1))[0]
    letters = letters[letters < rows.max() + 12]  # not the rule below
    assert len(set(rows)) == 2
    assert len(rows) == 2 * len(set(columns)) == 2 * (columns.max() - columns.min() + 1)
    assert np.nonzero(plain[letters].any(0))[0][[0, -1]] == pytest.approx([columns.min(), columns.max()], abs=2)


@pytest.mark.parametrize("final", ENDINGS)
def test_the_end_is_told_below_the_prompt(final: dict[str, Any]) -> None:
    before, after = render_rgb(WORDS, _without(1)), render_rgb(WORDS, _without(1), final)
    prompt_and_rule = np.nonzero(_ink(before).any(1))[0].max() + 1
    np.testing.assert_array_equal(before[:prompt_and_rule], after[:prompt_and_rule])
    assert _ink(after)[prompt_and_rule:].any()
    assert not _ink(after)[-16:].any()
    assert not _ink(after)[:, -12:].any()


def test_a_gain_is_green_and_a_loss_is_red() -> None:
    green, red = (0x1A, 0x7F, 0x37), (0xC6, 0x28, 0x28)
    for score, is_green, is_red in [(0.7, True, False), (0.6, False, True), (0.6412, False, False)]:
        image = render_rgb(WORDS, _without(), {**SCORES, "score": score})
        assert (_has_colour(image, *green), _has_colour(image, *red)) == (is_green, is_red)
    assert _has_colour(render_rgb(WORDS, _without(), {"llm_error": "silence"}), *red)


@pytest.mark.parametrize("word", ["W" * 500, "i" * 5000, "空" * 500])
def test_a_word_wider_than_the_page_is_broken(word: str) -> None:
    image = render_rgb(_words("a", word, "b"), np.array([True, False, True]), {**SCORES, "reply": word})
    assert not _ink(image)[:, -12:].any()
    assert image.shape[0] > render_rgb(_words("a", "b"), np.array([True, True])).shape[0]


@pytest.mark.parametrize("word", ["血糖", "سكر", "é", "e\u0301", "\u0301", "🙂", "\x1b[2J", "\x00", "\u200b", "\ud800"])
def test_any_word_can_be_drawn(word: str) -> None:
    image = render_rgb(_words(word, "a"), np.array([False, True]), {**SCORES, "reply": word})
    assert image.shape == render_rgb(_words("b", "a"), np.array([True, True])).shape


def test_a_terminal_shows_deleted_words_in_red_and_struck_out() -> None:
    assert (
        render_ansi(_words("take", "two", "pills"), np.array([True, False, True])) == "take \x1b[9;31mtwo\x1b[0m pills"
    )


def test_a_terminal_shows_the_line_breaks_of_the_prompt() -> None:
    words = split("Say:\n- one\n\n- two")
    kept = np.array([True, True, False, True, True])
    assert render_ansi(words, kept) == "Say:\n- \x1b[9;31mone\x1b[0m\n\n- two"


def test_a_picture_has_a_line_for_each_line_of_the_prompt() -> None:
    one, three, four = (render_rgb(split(text), np.ones(3, bool)) for text in ("a b c", "a\nb\nc", "a\nb\n\nc"))
    assert [len(image) - len(one) for image in (three, four)] == [2 * 28, 3 * 28]


def test_words_that_nothing_separates_touch_each_other() -> None:
    apart, together = (render_rgb([Word("血", space), Word("糖", "")], np.array([True, True])) for space in (" ", ""))
    widths = [int(np.ptp(np.nonzero(_ink(image[:60]).any(0))[0])) for image in (apart, together)]
    assert widths[1] < widths[0]


def test_slots_beyond_the_prompt_are_not_shown() -> None:
    kept = np.array([True, False, False, False])
    assert render_ansi(_words("take", "two"), kept) == "take \x1b[9;31mtwo\x1b[0m"
    np.testing.assert_array_equal(render_rgb(_words("take", "two"), kept), render_rgb(_words("take", "two"), kept[:2]))


def test_a_terminal_shows_reply_and_score_at_the_end() -> None:
    shown = render_ansi(_words("take", "two"), np.array([True, True]), {**SCORES, "reply": "Rest.\nDrink."})
    assert shown == "take two\n\nReply: Rest. Drink.\nScore 0.6412 -> 0.6630 (+0.0218)"


def test_a_terminal_shows_the_score_alone_where_there_are_no_texts() -> None:
    shown = render_ansi(_words("take", "two"), np.array([True, True]), {"initial_score": 0.5, "score": 0.25})
    assert shown == "take two\n\nScore 0.5000 -> 0.2500 (-0.2500)"


def test_a_terminal_says_why_there_is_no_reply() -> None:
    shown = render_ansi(_words("take", "two"), np.array([True, True]), {"llm_error": "timed out"})
    assert shown == "take two\n\nNo reply: timed out"


@pytest.mark.parametrize("harm", ["\x1b[2J", "\x07", "\x9b31m", "\u202e", "\ud800"])
@pytest.mark.parametrize("place", ["word", "deleted", "reply", "llm_error"])
def test_a_terminal_is_given_nothing_to_obey(harm: str, place: str) -> None:
    words = _words(f"a{harm}" if place in ("word", "deleted") else "a")
    final = {place: f"a{harm}"} if place == "llm_error" else {**SCORES, "reply": f"a{harm}" if place == "reply" else ""}
    shown = render_ansi(words, np.array([place != "deleted"]), final)
    text = shown.replace("\x1b[9;31m", "").replace("\x1b[0m", "").replace("\n", "")
    assert text.isprintable()
    assert f"a\ufffd{harm[1:]}" in text
