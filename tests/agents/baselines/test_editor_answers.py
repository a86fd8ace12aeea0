"""The numbers in a language model's answer are read whatever stands around them, and what is ignored is counted."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.baselines.editor_answers import INSTRUCTIONS, Example, question, read_answer

#: Words 0 to 9; 4 must stay.
LEGAL = np.array([slot != 4 for slot in range(10)])


@pytest.mark.parametrize(
    ("text", "slots"),
    [
        ("3, 5, 8", (3, 5, 8)),
        ("8,3,5", (8, 3, 5)),  # the order of the answer
        ("[3, 5]", (3, 5)),
        ('{"delete": [3, 5]}', (3, 5)),
        ("Delete: 3 and 5.", (3, 5)),
        ("- 3\n- 5", (3, 5)),
        ("-3\n-5", (3, 5)),
        ("3:the 5:of", (3, 5)),
        ("3、5。", (3, 5)),
        ("删除第3和5个", (3, 5)),
        ("7:12 1:3.5 0:HbA1c", (7, 1, 0)),  # the words 12, 3.5 and HbA1c are no numbers of words
        ("2.5 mg, v2, 3x, x_3", ()),
        ("5-7", (5, 6, 7)),
        ("7-5", ()),
        ("none", ()),
        ("", ()),
    ],
)
def test_numbers_are_read_from_any_form_of_list(text: str, slots: tuple[int, ...]) -> None:
    assert read_answer(text, LEGAL, 10).slots == slots


@pytest.mark.parametrize(
    ("text", "slots", "counts"),
    [
        ("0, 1, 2", (0, 1, 2), {}),
        ("0, 1", (0, 1), {"fewer": 1}),
        ("0, 0, 1, 1, 2", (0, 1, 2), {"repeated": 2}),
        ("0, 10, 99, 1, 2", (0, 1, 2), {"not_deletable": 2}),
        ("4, 0, 1, 2", (0, 1, 2), {"not_deletable": 1}),
        ("0, 1, 2, 3, 5", (0, 1, 2), {"over_budget": 2}),
        ("8-1000000000000000000000, 0", (8, 9, 0), {"not_deletable": 1}),
        ("9" * 5_000, (), {"not_deletable": 1, "fewer": 1}),
        ("None of them.", (), {"fewer": 1}),
        ("[ ]", (), {"fewer": 1}),
        ("I cannot help with that.", (), {"unreadable": 1, "fewer": 1}),
    ],
)
def test_what_is_ignored_is_counted(text: str, slots: tuple[int, ...], counts: dict[str, int]) -> None:
    assert read_answer(text, LEGAL, 3) == (slots, Counter(counts))


@given(st.text(alphabet="0123456789-–,.: \nanoe[]", max_size=60), st.integers(0, 12))
def test_no_answer_deletes_what_must_stay_or_more_than_the_budget(text: str, n_edits: int) -> None:
    slots, counts = read_answer(text, LEGAL, n_edits)
    assert len(slots) <= n_edits
    assert len(set(slots)) == len(slots)
    assert all(0 <= slot < 10 and slot != 4 for slot in slots)
    assert (counts["fewer"] == 1) == (len(slots) < min(n_edits, 9))


@given(st.lists(st.integers(0, 9), unique=True, max_size=10))
def test_a_plain_list_is_read_as_it_was_written(numbers: list[int]) -> None:
    text = ", ".join(map(str, numbers)) or "none"
    assert read_answer(text, np.ones(10, dtype=bool), 10).slots == tuple(numbers)


def test_a_question_shows_the_examples_with_their_answers_before_the_prompt() -> None:
    asked = question("self: 0:Rest 1:now", 1, [Example("self: 0:Go 1:home", (1,)), Example("self: 0:Eat", (0,))])
    assert asked.split("\n\n") == [
        INSTRUCTIONS,
        "Example 1:\nself: 0:Go 1:home\nAnswer: 1",
        "Example 2:\nself: 0:Eat\nAnswer: 0",
        "The prompt to improve:\nself: 0:Rest 1:now",
        "Delete at most 1 words. The numbers, or none:",
    ]
