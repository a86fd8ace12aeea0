"""The rule-based responder: which words of a prompt decide its reply."""

from __future__ import annotations

import pickle

import pytest

from pmlm_env.cohort.schema import LABELS, named_labels
from pmlm_env.llm.base import LLM
from pmlm_env.llm.responder import Responder

PROMPT = (
    "Give a brief medical diagnosis and a recommendation. The predicted condition is gestational diabetes. "
    "Similar patients: 6 of 10 had gestational diabetes, 4 of 10 had thalassemia."
)


def reply(prompt: str) -> str:
    return Responder().generate([prompt])[0].text


def without(prompt: str, *deleted: str) -> str:
    return " ".join(word for word in prompt.split() if word.strip(".,;:") not in deleted)


def test_it_is_an_llm_that_pickles() -> None:
    assert isinstance(pickle.loads(pickle.dumps(Responder())), LLM)
    assert Responder().identity == "responder:v1"


@pytest.mark.parametrize("label", [label.name for label in LABELS])
def test_it_names_and_advises_on_each_of_the_papers_labels(label: str) -> None:
    text = reply(f"diagnosis and advice: the condition is {label}")
    assert named_labels(text) == {label}
    assert text != reply("diagnosis and advice: the condition is")
    assert "Recommendation: " in text


def test_the_heavier_evidence_wins_over_the_first() -> None:
    assert named_labels(reply("Predicted: thalassemia. Similar: 9 of 10 had GDM.")) == {"gestational diabetes"}


def test_counts_weigh_as_shares() -> None:
    assert named_labels(reply("4 of 4 had GDM, 30 of 100 had thalassemia")) == {"gestational diabetes"}


def test_counts_may_come_after() -> None:
    assert named_labels(reply("thalassemia: 2, GDM: 8")) == {"gestational diabetes"}
    assert named_labels(reply("thalassemia (2 of 10), GDM (8 of 10)")) == {"gestational diabetes"}


def test_without_counts_mentions_add_up_and_the_first_weighs_four() -> None:
    assert named_labels(reply("thalassemia, GDM")) == {"thalassemia"}
    assert named_labels(reply("thalassemia" + ", GDM" * 9)) == {"gestational diabetes"}


def test_of_equals_the_earlier_wins() -> None:
    assert reply("diagnosis: 5 of 10 thalassemia, 5 of 10 GDM").startswith("Discharge diagnosis: thalassemia.")
    assert reply("diagnosis: 5 of 10 GDM, 5 of 10 thalassemia").startswith("Discharge diagnosis: gestational diabetes.")


def test_a_near_rival_is_named_too_and_a_far_one_is_not() -> None:
    assert "Also consider thalassemia." in reply("6 of 10 GDM, 3 of 10 thalassemia")
    assert "thalassemia" not in reply("7 of 10 GDM, 3 of 10 thalassemia")


def test_a_denied_condition_weighs_nothing() -> None:
    assert named_labels(reply("GDM was ruled out. Perhaps thalassemia.")) == {"thalassemia"}


def test_deleting_a_near_rival_helps() -> None:
    prompt = "Predicted: gestational diabetes. Similar patients: 3 of 10 had thalassemia."
    assert named_labels(reply(prompt)) == {"gestational diabetes", "thalassemia"}
    assert named_labels(reply(without(prompt, "thalassemia"))) == {"gestational diabetes"}


def test_deleting_the_conditions_own_words_harms() -> None:
    assert named_labels(reply(without(PROMPT, "diabetes"))) == {"thalassemia"}


@pytest.mark.parametrize(
    ("word", "lost"),
    [
        ("diagnosis", "Discharge diagnosis:"),
        ("recommendation", "Monitor fasting"),
        ("medical", "follow-up in one week"),
    ],
)
def test_a_marker_word_brings_its_part_of_the_reply(word: str, lost: str) -> None:
    assert lost in reply(PROMPT)
    assert lost not in reply(without(PROMPT, word))


def test_brief_leaves_the_padding_out() -> None:
    assert len(reply(PROMPT)) + 100 < len(reply(without(PROMPT, "brief")))


def test_a_filler_word_changes_nothing() -> None:
    assert reply(without(PROMPT, "Give")) == reply(PROMPT)


@pytest.mark.parametrize("prompt", ["", " ", "\n", "gout", "妊娠", "0 of 0 GDM", "7 of", "((("])
def test_any_prompt_gets_a_reply(prompt: str) -> None:
    assert reply(prompt).strip()


def test_a_condition_that_is_not_the_papers_gets_a_reply_about_none() -> None:
    assert named_labels(reply("diagnosis and advice: gout, 9 of 10 had gout")) == set()


def test_batches_keep_order_and_neighbours_are_of_no_account() -> None:
    prompts = [PROMPT, "", "GDM"]
    replies = Responder().generate(prompts)
    assert [one.text for one in replies] == [reply(prompt) for prompt in prompts]


def test_tokens_are_words() -> None:
    (one,) = Responder().generate(["a b\nc"])
    assert (one.prompt_tokens, one.completion_tokens) == (3, len(one.text.split()))
    assert (one.finish_reason, one.cached) == ("stop", False)
