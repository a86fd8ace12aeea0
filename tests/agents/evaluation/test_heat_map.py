"""Heat map of where prompts are edited, compared with manual counts."""

from __future__ import annotations

from dataclasses import replace

from agents.evaluation.heat_map import edit_counts, slot_counts
from pmlm_env.core.edits import deletions
from tests.agents.evaluation.made_up import EPISODE, make_trace


def test_each_edit_counts_at_its_step_and_slot() -> None:
    longer = replace(EPISODE, words=(*EPISODE.words, "please."), roles=(*EPISODE.roles, "instruction"))
    traces = [
        make_trace(edits=deletions(EPISODE, (3, 0, 1))),
        make_trace(edits=deletions(EPISODE, (3, 1))),
        make_trace(edits=()),
        make_trace(longer, edits=deletions(longer, (5, 0))),
    ]
    assert edit_counts(traces).tolist() == [
        [0, 0, 0, 2, 0, 1],
        [2, 1, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0],
    ]


def test_of_no_traces_there_is_nothing_to_count() -> None:
    assert edit_counts([]).shape == (0, 0)
    assert edit_counts([make_trace(edits=())]).shape == (0, 5)


def test_slots_after_the_last_one_are_not_counted() -> None:
    assert slot_counts([[3, 0], [0, 1, 0]], 2).tolist() == [[1, 0], [1, 1], [1, 0]]
