"""``pmlm experiment cases``."""

from __future__ import annotations

import copy
import re
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from agents.experiments.case_table import case_tables
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.traces import Trace, TracedReply, TraceFile
from tests.agents.experiments.quick import command, prepared, runs, table
from tests.commands import pmlm

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("quick_stages", "hashed_sentences")]

SYSTEMS = ["raw-data", "keep_all", "agent", "echo"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, men: Path, quick_stages: None) -> Path:
    out = tmp_path_factory.mktemp("results")
    assert pmlm(*command("cases", men, "--agents", "surrogate", "--out", out)) == 0
    return out / "cases"


def traces(results: Path) -> dict[tuple[str, str], Trace]:
    return {(trace.patient_id, trace.variant): trace for trace in TraceFile(results / "traces.jsonl")}


def ours_and_raw(results: Path) -> tuple[EpisodeSet, EpisodeSet]:
    ours, raw = sorted(prepared(results), key=lambda episodes: "Latest check-up" in episodes[0].prompt)
    return ours, raw


def test_two_patients_with_different_conditions_are_shown(results: Path) -> None:
    (run,) = runs(results)
    assert len(run["result"]["patients"]) == 2
    labels = [traces(results)[patient, "agent"].label for patient in run["result"]["patients"]]
    assert labels[0] != labels[1]


def test_each_patient_has_the_prompts_and_replies_of_three_systems_and_the_echo(results: Path) -> None:
    patients = runs(results)[0]["result"]["patients"]
    found = traces(results)
    assert list(found) == [(patient, system) for system in SYSTEMS for patient in patients]
    for episodes, system in zip(ours_and_raw(results), ("keep_all", "raw-data"), strict=True):
        by_id = {episode.patient_id: episode.prompt for episode in episodes}
        assert [found[patient, system].prompt for patient in patients] == [by_id[patient] for patient in patients]
    assert all(found[patient, "agent"].edits for patient in patients)


def test_the_table_has_them_side_by_side_with_deleted_words_struck_out(results: Path) -> None:
    text = (results / "table.md").read_text()
    patient = runs(results)[0]["result"]["patients"][0]
    trace, untouched = (traces(results)[patient, system] for system in ("agent", "keep_all"))
    prompts, replies = table(text[text.index(f"#### {patient}: {trace.label}") :], "|  | raw-data prompt |")
    edited = "our prompt, edited by surrogate"
    assert list(replies)[1:] == ["raw-data prompt", "our prompt, unedited", edited]
    assert prompts["our prompt, unedited"] == untouched.prompt
    struck = re.findall("<del>(.*?)</del>", prompts[edited])
    assert sorted(struck) == sorted(trace.words[edit.slot] for edit in trace.edits)
    assert " ".join(re.sub("<del>.*?</del>", "", prompts[edited]).split()) == " ".join(trace.prompt.split())
    scores = table(text, "| reply to | F1 |")
    assert [row["reply to"] for row in scores] == ["raw-data prompt", "our prompt, unedited", edited, "*echo*"]
    assert scores[2]["F1"] == f"{100 * (trace.after['bertscore_f1'] or 0):.2f}"


