"""Words of Chinese texts: they join to exactly the same text, and what belongs together stays together."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmlm_env.core.edits import EditBatch, EditRules
from pmlm_env.core.episodes import Episode, EpisodeSet
from pmlm_env.core.languages import is_chinese, language_of, n_words
from pmlm_env.core.words import joined, split

LABELS = ("妊娠期糖尿病", "急性胎儿窘迫（胎心型）", "妊娠合并甲状腺功能减退")


def words(text: str, whole: tuple[str, ...] = LABELS) -> list[str]:
    return [word.text for word in split(text, "zh", whole)]


@given(
    st.one_of(
        st.text(),
        st.text(st.sampled_from("一名孕妇今日出院，。；：（）“”血红蛋白88.5g/L 37+2周次/分孕2产1GDM\n\u3000々α×")),
    ),
    st.sets(st.sampled_from(["孕妇", "血红蛋白（", "GDM", "次/分", "出院，", "今日"])),
)
def test_a_chinese_text_is_exactly_what_its_words_join_to(text: str, whole: set[str]) -> None:
    found = split(text, "zh", whole)
    assert joined([word.text for word in found], [word.space for word in found]) == text.strip()
    assert all(word.text.split() == [word.text] for word in found)


@given(st.text(st.sampled_from("孕妇出院血糖。，、"), min_size=1), st.sampled_from(LABELS))
def test_a_label_is_never_split(text: str, label: str) -> None:
    assert any(label in word for word in words(f"{text}{label}{text}"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("一名孕妇今日出院。", ["一名", "孕妇", "今日", "出院。"]),
        ("诊断为妊娠期糖尿病，", ["诊断", "为", "妊娠期糖尿病，"]),
        ("血红蛋白88g/L，", ["血红蛋白", "88g/L，"]),
        ("白细胞13.8×10^9/L（偏高）", ["白细胞", "13.8×10^9/L", "（偏高）"]),
        ("孕37+2周，孕2产1", ["孕", "37+2周，", "孕2产1"]),
        ("胎心98次/分", ["胎心", "98次/分"]),
        ("10例患者中，6例为正常", ["10例", "患者", "中，", "6例", "为", "正常"]),
        ("妊娠期糖尿病（GDM）。", ["妊娠期糖尿病", "（GDM）。"]),
        ("血压 120/80 mmHg", ["血压", "120/80", "mmHg"]),
        ("以“出院诊断：”开头", ["以", "“出院", "诊断：”", "开头"]),
        ("No fever today", ["No", "fever", "today"]),
        ("，。", ["，。"]),
    ],
)
def test_words_numbers_units_and_labels(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_other_languages_are_split_at_white_space_alone() -> None:
    assert [word.text for word in split("今日出院。 Rest", "en", LABELS)] == ["今日出院。", "Rest"]
    assert [word.text for word in split("今日出院。", "ja")] == ["今日出院。"]


@pytest.mark.parametrize(("tag", "chinese"), [("zh", True), ("zh-Hant-TW", True), ("ZH-CN", True), ("en", False)])
def test_the_primary_tag_says_which_language(tag: str, chinese: bool) -> None:
    assert is_chinese(tag) is chinese


@pytest.mark.parametrize(
    ("text", "language"), [("妊娠期糖尿病（GDM）", "zh"), ("Rest. 休息", "en"), ("", "en"), ("12", "en")]
)
def test_the_language_of_a_text(text: str, language: str) -> None:
    assert language_of(text) == language


def test_a_chinese_character_counts_as_a_word() -> None:
    assert n_words("请注意休息 and rest 3 days") == 5 + 4


def test_without_the_package_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = builtins.__import__

    def without(name: str, *more: Any, **options: Any) -> Any:
        if name == "rjieba":
            raise ImportError(name)
        return usual(name, *more, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ValueError, match=r"^Chinese words need rjieba: install it with `pip install 'pmlm-env\[zh\]'`$"
    ):
        words("今日出院")


def episode(text: str) -> Episode:
    found = split(text, "zh", LABELS)
    texts, spaces = tuple(word.text for word in found), tuple(word.space for word in found)
    roles: Any = ("instruction",) * len(found)
    return Episode("P0", "train", texts, roles, np.zeros(2, np.float32), "x", "", "", (), spaces, "zh")


def test_deleting_one_word_of_a_chinese_prompt_leaves_the_rest_as_it_is() -> None:
    episodes = EpisodeSet([episode("一名孕妇今日出院。\n请写出院诊断。")])
    batch = EditBatch(episodes, 1, EditRules(2))
    batch.load([0], [0])
    batch.apply([1])
    assert batch.prompts([0])[0] == "一名今日出院。\n请写出院诊断。"
    batch.apply([3])
    assert batch.prompts([0])[0] == "一名今日请写出院诊断。"


@pytest.mark.parametrize(
    ("text", "protected"),
    [
        ("患者无发热。", ["无"]),
        ("未见异常，不支持感染", ["未见异常，", "不"]),
        ("否认糖尿病", ["否认"]),
        ("已排除感染", ["排除"]),
        ("无论如何不断复查，不仅休息", []),
        ("筛查阴性，没有出血", ["阴性，", "没有"]),
        ("切勿劳累，並非感染", ["切勿", "並非"]),
    ],
)
def test_negations_of_chinese_prompts_can_be_protected(text: str, protected: list[str]) -> None:
    made = episode(text)
    batch = EditBatch(EpisodeSet([made]), 1, EditRules(3, protect=("negations",)))
    batch.load([0], [0])
    legal = batch.legal[0, : len(made.words)].tolist()
    assert [word for word, may_go in zip(made.words, legal, strict=True) if not may_go] == protected
