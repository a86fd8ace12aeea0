"""Chinese prompts: every built-in template is there, and says in Chinese what the English one says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pmlm_env.cohort import Cohort, Schema
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.core.words import split
from pmlm_env.prompting import TEMPLATES, InitialPrompt
from pmlm_env.prompting.history import History
from pmlm_env.prompting.prediction import PREDICTION_TEMPLATES, PredictionPrompt
from pmlm_env.prompting.value_slots import value_slots

LABEL, PEERS = "胎膜早破", ["胎膜早破"] * 6 + ["正常"] * 3 + ["急性胎儿窘迫（胎心型）"]


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return simulate_cohort(30, language="zh")


@pytest.mark.parametrize("family", ["obstetric", "general"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_is_filled_in_chinese_alone(template: str, family: str, cohort: Cohort) -> None:
    schema = replace(cohort.schema, templates=family)
    for patient in cohort:
        prompt = InitialPrompt(template, schema=schema).fill(
            LABEL, PEERS, {LABEL: 0.7, "正常": 0.2}, patient, [0.9] * 10
        )
        assert prompt.language == "zh"
        assert " " not in prompt.text
        assert not any(name in prompt.text for name in ("_", "check-up", "had", "None", "{", "unknown"))
        if template != "raw":
            assert any(LABEL in word for word in prompt.texts)
        assert [*prompt.roles] == sorted(prompt.roles, key=["background", "self", "peer", "instruction"].index)


def test_the_families_name_the_same_fields() -> None:
    for template in TEMPLATES:
        filled = [
            InitialPrompt(template, schema=replace(Schema.load(name), templates=family)).text
            for name in ("obstetric", "obstetric-zh")
            for family in ("obstetric", "general")
        ]
        fields = [sorted(part.split("}")[0] for part in text.split("{")[1:]) for text in filled]
        assert fields[0] == fields[1] == fields[2] == fields[3]


def test_the_default_prompt() -> None:
    prompt = InitialPrompt(schema=Schema.load("obstetric-zh")).fill(LABEL, PEERS)
    start = "一名孕产妇今日出院。其化验结果提示胎膜早破。10例相似的既往患者中，6例为胎膜早破，3例为正常，"
    assert prompt.text.startswith(f"{start}1例为急性胎儿窘迫（胎心型）。请以其产科医生的身份")
    assert 60 <= len(prompt.words) <= 80


def test_words_of_one_part_do_not_run_into_the_next(tmp_path, cohort: Cohort) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "t.txt").write_text("self: 提示妊娠\npeer: 期糖尿病\\n\ninstruction: 请写", encoding="utf-8")
    prompt = InitialPrompt(tmp_path / "t.txt", schema=cohort.schema).fill(LABEL, PEERS)
    assert prompt.text == "提示妊娠期糖尿病\n请写"
    assert "妊娠期" not in prompt.texts
    assert prompt.roles[-1] == "instruction"


def test_values_are_written_as_a_laboratory_does(cohort: Cohort) -> None:
    patient, schema = cohort[0], cohort.schema
    values = np.full((2, 35), np.nan)
    for name, value in (("hgb", 88.0), ("wbc", 18.55), ("pH", 7.4)):
        values[-1, schema.index(name)] = value
    patient = replace(patient, values=values, dates=np.array(["2021-01-01", "2021-01-04"], "datetime64[D]"))
    prompt = InitialPrompt("personal", schema=schema).fill(LABEL, PEERS, {LABEL: 1.0}, patient, [0.9] * 10)
    assert "：白细胞18.55×10^9/L（偏高），血红蛋白88g/L（偏低），血液酸碱度7.4。" in prompt.text
    assert "胎膜早破（100%）" in prompt.text
    words = prompt.texts
    assert [words[i] for i in value_slots(words, patient, schema, ["hgb"])] == ["血红蛋白", "88g/L", "（偏低），"]
    raw = InitialPrompt("raw", schema=schema).fill(LABEL, PEERS, None, patient).text
    assert "最近一次检查：血液酸碱度7.4，白细胞18.55×10^9/L，血红蛋白88g/L。最近一次检查前3天：未检测。" in raw


@pytest.mark.parametrize("template", PREDICTION_TEMPLATES)
def test_prompts_of_predictors(template: str, cohort: Cohort) -> None:
    prompt = PredictionPrompt.load(template, cohort.schema)
    patient = max(cohort, key=lambda each: len(each.dates))
    deviations = np.where(np.isnan(patient.values), np.nan, 1.0)
    history = History(patient, cohort.schema.indicators, deviations, prompt.words)
    labels = [label.name for label in cohort.schema.labels]
    text = prompt.fill(history.text(1), history.levels(3), labels)
    assert "偏高：" in text
    assert "另有" in text
    if template == "predict":
        assert "此前" in text
        assert "；".join(labels) in text
        assert "rising" not in text
    assert not any(word in text for word in ("check-up", "high", "_", "{"))


def test_trends_in_chinese(cohort: Cohort) -> None:
    values = np.full((3, 35), np.nan)
    values[:, 32] = 120, 100, 90
    values[:2, 0], values[0, 1] = 7.4, 30
    dates = np.array(["2021-01-01", "2021-01-04", "2021-01-05"], "datetime64[D]")
    patient = replace(cohort[0], values=values, dates=dates)
    words = PredictionPrompt.load("predict", cohort.schema).words
    deviations = np.where(np.isnan(values), np.nan, 0.0)
    deviations[:, 32] = 1, 0, -1
    text = History(patient, cohort.schema.indicators, deviations, words).text(1)
    assert text == (
        "最近一次检查：血红蛋白90g/L（偏低）。\n"
        "此前2次检查，从首次到末次：血液酸碱度由7.4至7.4，平稳，白蛋白仅一次30g/L，血红蛋白由120降至100（偏高）。"
    )


def test_labels_of_the_schema_stay_whole_in_columns_too(cohort: Cohort) -> None:
    assert [word.text for word in split("既往妊娠期糖尿病史", "zh", {"妊娠期糖尿病"})] == ["既往", "妊娠期糖尿病", "史"]