def test_laboratory_values_are_shown_only_when_asked_for(
    results: Path, men: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = traces(results)
    patients = runs(results)[0]["result"]["patients"]
    values = {v for patient in patients for v in re.findall(r"\d+\.\d+", found[patient, "raw-data"].prompt)}
    assert values
    shown = (results / "table.md").read_text()
    texts = [line for line in shown.splitlines() if line.startswith(("The doctor's reply", "| prompt", "| reply |"))]
    assert texts
    assert not [value for value in values for line in texts if value in line]
    assert "Latest check-up" not in shown
    assert "words, not shown because they contain laboratory values (--raw-values)" in shown
    assert pmlm(*command("cases", men, "--agents", "surrogate", "--out", results.parent, "--raw-values")) == 0
    assert "new runs: 0, earlier ones: 1" in capsys.readouterr().out
    assert found[patients[0], "raw-data"].prompt in (results / "table.md").read_text()


def test_runs_have_no_texts_and_those_that_have_are_their_owners_alone(results: Path) -> None:
    lines = (results / "runs.jsonl").read_text()
    for trace in traces(results).values():
        assert trace.reference not in lines
        assert trace.replies[0].text not in lines
    assert stat.S_IMODE((results / "traces.jsonl").stat().st_mode) == 0o600


def test_any_test_patients_can_be_named(men: Path, tmp_path: Path) -> None:
    assert pmlm(*command("cases", men, "--agents", "random-n", "--patients", "M59", "M40", "--out", tmp_path)) == 0
    assert runs(tmp_path / "cases")[0]["result"]["patients"] == ["M59", "M40"]


def test_a_patient_who_is_not_there_is_named_with_close_ones(
    men: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pmlm(*command("cases", men, "--agents", "random-n", "--patients", "M599", "--out", tmp_path)) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(
        "pmlm experiment: --patients: there is no test patient M599 with a label and a reply; there are, for instance, "
    )
    assert "M59" in message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--seeds", "2"), "--seeds has no effect: each agent is fitted once, with seed 0"),
        (("--patients", "M59", "--test-patients", "9"), "--test-patients has no effect: --patients names them"),
    ],
)
def test_options_without_effect_are_refused(
    options: tuple[str, ...], said: str, men: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pmlm("experiment", "cases", "--cohort", men, "--llm", "responder", *options) == 2
    assert capsys.readouterr().err == f"pmlm experiment: {said}\n"


# A patient whose texts are known

RUN = {
    "cell": {"row": "surrogate", "patients": {"cohort": "c"}, "models": {"llm": "a"}},
    "result": {
        "run": "r",
        "values_in_prompts": False,
        "patients": ["P1"],
        "metrics": {system: [{"bertscore_f1": 0.5}] for system in SYSTEMS},
    },
}


def made_up(variant: str, prompt: str, reply: str) -> Trace:
    words = tuple(prompt.split())
    return Trace(
        **{"run": "r", "agent": "surrogate", "variant": variant, "seed": 0, "split": "test", "patient_id": "P1"},
        **{"label": "gout", "predicted": "gout", "probabilities": {}, "peers": (), "words": words, "spaces": ()},
        **{"roles": ("self",) * len(words), "edits": (), "prompt": prompt, "initial_reply": reply},
        replies=(TracedReply(reply),),
        **{"reference": "Hemoglobin 88 g/L after 3 days.", "before": {}, "after": {}, "reward": 0.0},
    )


def shown(raw_values: bool) -> str:
    reply = "Of 10 peers | 10 had <b>gout</b>; hemoglobin 88 g/L, leukocytes 7.5 x10^9/L for 3 days."
    prompts = {"raw-data": "hemoglobin 88 g/L, leukocytes 7.5 x10^9/L, 10 mg/L", **dict.fromkeys(SYSTEMS[1:], "Of 10")}
    traces = [made_up(system, prompt, reply) for system, prompt in prompts.items()]
    return case_tables([RUN], traces, raw_values=raw_values)


def test_numbers_of_a_prompt_that_is_not_shown_are_hidden_in_letters_and_replies_and_no_others() -> None:
    masked = "Of 10 peers \\| 10 had &lt;b>gout&lt;/b>; hemoglobin # g/L, leukocytes # x10^9/L for 3 days."
    assert f"| reply | {masked} | {masked} | {masked} |" in shown(raw_values=False)
    assert "The doctor's reply: Hemoglobin # g/L after 3 days." in shown(raw_values=False)
    assert "The doctor's reply: Hemoglobin 88 g/L after 3 days." in shown(raw_values=True)
    assert "| prompt | hemoglobin 88 g/L, leukocytes 7.5 x10^9/L, 10 mg/L | Of 10 |" in shown(raw_values=True)


@pytest.mark.parametrize(
    ("value", "reply"),
    [
        ("7.8", "7.80"), ("7.80", "7.8"), ("7.8", "7,8"), ("11500", "11,500"), ("11,500", "11500"), ("88.0", "88"),
        ("88", "88,90"), ("90", "88,90"), ("88,", "88."), ("120/80", "120"), ("88", "urate,88"),
    ],
)  # fmt: skip
def test_a_value_is_hidden_however_it_is_written(value: str, reply: str) -> None:
    prompts = {"raw-data": f"urate {value} umol/L", **dict.fromkeys(SYSTEMS[1:], "Of 10")}
    traces = [made_up(system, prompt, f"Urate: {reply}") for system, prompt in prompts.items()]
    text = case_tables([RUN], traces, raw_values=False)
    (line,) = (line for line in text.splitlines() if line.startswith("| reply |"))
    assert line.count("#") == 3
    assert reply.rstrip(".") not in line


def test_of_several_replies_the_first_is_shown_and_the_scores_are_means() -> None:
    three = tuple(map(TracedReply, ("One.", "Two.", "Three.")))
    traces = [replace(made_up(system, "Of 10", "One."), replies=three) for system in SYSTEMS]
    run = {**RUN, "result": copy.deepcopy(RUN["result"])}
    run["result"]["metrics"]["keep_all"][0]["diagnosis_named"] = 1 / 3
    text = case_tables([run], traces, raw_values=True)
    assert "| reply, the first of 3 (scores are means) | One. | One. | One. |" in text
    assert table(text, "| reply to | F1 |")[1]["right"] == "0.33"


def test_runs_whose_texts_are_elsewhere_have_their_scores() -> None:
    text = case_tables([RUN], [], raw_values=False)
    assert "The prompts and replies are not here: traces.jsonl lacks them." in text
    assert [row["F1"] for row in table(text, "| reply to | F1 |")] == ["50.00"] * 4
