from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmlm_env.llm.thoughts import without_thoughts

pytestmark = pytest.mark.once

THOUGHTS = "Maybe gestational diabetes.\n\nOr not."
REPLY = "Thalassemia. Rest."
MARKS = [
    ("<think>", "</think>"),
    ("<THINK>", "</Think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ('<think time="3">', "</think >"),
    ("<think >", "</think>"),
    ("<analysis kind=plan>", "</analysis>"),
    ("<|thinking|>", "<|/thinking|>"),
    ("\ufeff<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<unused94>thought", "<unused95>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("## Thinking\n\n", "\n\n## Final Response\n\n"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("<|start|>assistant<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("analysis", "assistantfinal"),
    ("<longcat_think>", "</longcat_think>"),
    ("<reasoning_content>", "</reasoning_content>"),
    ("<antThinking>", "</antThinking>"),
    ("<analysis>", "</analysis>"),
    ("<think>", "</thinking>"),
    ('<details type="reasoning" done="true">', "</details>"),
    ("<|channel>thought\n", "<channel|>"),
    ("Here is my thought process:\n", "Here is my response:\n"),
    ("Here are my reasoning steps:\n", "[BEGIN FINAL RESPONSE]\n"),
]


@pytest.mark.parametrize(("opening", "closing"), MARKS)
def test_the_reply_is_what_follows_the_thoughts(opening: str, closing: str) -> None:
    assert without_thoughts(f"\n{opening}{THOUGHTS}{closing}\n\n{REPLY}\n") == REPLY
    assert without_thoughts(f"{opening}{THOUGHTS}{closing}{REPLY}") == REPLY


@pytest.mark.parametrize(("opening", "closing"), MARKS)
def test_thoughts_that_the_prompt_opened_end_at_a_lone_closing_mark(opening: str, closing: str) -> None:
    assert without_thoughts(f"{THOUGHTS}{closing}{REPLY}") == REPLY


@pytest.mark.parametrize(("opening", "closing"), MARKS)
def test_there_is_no_reply_where_thoughts_are_all_there_is(opening: str, closing: str) -> None:
    assert without_thoughts(f"{opening}{THOUGHTS}{closing}\n") is None
    assert without_thoughts(f"{THOUGHTS}{closing}") is None
    assert without_thoughts(closing) is None


@pytest.mark.parametrize(("opening", "closing"), MARKS)
def test_there_is_no_reply_where_thoughts_have_no_end(opening: str, closing: str) -> None:
    assert without_thoughts(f" {opening}{THOUGHTS}") is None
    assert without_thoughts(f"{opening}{THOUGHTS}{closing} Draft.\n{opening}{THOUGHTS}") is None


@pytest.mark.parametrize(
    "text",
    [
        f"<think>a</think>\n<think>b</think>\n{REPLY}",
        f"<think>a</think><reasoning>b</reasoning>{REPLY}",
        f"<think>a <think> b </think> c </think>{REPLY}",
        f"<think>I close with </think> at last.</think>{REPLY}",
        f"<think>a <reasoning>b</reasoning> c</think>{REPLY}",
        f"I need no <think> here.\n</think>\n{REPLY}",
        f"Let me see. <think>a</think> {REPLY}",
        f'I need no "<think>" here. </think>{REPLY}',
        f"Draft: gestational diabetes.\n<think>No.</think>\n{REPLY}",
        f"<think></think>{REPLY}",
        f"<think>a</think>\n<answer>{REPLY}</answer>",
        f"<think>a</think>\n\n<response>\n{REPLY}\n</response>\n",
        f"<Thought>a</Thought>\n<Output>{REPLY}</Output>",
        f"<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>{REPLY}<|END_RESPONSE|>",
        f"<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary<|message|>b<|end|>"
        f"<|start|>assistant<|channel|>final<|message|>{REPLY}<|return|>",
        f"<|channel|>final <|constrain|>text<|message|>{REPLY}",
        f"analysisWe think.assistantcommentaryWe act.assistantfinal{REPLY}",
    ],
)
def test_it_is_the_last_closing_mark_that_counts(text: str) -> None:
    assert without_thoughts(text) == REPLY


@pytest.mark.parametrize(
    "text",
    [
        REPLY,
        "",
        "Analysis of the blood shows thalassemia.",
        "analysis of the blood shows thalassemia.",
        "I think `<think>` is a tag. Thalassemia.",
        "Her note says ## Thinking",
        "Close with `</think>`; open with “<think>”.",
        "The thinking </thinker> said.",
        "Reasoning: her ferritin is low.",
        "Reason: see <reason for visit> above.",
        "<Analysis of the blood> shows thalassemia.",
        "<thoughts on feeding>\nBreast milk.",
        "Her <reason> for it is unknown, as is the <analysis> of her <REFLECTION>.",
    ],
)
def test_a_mark_that_is_only_mentioned_is_part_of_the_reply(text: str) -> None:
    assert without_thoughts(text) == text


def test_thoughts_of_one_kind_are_not_closed_by_a_mark_of_another() -> None:
    assert without_thoughts("[THINK]First <reasoning>a</reasoning> then the rest") is None


@given(st.text(), st.text())
def test_any_thoughts_before_any_reply_without_marks_are_left_out(thoughts: str, reply: str) -> None:
    reply = without_thoughts(reply) or "Rest."
    if "<" not in reply + thoughts:
        assert without_thoughts(f"<think>{thoughts}</think>{reply}") == (reply.strip() or None)


@pytest.mark.parametrize(
    "part",
    ["<think>", "</think>", "a <think> </think>", " ", "<", "<think ", "<think =", "<think  ", "\n \n", "</think>  "],
)
def test_a_text_of_megabytes_is_read_once(part: str) -> None:
    without_thoughts("x" + part * (1_000_000 // len(part)) + "x")  # within the time limit of a test
