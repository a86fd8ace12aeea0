"""Patients whom no stage has seen: predicted, prompted, and refined with what was fitted before."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.traces import TraceFile
from tests.commands import pmlm
from tests.real.new_patients import N_NEW, Rows, changed, read_rows, refine, refused

pytestmark = [pytest.mark.once, pytest.mark.real, pytest.mark.usefixtures("quick_stages", "elsewhere")]


def test_new_patients_get_the_prompts_that_prepare_makes_for_them_in_the_test_split(work: Path) -> None:
    traces = refine(work)
    together = [e for e in EpisodeSet.load(work / "prepared-both") if e.patient_id.startswith("N")]
    assert [(t.patient_id, t.words, t.spaces, t.roles, t.predicted) for t in traces] == [
        (e.patient_id, e.words, e.spaces, e.roles, e.predicted) for e in together
    ]
    assert [tuple(peer.label for peer in trace.peers) for trace in traces] == [e.peers for e in together]
    assert len(traces) == N_NEW
    assert {trace.split for trace in traces} == {"test"}


def test_the_code_on_the_model_card_refines_new_patients_as_the_command_does(work: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", (work / "published" / "README.md").read_text(), re.DOTALL)[0]
    for name, folder in (("PREPARED", "prepared"), ("NEW", "new"), ("FOLDER", "published")):
        code = code.replace(f'"{name}"', repr(str(work / folder)))
    names: dict[str, Any] = {}
    exec(code, names)
    assert [each.prompt for each in names["refined"]] == [trace.prompt for trace in refine(work)]


def test_their_peers_are_training_patients_nearest_first_with_their_own_labels(work: Path) -> None:
    labels = {row["patient_id"]: row["label"] for row in read_rows(work / "cohort" / "patients.csv")}
    train = {episode.patient_id for episode in EpisodeSet.load(work / "prepared") if episode.split == "train"}
    for trace in refine(work):
        assert len({peer.patient_id for peer in trace.peers}) == 4
        assert {peer.patient_id for peer in trace.peers} <= train
        assert [peer.label for peer in trace.peers] == [labels[str(peer.patient_id)] for peer in trace.peers]
        similarities = [peer.similarity for peer in trace.peers]
        assert similarities == sorted(similarities, reverse=True)  # type: ignore[type-var]


def test_the_predicted_condition_is_the_most_probable_and_the_probabilities_sum_to_one(work: Path) -> None:
    for trace in refine(work):
        assert trace.predicted == max(trace.probabilities, key=trace.probabilities.__getitem__)
        assert sum(trace.probabilities.values()) == pytest.approx(1)


def test_their_prompts_are_refined_as_prepared_ones_are_and_nobody_is_asked_or_judged(work: Path) -> None:
    new = refine(work)
    prepared = refine(work, "--episodes", work / "prepared-both")
    assert {t.patient_id: (t.edits, t.prompt) for t in new}.items() <= {
        t.patient_id: (t.edits, t.prompt) for t in prepared
    }.items()
    for trace in new:
        slots = {edit.slot for edit in trace.edits}
        assert len(slots) == 3
        assert trace.prompt.split() == [word for slot, word in enumerate(trace.words) if slot not in slots]
        assert (trace.run, trace.agent, trace.variant) == ("run", "lexicon", "agent")
        assert (trace.label, trace.reference, trace.replies, trace.initial_reply) == ("", "", (), "")
        assert (trace.before, trace.after, trace.reward, trace.error) == ({}, {}, None, "")


def test_the_table_says_what_was_predicted_deleted_and_replied_and_where_the_whole_is(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "800")
    options = ["--model", work / "run", "--cohort", work / "new", "--reply", "--cache", "replies.sqlite"]
    assert pmlm("refine", *options) == 0
    captured = capsys.readouterr()
    traces = TraceFile("refined.jsonl").read()
    head, _, *rows = captured.out.splitlines()
    assert head.split() == "patient predicted peers (of 4) deleted reply".split()
    for trace, row in zip(traces, rows, strict=False):
        assert row.startswith(trace.patient_id)
        assert f"{trace.predicted} {trace.probabilities[trace.predicted]:.0%}" in row
        assert trace.replies[0].text[:20] in row
    assert rows[-1] == "One patient, with the whole prompt: pmlm show --refined refined.jsonl --patient ID"
    assert rows[-2].startswith(
        f"refined.jsonl has all of it (patients: {N_NEW}): probabilities, peers, prompts before and after, edits, and "
        "replies"
    )
    assert "\r" not in captured.err  # standard error is no terminal here, so that there is no progress bar


def test_a_run_whose_prepared_folder_is_gone_or_has_no_pipeline_says_what_to_give(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(work / "run", tmp_path / "a" / "run")
    prepared = shutil.copytree(work / "prepared", tmp_path / "a" / "prepared")
    new = ["--cohort", work / "new"]
    shutil.rmtree(prepared / "pipeline")
    there_is_none = "there is no pipeline in {}: name the prepared folder that has it with --pipeline"
    assert there_is_none.format(prepared) in refused(capsys, tmp_path / "a", *new)
    config = json.loads((tmp_path / "a" / "run" / "config.json").read_text())
    config["paths"]["episodes"] = config["settings"]["episodes"] = "../gone"
    (tmp_path / "a" / "run" / "config.json").write_text(json.dumps(config))
    assert there_is_none.format("../gone") in refused(capsys, tmp_path / "a", *new)
    assert len(refine(tmp_path / "a", *new, "--pipeline", work / "prepared")) == N_NEW


def test_a_pipeline_that_was_fitted_to_other_patients_is_warned_of(
    work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refine(work)
    assert "holds other episodes" not in caplog.text
    refine(work, "--pipeline", work / "prepared-both")
    assert f"{work / 'prepared-both'} holds other episodes than {work / 'run'} was trained on" in caplog.text


def test_training_patients_are_warned_of_and_never_their_own_peers(
    work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    traces = refine(work, "--cohort", work / "cohort")
    train = {e.patient_id for e in EpisodeSet.load(work / "prepared") if e.split == "train" and e.label}
    assert not [trace for trace in traces if trace.patient_id in {peer.patient_id for peer in trace.peers}]
    assert f"{len(train)} of 60 patients are training patients of this pipeline" in caplog.text
    assert all(trace.label and trace.reference for trace in traces)  # what is known stays known


def test_a_patient_without_a_laboratory_value_is_left_out_and_named(
    work: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    def without_first(patients: Rows, checkups: Rows) -> tuple[Rows, Rows]:
        return patients, [row for row in checkups if row["patient_id"] != patients[0]["patient_id"]]

    cohort = changed(work / "new", tmp_path / "without", without_first)
    first = read_rows(cohort / "patients.csv")[0]["patient_id"]
    traces = refine(work, "--cohort", cohort)
    assert len(traces) == N_NEW - 1
    assert first not in [trace.patient_id for trace in traces]
    assert f"patients without a laboratory value, left out (1): {first}" in caplog.text
    Path("out.jsonl").unlink()
    said = refused(capsys, work, "--cohort", cohort, "--patient", first)
    assert said == f"{cohort} has no laboratory value of patient {first}: see its tables"


def test_one_patient_alone_gets_the_same_and_an_unknown_one_is_refused(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    everybody = refine(work)
    assert refine(work, "--patient", everybody[5].patient_id) == [everybody[5]]
    Path("out.jsonl").unlink()
    assert refused(capsys, work, "--patient", "nobody") == f"{work / 'new'} has no patient nobody: see its tables"


def test_a_file_of_ours_is_replaced_and_any_other_is_left_as_it_is(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = ["--model", work / "run", "--cohort", work / "new"]
    mine = shutil.copy(work / "new" / "patients.csv", tmp_path / "mine.csv")
    content = mine.read_bytes()
    capsys.readouterr()
    assert pmlm("refine", *new, "--out", mine) == 2
    assert capsys.readouterr().err == (
        f"pmlm refine: {mine} is not a file that pmlm refine wrote: choose another --out\n"
    )
    assert mine.read_bytes() == content
    (tmp_path / "out.jsonl").write_text('{"patient_id": "A", "prompt": "Say it.", "edits": []}\n')  # as it was before
    assert len(refine(work)) == N_NEW
    assert len(refine(work, "--patient", refine(work)[0].patient_id)) == 1


def test_the_traces_of_an_evaluation_are_not_replaced(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    traces = tmp_path / "traces.jsonl"
    assert refine(work)
    unedited = replace(TraceFile(Path("out.jsonl")).read()[0], variant="keep-all")
    traces.write_text(unedited.to_json() + "\n", encoding="utf-8")
    Path("out.jsonl").unlink()
    assert (
        refused(capsys, work, "--out", traces) == f"{traces} is not a file that pmlm refine wrote: choose another --out"
    )
    assert TraceFile(traces).read() == [unedited]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--episodes", "prepared"], "--episodes has no effect: it is for prompts that exist already, and --cohort"),
        (["--split", "train"], "--split has no effect: it is for prompts that exist already, and --cohort"),
        (["--llm", "responder"], "--llm has no effect: no LLM is asked: add --reply, or leave it out"),
        (["--max-new-tokens", 4], "--max-new-tokens has no effect: no LLM is asked: add --reply"),
        (["--max-llm-calls", 4], "--max-llm-calls has no effect: no LLM is asked: add --reply"),
    ],
)
def test_an_option_without_effect_is_refused(
    work: Path, capsys: pytest.CaptureFixture[str], options: list[object], message: str
) -> None:
    assert refused(capsys, work, "--cohort", work / "new", *options).startswith(message)


@pytest.mark.parametrize("options", [["--pipeline", "prepared"], ["--patients-file", "x.csv"]])
def test_an_option_for_new_patients_is_refused_without_them(
    capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    capsys.readouterr()
    assert pmlm("refine", *options) == 2
    said = "it is for new patients: name their folder with --cohort, or leave it out"
    assert capsys.readouterr().err == f"pmlm refine: {options[0]} has no effect: {said}\n"


FIVE = """
language = "en"
templates = "general"
indicators = [{ name = "psa", unit = "ug/L" }, { name = "hgb", unit = "g/dL" }, { name = "wbc", unit = "10^9/L" }]
"""


def test_a_cohort_of_another_schema_is_refused(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def others(patients: Rows, checkups: Rows) -> tuple[Rows, Rows]:
        kept = ("patient_id", "date", "wbc")
        return patients, [{"psa": "1.2", "hgb": "140", **{name: row[name] for name in kept}} for row in checkups]

    cohort = changed(work / "new", tmp_path / "others", others)
    (cohort / "schema.toml").write_text(FIVE)
    said = refused(capsys, work, "--cohort", cohort)
    assert said.startswith(f"the schema in {cohort} and that of the training patients differ in psa, hgb, pH, albumin")
    assert said.endswith("convert the tables, and remove the schema")
    assert refused(capsys, work, "--schema", "obstetric") == (
        "--schema has no effect: new patients are read with the schema of the training patients: leave it out"
    )


def test_a_schema_with_the_same_indicators_is_no_obstacle(work: Path, tmp_path: Path) -> None:
    cohort = shutil.copytree(work / "new", tmp_path / "same")
    shutil.copy(work / "prepared" / "pipeline" / "schema.json", cohort / "schema.json")
    assert refine(work, "--cohort", cohort) == refine(work)


def test_a_pipeline_that_names_a_class_is_used_only_with_allow_import(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--predictor", "tests.own_stages:Shares", "--n-folds", 2, "--k", 4, "--device", "cpu"]
    assert pmlm("prepare", "--cohort", work / "cohort", "--out", tmp_path / "own", *own) == 0
    pipeline = ["--pipeline", tmp_path / "own"]
    said = refused(capsys, work, *pipeline)
    assert "the predictor is tests.own_stages:Shares, which is code from outside pmlm-env" in said
    assert "--allow-import" in said
    traces = refine(work, *pipeline, "--allow-import")
    assert len({tuple(trace.probabilities.values()) for trace in traces}) == 1  # it predicts the same of everybody
