"""The templates that come with the package."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from pmlm_env.cohort import Cohort, Schema
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.envs.lite import lite_episodes
from pmlm_env.prompting import TEMPLATES, InitialPrompt, PeerForm
from tests.schemas import SCHEMA

OF_ANYBODY = replace(SCHEMA, templates="general")
BOTH = pytest.mark.parametrize("schema", [SCHEMA, OF_ANYBODY], ids=["obstetric", "general"])
PREDICTED = "gestational diabetes"
PEERS = ("thalassemia", "normal", "thalassemia", "uterine scar", "normal")

#: The first template of this project, word for word.
FIRST: Mapping[str, str] = {
    "background": "A pregnant woman leaves hospital today.",
    "self": "Her laboratory tests suggest {predicted}.",
    "peer": "Of {k} similar past patients, {peers}.",
    "instruction": "State the discharge diagnosis in one sentence, and then give her medical advice.",
}


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return simulate_cohort(12, seed=4)


def _filled(
    name: str, cohort: Cohort, peers: PeerForm = "counted", schema: Schema = SCHEMA
) -> tuple[str, dict[str, str]]:
    """The prompt of the first patient, whole and by role."""
    probabilities = {label.name: 0.03 for label in schema.labels} | {PREDICTED: 0.67}
    likeness = (0.93, 0.9, 0.85, 0.7, 0.655)
    prompt = InitialPrompt(name, peers, schema).fill(PREDICTED, PEERS, probabilities, cohort[0], likeness)
    by_role: dict[str, list[str]] = {}
    for word, role in zip(prompt.texts, prompt.roles, strict=True):
        by_role.setdefault(role, []).append(word)
    return prompt.text, {role: " ".join(part) for role, part in by_role.items()}


@BOTH
@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_is_filled_for_a_patient(name: str, cohort: Cohort, schema: Schema) -> None:
    prompt, by_role = _filled(name, cohort, schema=schema)
    assert not {"{", "}"} & set(prompt)
    assert {"background", "self", "instruction"} <= by_role.keys()
    assert (PREDICTED in by_role["self"]) == (name != "raw")
    assert ("peer" in by_role) == (name != "raw")


@BOTH
@pytest.mark.parametrize("name", TEMPLATES)
def test_no_template_needs_a_column_that_a_cohort_may_lack(name: str, schema: Schema) -> None:
    InitialPrompt(name, schema=schema).check_columns(())


@BOTH
@pytest.mark.parametrize("name", ["default", "short"])
def test_default_and_short_take_peers_as_they_are_told(name: str, cohort: Cohort, schema: Schema) -> None:
    counted, listed = (_filled(name, cohort, form, schema)[1]["peer"] for form in ("counted", "listed"))
    assert "2 of 5 had thalassemia, 2 of 5 had normal, 1 of 5 had uterine scar" in counted
    assert "; ".join(PEERS) in listed


@BOTH
def test_paper_is_long_and_lists_peers_whatever_is_said(cohort: Cohort, schema: Schema) -> None:
    counted, listed = (_filled("paper", cohort, peers, schema) for peers in ("counted", "listed"))
    assert counted == listed
    assert len(counted[0].split()) > 100
    assert "; ".join(PEERS) in counted[1]["peer"]


@BOTH
def test_raw_has_the_instruction_of_the_default_and_nothing_of_stages_1_and_2(cohort: Cohort, schema: Schema) -> None:
    prompt, by_role = _filled("raw", cohort, schema=schema)
    assert by_role["instruction"] == _filled("default", cohort, schema=schema)[1]["instruction"]
    assert not [label for label in (PREDICTED, *PEERS) if label in prompt]
    of_another = ("uterine rupture", ("uterine rupture",), {"uterine rupture": 1.0})
    assert InitialPrompt("raw", schema=schema).fill(*of_another, cohort[0]).text == prompt


@BOTH
def test_personal_is_the_default_with_values_probabilities_and_likeness(cohort: Cohort, schema: Schema) -> None:
    _, by_role = _filled("personal", cohort, schema=schema)
    _, usual = _filled("default", cohort, schema=schema)
    assert {role: by_role[role] for role in ("background", "instruction")} == {
        role: usual[role] for role in ("background", "instruction")
    }
    assert f"{PREDICTED} 67%. Latest values: " in by_role["self"]
    assert by_role["peer"].endswith(
        "thalassemia (0.93), normal (0.90), thalassemia (0.85), uterine scar (0.70), normal (0.66)."
    )
    assert InitialPrompt("personal", schema=schema).of_records == ("values",)


@BOTH
def test_personal_has_150_to_300_words_and_marks_some_values(schema: Schema) -> None:
    template = InitialPrompt("personal", schema=schema)
    peers, likeness = ("pregnancy complicated with hypothyroidism",) * 5 + ("normal",) * 5, (0.9,) * 10
    probabilities = {"normal": 0.4, "gestational diabetes": 0.4, "uterine scar": 0.2}
    prompts = [
        template.fill("normal", peers, probabilities, patient, likeness) for patient in simulate_cohort(40, seed=4)
    ]
    n_words = [len(prompt.texts) for prompt in prompts]
    assert 150 <= min(n_words)
    assert max(n_words) <= 300
    assert sum("(low)" in prompt.text or "(high)" in prompt.text for prompt in prompts) > 20


@pytest.mark.parametrize("name", TEMPLATES)
def test_both_families_have_the_same_parts_and_fields(name: str) -> None:
    obstetric, general = (InitialPrompt(name, schema=schema).parts for schema in (SCHEMA, OF_ANYBODY))
    assert [(role, re.findall("{.*?}", text)) for role, text in general] == [
        (role, re.findall("{.*?}", text)) for role, text in obstetric
    ]
    assert {text for _, text in general if text not in dict(obstetric).values()}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_general_template_suits_women_and_men_in_hospital_and_outside(name: str) -> None:
    text = " ".join(text for _, text in InitialPrompt(name, schema=OF_ANYBODY).parts).lower()
    assert re.findall(r"\b(s?he|her|his|him|wom[ae]n|m[ae]n|pregnan\w*|obstetric\w*|deliver\w*|hospital)\b", text) == []
    assert "patient" in text


def test_a_cohort_of_a_new_schema_has_general_templates() -> None:
    assert Schema(SCHEMA.indicators).templates == "general"


@pytest.mark.parametrize("language", ["en", "en-GB", "EN"])
def test_a_prompt_is_in_the_language_of_its_schema(language: str) -> None:
    schema = replace(OF_ANYBODY, language=language)
    assert InitialPrompt(schema=schema).fill(PREDICTED, PEERS).language == language


def test_a_language_without_templates_needs_a_file(tmp_path: Path) -> None:
    schema = replace(OF_ANYBODY, language="de")
    with pytest.raises(
        ValueError, match=r"no built-in templates in the schema's language, 'de': give .* \(--template\)"
    ):
        InitialPrompt("short", schema=schema)
    (tmp_path / "kurz.txt").write_text("self: Vermutet wird {predicted}.\n")
    prompt = InitialPrompt(tmp_path / "kurz.txt", schema=schema).fill("Gicht", ())
    assert (prompt.text, prompt.language) == ("Vermutet wird Gicht.", "de")


def test_a_family_of_templates_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(ValueError, match="templates are 'cardiac', which are not built in: use general, obstetric, or"):
        InitialPrompt(schema=replace(OF_ANYBODY, templates="cardiac"))


def test_short_is_the_first_template_and_lite_keeps_it() -> None:
    assert dict(InitialPrompt("short").parts) == FIRST
    for episode in lite_episodes({"train": 20}):
        counts = ", ".join(f"{n} of 10 had {label}" for label, n in Counter(episode.peers).most_common())
        fields = {"predicted": episode.predicted, "k": 10, "peers": counts}
        assert episode.prompt == " ".join(FIRST.values()).format(**fields)
