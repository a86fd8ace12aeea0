"""What a patient's own values are worth in replies and in prompts, by the bundled scorer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import personal_agents, personal_prompts
from benchmarks.personal_agents import IDEAL, MARKS, RULE, Echo, Truth, Value, key_of, known_editors, with_values_of
from benchmarks.personal_letters import REPLIES, measure, table
from benchmarks.personal_prompts import KEPT, Options, prompts_of, remarks
from pmlm_env.cohort import read_cohort
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.llm import CachedLLM
from pmlm_env.prompting import value_slots
from pmlm_env.rewards.bertscore import BertScorer
from tests.commands import pmlm
from tests.standins import EchoLLM

ROOT = Path(__file__).resolve().parents[2]


class Sorted(EchoLLM):
    """Repeats the prompt's words in alphabetical order, in this process, so that prompts may have values."""

    is_remote = False


@pytest.mark.real
@pytest.mark.once
def test_the_right_values_score_above_those_of_another_patient_with_the_condition() -> None:
    found = measure(simulate_cohort(600, personal=1), 16, BertScorer())
    for metric in ("f1", "margin"):
        means = {name: np.mean(found[name][metric]) for name in REPLIES}
        assert means["the patient's"] > means["the patient's findings, the other's advice"] + 0.01
        assert means["the patient's findings, the other's advice"] > means["the other patient's"] + 0.01


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("personal")
    assert pmlm("simulate", "--out", folder / "cohort", "--patients", 120, "--personal", 1) == 0
    prepare = ["--cohort", folder / "cohort", "--out", folder / "prepared", "--template", "personal"]
    assert pmlm("prepare", *prepare, "--n-folds", 2, "--max-test", 8) == 0
    return folder


@pytest.mark.once
@pytest.mark.usefixtures("quick_stages")
def test_a_prompt_keeps_the_values_that_it_should_and_all_that_is_no_value(folder: Path) -> None:
    cohort, _ = read_cohort(folder / "cohort")
    patients = {patient.patient_id: patient for patient in cohort}
    often, names = ["total_protein", "plt"], [indicator.name for indicator in cohort.schema.indicators]
    test = EpisodeSet.load(folder / "prepared").of("test")
    for episode in (test[i] for i in range(4)):
        patient = patients[episode.patient_id]
        prompts = prompts_of(episode, patient, cohort.schema, often, np.random.default_rng(0))

        def of_values(names: list[str], words: list[str] = [*episode.words]) -> list[str]:  # noqa: B006
            slots = value_slots(words, patient, cohort.schema, names)  # noqa: B023
            return [words[slot] for slot in slots]

        own = [name for name in remarks(patient) if of_values([name])]
        assert prompts[KEPT[0]] == episode.prompt
        rest = len(episode.words) - len(of_values(names))
        assert [len(prompts[kept].split()) - rest for kept in (KEPT[1], KEPT[6])] == [0, len(of_values(own))]
        assert of_values(own, prompts[KEPT[6]].split()) == of_values(own)
        left = [name for name in names if of_values([name], prompts[KEPT[2]].split())]
        assert len(left) == len(own)
        assert not {*left} & {*own}
        marks = [word for word in of_values(names) if word.strip(",.") in ("(low)", "(high)")]
        in_marked = prompts[KEPT[4]].split()
        assert [word for word in in_marked if word.strip(",.") in ("(low)", "(high)")] == marks
        assert len([name for name in names if of_values([name], in_marked)]) == len(marks)
        in_first = prompts[KEPT[5]].split()
        first = [name for name in names if of_values([name], in_first)]
        assert len(first) == len(own)
        end = max(slot for slot, word in enumerate(in_first) if word == "values:") + 1 + len(of_values(first))
        assert in_first[:end] == list(episode.words[:end])
        usual = [name for name in names if of_values([name], prompts[KEPT[3]].split())]
        assert {*usual} == {*often[: len(own)]}


@pytest.mark.real
@pytest.mark.once
@pytest.mark.usefixtures("quick_stages", "hashed_sentences")
def test_replies_to_the_right_values_score_above_those_to_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(personal_prompts, "load_llm", lambda llm, cache: CachedLLM(Echo()))
    found = personal_prompts.measure(Options(folder / "cohort", folder / "prepared", patients=5))
    f1 = [np.mean(found[kept]["bertscore_f1"]) for kept in KEPT]
    assert f1[6] > max(f1[:5]) + 0.005
    assert f1[6] > f1[5]
    assert {len(column) for values in found.values() for column in values.values()} == {5}


