"""The table of refined prompts: what a row says, and that it fits the terminal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agents.serving.table import table
from pmlm_env.core.edits import deletions
from pmlm_env.core.traces import Trace, TracedPeer, TracedReply
from pmlm_env.io.text import display_width
from tests.standins import make_episodes

EPISODE = replace(make_episodes(1, n_words=4, n_marked=1)[0], words=("Say", "it", "in", "brief."), predicted="scar")


def trace(patient: str = "P0", **more: Any) -> Trace:
    peers = (*[TracedPeer("scar", "A", 0.9)] * 2, TracedPeer("normal", "B", 0.8))
    known = {"probabilities": {"normal": 0.124, "scar": 0.876}, "peers": peers, "error": "", "before": {}, "after": {}}
    fields = {"edits": deletions(EPISODE, (2, 0)), "prompt": "it brief.", "replies": (TracedReply("Rest.\nEat."),)}
    return Trace.of(
        replace(EPISODE, patient_id=patient),
        **{"run": "mine", "agent": "lexicon", "variant": "agent", "seed": 0, "initial_reply": "", "reference": ""}
        | {"reward": None, **known, **fields, **more},
    )


@pytest.fixture(autouse=True)
def width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def test_a_row_has_prediction_peers_deleted_words_in_their_order_and_the_reply() -> None:
    head, rule, row = table([trace()], with_replies=True).splitlines()
    assert head.split("  ")[0] == "patient"
    assert "peers (of 3)" in head
    assert set(rule) == {"-", " "}
    assert [cell for cell in map(str.strip, row.split("  ")) if cell] == [
        "P0", "scar 88%", "2 scar, 1 normal", "Say in", "Rest. Eat.",
    ]  # fmt: skip


def test_where_no_reply_was_asked_for_there_is_no_column_for_it() -> None:
    assert "reply" not in table([trace(replies=())], with_replies=False)


def test_a_missing_reply_says_why() -> None:
    assert "no reply: HTTP 400" in table([trace(replies=(), error="HTTP 400")], with_replies=True)


def test_a_prediction_whose_probability_is_not_known_stands_alone() -> None:
    assert "scar  " in table([trace(probabilities={})], with_replies=False).splitlines()[2]


@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_long_texts_are_wrapped_and_cut_at_the_width_of_the_terminal(
    monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    long = trace(replies=(TracedReply("A reply of many words. " * 99),), predicted="pregnancy with thalassemia " * 3)
    lines = table([long, trace("P1")], with_replies=True).splitlines()
    assert max(map(len, lines)) <= int(columns)
    assert lines[5].endswith(" ...")
    assert lines[6].startswith("P1")


def test_a_word_as_long_as_a_page_is_cut_too() -> None:
    lines = table([trace(replies=(TracedReply("x" * 5_000),))], with_replies=True).splitlines()
    assert max(map(len, lines)) <= 100
    assert len(lines) == 2 + 4


def test_of_many_patients_the_first_are_shown_and_the_others_counted() -> None:
    lines = table([trace(f"P{i}") for i in range(1_234)], with_replies=True).splitlines()
    assert lines[-1] == "... and 1,184 more"
    assert len(lines) == 2 + 50 + 1


def test_a_reply_cannot_drive_the_terminal_or_break_the_table() -> None:
    text = table([trace(replies=(TracedReply("\x1b[2J\rgone\n\u2028x"),))], with_replies=True)
    assert text.replace("\n", "").isprintable()
    assert len(text.splitlines()) == 3


CHINESE = "预测的诊断是妊娠期糖尿病\uff0c请控制饮食并按时复查。"


def test_wide_characters_take_two_columns() -> None:
    assert [display_width(text) for text in ("Ruhe", "糖尿病", "e\u0301", "\uff21\uff11", "한국", "")] == [
        4,
        6,
        1,
        4,
        4,
        0,
    ]


@pytest.mark.parametrize("columns", ["60", "81", "200"])
def test_chinese_texts_are_aligned_and_fit_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    traces = [trace("病人一", predicted="妊娠期糖尿病"), trace("P1", replies=(TracedReply(CHINESE * 20),)), trace("P2")]
    head, rule, *rows = table(traces, with_replies=True).splitlines()
    assert max(map(display_width, [head, rule, *rows])) <= int(columns)
    edges = [index for index, mark in enumerate(rule) if mark == " " and rule[index - 1 : index + 2] == "-  "]
    assert len(edges) == 4
    for row in rows:  # every column ends before the gap
        columns_of = "".join(mark + "_" * (display_width(mark) - 1) for mark in row).ljust(len(rule))
        assert all(columns_of[edge : edge + 2] == "  " for edge in edges), row
    assert any(row.endswith(" ...") for row in rows)


def test_a_chinese_reply_that_fits_is_whole() -> None:
    assert CHINESE in table([trace(replies=(TracedReply(CHINESE),))], with_replies=True)
