"""The rule-based responder: which words of a prompt decide its reply."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from pmlm_env.cohort import Indicator, Schema
from pmlm_env.cohort.naming import labels as naming
from pmlm_env.core.labels import Label
from pmlm_env.llm.base import LLM
from pmlm_env.llm.responder import MAX_TOKENS, Responder
from tests.schemas import LABELS, SCHEMA

OF_MEN = Schema(
    (Indicator("urate"),),
    (Label("well", ("nothing was found",), no_finding=True), Label("gout", ("podagra",)), Label("anemia")),
)
PROMPT = (
    "Give a brief medical diagnosis and a recommendation. The predicted condition is gestational diabetes. "
    "Similar patients: 6 of 10 had gestational diabetes, 4 of 10 had thalassemia."
)


def reply(prompt: str) -> str:
    return Responder().generate([prompt])[0].text


def named_labels(text: str) -> set[str]:
    return naming.named_labels(text, LABELS)


def reply_to_men(prompt: str) -> str:
    return Responder(OF_MEN).generate([prompt])[0].text


def without(prompt: str, *deleted: str) -> str:
    return " ".join(word for word in prompt.split() if word.strip(".,;:") not in deleted)


def test_it_is_an_llm_that_pickles() -> None:
    assert isinstance(pickle.loads(pickle.dumps(Responder())), LLM)
    copy = pickle.loads(pickle.dumps(Responder(OF_MEN)))
    assert copy.generate([PROMPT, "gout"]) == Responder(OF_MEN).generate([PROMPT, "gout"])
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


#: Replies of the first version, word for word: cached replies and committed figures hang on them.
FIRST = {
    PROMPT: "Discharge diagnosis: gestational diabetes. Recommendation: Follow a diabetic diet and walk after meals. "
    "Monitor fasting and post-meal glucose. Return to the obstetric clinic for follow-up in one week.",
    "advice: normal, thalassemia: 3": "Perhaps: normal pregnancy. Also consider thalassemia. Recommendation: Keep a "
    "balanced diet and regular gentle exercise. Continue routine antenatal visits. Pregnancy is a special time that "
    "brings many changes to body and mind. There are many possible causes of abnormal tests, such as diet, stress and "
    "lack of sleep. This information does not replace a doctor's visit.",
    "": "Perhaps: not clear from what is given. Rest well and eat regularly. Come back if anything changes. Pregnancy "
    "is a special time that brings many changes to body and mind. There are many possible causes of abnormal tests, "
    "such as diet, stress and lack of sleep. This information does not replace a doctor's visit.",
}


@pytest.mark.parametrize("prompt", FIRST)
def test_obstetric_replies_are_those_of_the_first_version(prompt: str) -> None:
    assert reply(prompt) == FIRST[prompt]
    assert Responder(SCHEMA).generate([prompt])[0].text == FIRST[prompt]


def test_the_labels_of_another_schema_are_named_and_the_obstetric_ones_are_not() -> None:
    text = reply_to_men("diagnosis: GDM, 7 of 10 had podagra, 4 of 10 had anemia, 9 of 10 had thalassemia")
    assert text.startswith("Discharge diagnosis: gout. Also consider anemia.")
    assert "thalassemia" not in text


def test_a_label_without_a_finding_is_said_so_that_a_reply_names_it() -> None:
    text = reply_to_men("The patient is well.")
    assert text.startswith("Perhaps: nothing was found.")
    assert naming.named_labels(text, OF_MEN.labels) == {"well"}


@pytest.mark.parametrize("condition", ["gout", "well", ""])
def test_a_reply_about_other_patients_has_no_word_about_pregnancy(condition: str) -> None:
    text = reply_to_men(f"Give a medical diagnosis and advice: {condition}").lower()
    assert "recommendation: take medicines" in text or not condition
    assert "clinic for follow-up" in text
    assert not [word for word in ("pregnan", "obstetric", "antenatal", "woman", "birth") if word in text]


def test_other_labels_and_other_advice_are_another_llm() -> None:
    others = [
        OF_MEN,
        Schema(OF_MEN.indicators, OF_MEN.labels[:2]),
        Schema(OF_MEN.indicators, LABELS),
        Schema(OF_MEN.indicators, OF_MEN.labels, templates="obstetric"),
    ]
    identities = [Responder(schema).identity for schema in others]
    assert len({"responder:v1", *identities}) == 5
    assert Responder(Schema((Indicator("glucose"),), OF_MEN.labels)).identity == identities[0]
    assert Responder(Schema(OF_MEN.indicators, LABELS, templates="obstetric")).identity == "responder:v1"


# In Chinese

ZH = Schema.load("obstetric-zh")
CHINESE_PROMPT = (
    "请以其产科医生的身份写出院诊断，再写简短的建议。其化验结果提示妊娠期糖尿病。"
    "10例相似的既往患者中，6例为妊娠期糖尿病，4例为地中海贫血。"
)


def reply_in_chinese(prompt: str) -> str:
    return Responder(ZH).generate([prompt])[0].text


@pytest.mark.parametrize("label", [label.name for label in ZH.labels])
def test_a_chinese_reply_has_no_word_of_english_and_names_and_advises_on_each_label(label: str) -> None:
    text = reply_in_chinese(f"请写出诊断和医嘱：{label}")
    assert naming.named_labels(text, ZH.labels, "zh") == {label}
    assert text.startswith("出院诊断：")
    assert "建议：" in text
    assert "遵医嘱用药；四周" not in text
    assert not [sign for sign in text if "a" <= sign.lower() <= "z"]


@pytest.mark.parametrize(
    ("word", "part"), [("诊断", "出院诊断："), ("建议", "建议：糖尿病饮食"), ("医生", "复诊"), ("简短", "")]
)
def test_chinese_words_bring_their_part_of_the_reply(word: str, part: str) -> None:
    assert part in reply_in_chinese(CHINESE_PROMPT)
    shorter = reply_in_chinese(CHINESE_PROMPT.replace(word, ""))
    assert part not in shorter if part else "不能代替就诊" in shorter


def test_counts_of_chinese_peers_weigh() -> None:
    assert "地中海贫血" not in reply_in_chinese(CHINESE_PROMPT)
    assert "另需考虑地中海贫血" in reply_in_chinese(CHINESE_PROMPT.replace("6例", "4例"))
    assert reply_in_chinese("诊断：提示地中海贫血，9例为GDM").startswith("出院诊断：妊娠期糖尿病。")
    assert reply_in_chinese("诊断：未见地中海贫血，考虑GDM").startswith("出院诊断：妊娠期糖尿病。")


@pytest.mark.parametrize("prompt", ["", "妊娠", "thalassemia", "0例为GDM"])
def test_any_chinese_prompt_gets_a_reply_within_the_limit(prompt: str) -> None:
    (found,) = Responder(ZH).generate([prompt])
    assert 0 < found.completion_tokens < MAX_TOKENS
    longest = Responder(ZH).generate(
        ["诊断和建议，医生：" + "，".join(f"5例为{label.name}" for label in ZH.labels[4:6])]
    )
    assert longest[0].completion_tokens < MAX_TOKENS


def test_the_language_is_a_part_of_the_identity() -> None:
    english = replace(ZH, language="en")
    assert Responder(ZH).identity != Responder(english).identity
    assert Responder(english).generate(["x"])[0].text.startswith("Perhaps")