def test_known_editors_keep_what_letters_remark_on_most_often() -> None:
    """Of ten indicators, letters remark on 0 to 7 more often than on 8, on 8 always if it is high, and on 9 never."""

    def patient(high: bool, own: set[str]) -> Truth:
        marks = {"8": "(high)" if high else ""}
        return Truth({str(i): Value(frozenset({i, 10 + i}), marks.get(str(i), "")) for i in range(10)}, frozenset(own))

    usual = {str(i) for i in range(8)}
    training = [patient(False, usual)] * 10 + [patient(False, set())] * 20 + [patient(True, {"8"})] * 5
    test = [patient(False, {"3"}), patient(True, set())]
    found = known_editors(training, test)

    def kept(editor: str) -> list[set[str]]:
        return [{str(i) for i in range(10) if i not in gone and 10 + i not in gone} for gone in found[editor]]

    assert kept(RULE) == [usual, usual]
    assert [("8" in names, "9" in names, len(names)) for names in kept(MARKS)] == [(False, False, 6), (True, False, 6)]
    assert kept(IDEAL) == [{"3"}, set()]


def test_with_another_patients_values_the_rest_of_an_edit_stays() -> None:
    """Prompts: "Laboratory: ALT 28 U/L (high), MCV 92 fL," and "Laboratory: MCV 88 fL, PLT 90, ALT 10 U/L,"."""
    alt, mcv = Value(frozenset({1, 2, 3, 4}), "(high)"), Value(frozenset({5, 6, 7}), "")
    own = Truth({"alt": alt, "mcv": mcv}, frozenset())
    other = Truth({"mcv": Value(frozenset({1, 2, 3}), ""), "plt": Value(frozenset({4, 5}), ""),
                   "alt": Value(frozenset({6, 7, 8}), "")}, frozenset())  # fmt: skip
    assert with_values_of(own, [0, 1, 2, 5], other, [2, 4, 5, 8]) == {0, 3, 4, 6}
    assert with_values_of(own, [0, 1, 2, 5], own, [0, 1, 2, 5]) == {0, 1, 2, 5}
    assert with_values_of(other, [4, 8], own, [0]) == {4}


@pytest.mark.real
@pytest.mark.once
@pytest.mark.usefixtures("quick_stages", "hashed_sentences")
def test_agents_are_judged_by_what_they_keep_and_no_run_is_repeated(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = personal_agents.Options(folder / "cohort", folder / "prepared", ("random-n", "keep-all"), (9,), seeds=1)
    options = replace(options, run=tmp_path / "run", json=tmp_path / "found.json")
    measured = personal_agents.measure(options)
    found = measured["runs"]
    assert [*found] == [key_of(name, 0, 0) for name in (RULE, MARKS, IDEAL, "random-n", "keep-all")]
    ideal, whole, drawn = (found[key_of(name, 0, 0)] for name in (IDEAL, "keep-all", "random-n"))
    assert (ideal["right"], whole["right"], whole["other"]) == (1.0, 1.0, 1.0)
    assert ideal["other"] < 0.05
    n_words = np.mean([len(e.words) for e in EpisodeSet.load(folder / "prepared").of("test")])
    assert (whole["deleted"], drawn["deleted"]) == (0, pytest.approx(n_words / 2, abs=1))
    assert drawn["right"] < 0.5
    assert not np.any(whole["deltas"])
    assert not np.any(whole["swapped"])
    assert np.mean(ideal["swapped"]) < np.mean(ideal["deltas"]) - 0.005
    assert np.mean(ideal["deltas"]) > 0.005 > 0 > np.mean(drawn["deltas"])
    other = replace(options, judge=f"{__name__}:Sorted", json=tmp_path / "other.json")
    for name, run in personal_agents.measure(other)["runs"].items():
        kept = ("deleted", "right", "other")
        assert [run[key] for key in kept] == [found[name][key] for key in kept]
        for key in ("deltas", "swapped"):
            assert (run[key] == found[name][key]) == (name == key_of("keep-all", 0, 0))
    monkeypatch.setattr(personal_agents.PersonalPatients, "fitted", pytest.fail)
    assert personal_agents.measure(options) == measured
    with pytest.raises(ValueError, match=r"found\.json has results with .*judge_llm"):
        personal_agents.measure(replace(options, judge="benchmarks.personal_agents:Echo"))
    with pytest.raises(ValueError, match=r"found\.json has results with .*llm"):
        personal_agents.measure(replace(options, llm="responder"))
    monkeypatch.setattr(personal_agents.PersonalPatients, "fitted", lambda *_: whole)
    for encoder in ("once", "minilm"):
        other = replace(options, agents=("leave-one-out",), encoder=encoder)
        assert personal_agents.PersonalPatients(other).patients.encoder.model_name == encoder
        assert [*personal_agents.measure(other)["runs"]][-1] == key_of(f"leave-one-out ({encoder})", 9, 0)


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("personal_letters", table),
        ("personal_prompts", personal_prompts.table),
        ("personal_agents", personal_agents.table),
        ("personal_llm", personal_agents.table),
    ],
)
def test_the_page_has_the_committed_measurement(name: str, made: Callable[[Any], str]) -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    page, mark = (ROOT / "docs" / "simulator.md").read_text(encoding="utf-8"), name.replace("_", "-")
    assert f"<!-- {mark} -->\n\n{made(results)}\n\n<!-- end of {mark} -->" in page
