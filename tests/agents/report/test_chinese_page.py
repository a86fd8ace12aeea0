"""Replies to Chinese prompts are found in the cache by what is left of the prompt, which has no spaces."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agents.report.page.kept import _deleted_from_text
from pmlm_env.core.episodes import Episode
from pmlm_env.core.words import joined, split
from tests.agents.report.page_runs import edited

FOUND = split("的确的确诊断为妊娠期糖尿病。\n请写出院 诊断，诊断。", "zh", {"妊娠期糖尿病"})
WORDS, SPACES = tuple(word.text for word in FOUND), tuple(word.space for word in FOUND)
ROLES: Any = ("self",) * len(WORDS)
EPISODE = Episode("P1", "test", WORDS, ROLES, np.zeros(2, np.float32), "信", "正常", "正常", (), SPACES, "zh")
TRACE = edited(EPISODE, (), "agent", "好", 0.6)


def left(deleted: Any) -> str:
    return joined(WORDS, SPACES, [slot not in deleted for slot in range(len(WORDS))])


@given(st.sets(st.integers(0, len(WORDS) - 1)))
def test_the_slots_that_are_found_leave_the_same_prompt(deleted: set[int]) -> None:
    found = _deleted_from_text(TRACE, left(deleted))
    assert found is not None
    assert left(found) == left(deleted)


def test_another_prompt_is_not_left_by_deletions() -> None:
    assert _deleted_from_text(TRACE, "诊断为正常") is None
    assert _deleted_from_text(TRACE, left(()) + "好") is None
