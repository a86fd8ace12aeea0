from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmlm_env.core.words import Prompt, Word, joined, single_spaces, split


@given(st.text())
def test_a_text_is_exactly_what_its_words_join_to(text: str) -> None:
    words = split(text)
    assert [word.text for word in words] == text.split()
    assert "".join(word.text + word.space for word in words) == text.strip()
    assert joined([word.text for word in words], [word.space for word in words]) == text.strip()


def test_what_separates_words_is_what_python_takes_for_white_space() -> None:
    text = "".join(f"x{chr(code)}" for code in range(sys.maxunicode + 1) if chr(code).isspace()) + "x"
    assert [word.text for word in split(text)] == text.split()


@pytest.mark.parametrize(
    ("gone", "left"),
    [
        ((), "Advice:\n- rest\n\n- drink  tea"),
        ((0,), "- rest\n\n- drink  tea"),
        ((1,), "Advice:\nrest\n\n- drink  tea"),
        ((2,), "Advice:\n- - drink  tea"),
        ((4,), "Advice:\n- rest\n\n- tea"),
        ((5,), "Advice:\n- rest\n\n- drink"),
        ((4, 5), "Advice:\n- rest\n\n-"),
        ((0, 1, 2, 3, 4, 5), ""),
    ],
)
def test_a_deleted_word_takes_the_space_after_it_along(gone: tuple[int, ...], left: str) -> None:
    words = split("Advice:\n- rest\n\n- drink  tea")
    kept = [slot not in gone for slot in range(6)]
    assert joined([word.text for word in words], [word.space for word in words], kept) == left


def test_no_spaces_at_all_stand_for_single_ones() -> None:
    words = ("one", "two", "three")
    assert joined(words) == joined(words, single_spaces(3)) == "one two three"
    assert joined(words, (), [True, False, True]) == "one three"


def test_words_of_a_language_without_spaces_join_without_any() -> None:
    words = (Word("请", ""), Word("注意", ""), Word("休息。", ""))
    assert Prompt(words, ("instruction",) * 3, "zh").text == "请注意休息。"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the prompt has no words"),
        ((Word("two words", ""),), "slot 0 holds 'two words', which is not one word"),
        ((Word("a", "-"), Word("b", "")), "slot 0 is followed by '-', which is not white space"),
        ((Word("a", "\n"),), r"'\\n' follows the last word: leave it out"),
    ],
)
def test_a_prompt_that_cannot_be_is_refused(words: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Prompt(words, ("self",) * len(words))
