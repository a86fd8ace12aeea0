"""The templates of prompts that ask for a label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pmlm_env.cohort import Schema
from pmlm_env.prompting.prediction import PREDICTION_TEMPLATES, PredictionPrompt
from tests.schemas import SCHEMA

OF_ANYBODY = replace(SCHEMA, templates="general")


BOTH = pytest.mark.parametrize("schema", [SCHEMA, OF_ANYBODY], ids=["obstetric", "general"])


@BOTH
def test_the_default_template_has_task_history_and_labels(schema: Schema) -> None:
    lines = PredictionPrompt.load("predict", schema).fill("HISTORY", "LEVELS", ["gout", "no disease"]).split("\n")
    assert lines[1:] == [
        "HISTORY",
        "LEVELS",
        "Choose one of these conditions, and write nothing else: gout; no disease.",
    ]
    assert lines[0].startswith("Name the condition of a p")


@BOTH
def test_the_short_template_has_neither_values_nor_labels(schema: Schema) -> None:
    prompt = PredictionPrompt.load("predict-short", schema).fill("HISTORY", "LEVELS", ["gout"])
    assert "compared with other patients. LEVELS Name" in prompt
    assert "HISTORY" not in prompt
    assert "gout" not in prompt


@BOTH
@pytest.mark.parametrize("name", PREDICTION_TEMPLATES)
def test_every_built_in_template_exists_for_both_families(name: str, schema: Schema) -> None:
    assert PredictionPrompt.load(name, schema).text


def test_a_file_of_ones_own_is_read_and_its_text_makes_the_same_prompts(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("# mine\nself: Values: {history}\\nMore: {{x}}\ninstruction: {labels}?\n")
    own = PredictionPrompt.load(tmp_path / "own.txt", SCHEMA)
    assert own.fill("a {labels}\nb", "-", ["x", "y"]) == "Values: a {labels}\nb\nMore: {x} x; y?"
    assert PredictionPrompt(own.text, "saved").fill("h", "l", ["x"]) == own.fill("h", "l", ["x"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("self: {predicted} {history}", r"line 1: it has a field that cannot be filled: use {history}, {levels}, {la"),
        ("self: {history:3}", "line 1: it has a field that cannot be filled"),
        ("self: {history.x}", "line 1: it has a field that cannot be filled"),
        ("self: {history", "line 1: expected '}' before end of string: write {{ and }} for literal braces"),
        ("instruction: {labels}", "has neither {history} nor {levels}: add one"),
        ("question: {history}", "line 1: .* must begin with one of"),
        ("self: {history}\u202e", "contains an invisible character"),
        ("", "has no parts"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PredictionPrompt(text, "mine")


def test_a_template_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no template 'paper': use predict, predict-short or a file"):
        PredictionPrompt.load("paper", SCHEMA)
    with pytest.raises(ValueError, match="there are no built-in templates in the schema's language, 'de'"):
        PredictionPrompt.load("predict", replace(SCHEMA, language="de"))


@pytest.mark.parametrize("change", [{"language": "de"}, {"templates": "cardiac"}])
def test_where_there_is_no_built_in_template_the_predictors_own_option_is_named(change: dict[str, str]) -> None:
    option = r"""--predictor-kwargs '{"template": "FILE"}'"""
    with pytest.raises(ValueError, match=rf"give your own template file \({option}\)$"):
        PredictionPrompt.load("predict", replace(SCHEMA, **change))
