"""`pmlm show`: evaluated patients in the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from agents.run_folder import RunFolder
from agents.training.config import TrainConfig
from pmlm_env.core.edits import Edit
from pmlm_env.core.traces import Trace, TracedPeer, TracedReply, TraceFile
from tests.agents.evaluation.made_up import EPISODE, make_trace
from tests.commands import pmlm

pytestmark = pytest.mark.once

EDITS = (Edit("delete", 4, "sentence.", 0.25), Edit("delete", 0, "Say", 0.5))


def traces(patient: str = "a", f1_before: float = 0.6, f1_after: float = 0.65, **more: object) -> list[Trace]:
    """A patient's traces in one evaluation: untouched, edited at random, by the agent, and a control."""
    changes = {"keep_all": f1_before, "random": 0.4, "agent": f1_after, "echo": 0.3}
    return [
        replace(
            make_trace(
                patient=patient,
                variant=variant,
                before={"bertscore_f1": f1_before},
                after={"bertscore_f1": score},
                edits=EDITS if variant == "agent" else (),
                reply="A scar. Rest, and drink." if variant == "agent" else "A scar. Walk.",
            ),
            initial_reply="A scar. Walk.",
            **more,  # type: ignore[arg-type]
        )
        for variant, score in changes.items()
    ]


def rows_of(out: str) -> list[list[str]]:
    """The words of each line."""
    return [line.split() for line in out.splitlines()]


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "mine")
    run.path.mkdir()
    run.start(TrainConfig(), "an LLM", "a digest")
    return run


def shown(run: RunFolder, found: Iterable[Trace], capsys: pytest.CaptureFixture[str], *more: object) -> str:
    """Write traces and return what the command prints."""
    run.traces.append(found)
    assert pmlm("show", "--run", run.path, *more) == 0
    return capsys.readouterr().out


def test_deleted_words_are_marked_in_the_prompt_with_their_order(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shown(folder, traces(), capsys, "--patient", "a")
    assert "\n  [2:Say] it in one [1:sentence.]\n" in out


def test_line_breaks_of_a_prompt_stay(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(folder, traces(spaces=(" ", "\n", " ", " ", "")), capsys, "--patient", "a")
    assert "\n  [2:Say] it\n  in one [1:sentence.]\n" in out


def test_each_deletion_has_its_role_and_probability(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(folder, traces(), capsys, "--patient", "a")
    rows = rows_of(out)
    assert rows.index(["1", "sentence.", "instruction", "0.250"]) < rows.index(["2", "Say", "instruction", "0.500"])


def test_an_agent_without_probabilities_has_dashes(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(folder, traces(edits=(Edit("delete", 1, "it"),)), capsys, "--patient", "a")
    assert ["1", "it", "instruction", "-"] in rows_of(out)


def test_replies_before_and_after_and_the_reference_are_shown(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shown(folder, traces(), capsys, "--patient", "a")
    assert "Reply to the untouched prompt\n  A scar. Walk.\n" in out
    assert "Reply to the refined prompt\n  A scar. Rest, and drink.\n" in out
    assert "Reference: what the patient's doctor wrote\n  A scar.\n  Rest.\n" in out


def test_every_sample_of_a_reply_is_shown(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(folder, traces(replies=(TracedReply("One."), TracedReply("Two."))), capsys, "--patient", "a")
    assert "Reply to the refined prompt, 1 of 2\n  One.\n" in out
    assert "Reply to the refined prompt, 2 of 2\n  Two.\n" in out


def test_words_shared_with_the_reference_are_counted_and_changes_named(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shown(folder, traces(reference="A scar. Rest. Walk!"), capsys, "--patient", "a")
    assert "Of the 3 longer words of the reference, 2 > 2 are in the reply\nGained: rest\nLost: walk\n" in out


def test_scores_conditions_and_components_have_before_and_after(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    middle = dict.fromkeys(traces()[0].before, 0.5)
    before = middle | {"bertscore_f1": 0.6, "wrong_diagnosis_named": 1.0, "advice": None, "words": 12.0}
    after = before | {"bertscore_f1": 0.65, "diagnosis_named": 1.0, "wrong_diagnosis_named": 0.0, "words": 41.0}
    out = shown(folder, traces(before=before, after=after), capsys, "--patient", "a")
    assert "BERTScore F1: 60.00 > 65.00 points\n" in out
    assert "Names the right condition: 50% > yes; names a wrong condition: yes > no\n" in out
    rows = rows_of(out)
    assert ["bertscore_f1", "60.00", "65.00", "+5.00"] in rows
    assert ["wrong_diagnosis_named", "yes", "no"] in rows
    assert ["words", "12", "41", "+29"] in rows
    assert ["advice", "-", "-", "-"] in rows


def test_the_condition_its_prediction_and_the_peers_are_named(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    peers = tuple(map(TracedPeer, ("normal", "scar", "normal")))
    out = shown(folder, traces(predicted="normal", peers=peers), capsys, "--patient", "a")
    assert "Patient a (train), edited by lexicon\nCondition: scar; predicted: normal\nPeers: 2 normal, 1 scar\n" in out


def test_the_other_replies_have_their_f1(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(folder, traces(), capsys, "--patient", "a")
    assert out.endswith("BERTScore F1 of other replies, in points: random deletion 40.00, control echo 30.00\n")


def test_a_missing_reply_is_said_with_its_reason_and_nothing_is_scored(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [replace(trace, after={}, replies=(), reward=None, error="the reply was filtered") for trace in traces()]
    out = shown(folder, found, capsys, "--patient", "a")
    assert "A reply is missing: the reply was filtered\n" in out
    assert "bertscore_f1" not in out


def test_all_patients_are_listed_with_the_largest_gain_first_and_those_without_reply_last(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = [replace(trace, after={}, replies=(), reward=None, error="the reply was cut") for trace in traces("lost")]
    fell, rose = traces("fell", 0.6, 0.5), traces("rose", 0.6, 0.7)
    out = shown(folder, [*lost, *fell, *rose], capsys)
    assert out.startswith("Patients: 3 train; BERTScore F1 in points, largest gain first\n")
    rows = [line.split("  ") for line in out.splitlines()]
    rows = [[cell.strip() for cell in row if cell] for row in rows if row[0] in ("lost", "fell", "rose")]
    assert [row[0] for row in rows] == ["rose", "fell", "lost"]
    assert rows[0][3:] == ["60.00", "70.00", "+10.00", "50% > 50%", "50% > 50%"]
    assert rows[2][3:] == ["-", "-", "-", "-", "no reply: the reply was cut"]


def test_with_another_reward_the_list_has_what_it_pays(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    models = replace(TrainConfig().models, reward="mine:MyReward")
    folder.start(replace(TrainConfig(), models=models), "an LLM", "a digest")
    found = traces(before={"bertscore_f1": 0.1, "reward": 7.0}, after={"bertscore_f1": 0.1, "reward": 9.0}, reward=1.5)
    out = shown(folder, found, capsys)
    assert "the reward, largest gain first" in out
    assert ["a", "scar", EPISODE.predicted, "7.0000", "9.0000", "+1.5000", "-", ">", "-", "-", ">", "-"] in rows_of(out)


def test_a_built_in_reward_is_in_points(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    found = traces(before={"bertscore_f1": 0.1, "reward": 0.2}, after={"bertscore_f1": 0.1, "reward": 0.3}, reward=0.05)
    out = shown(folder, found, capsys)
    assert "the reward in points, largest gain first" in out
    assert "20.00   30.00  +5.00" in out


def test_the_newest_evaluation_of_a_patient_is_shown(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    found = [*traces("a"), *traces("b"), *traces("a", 0.2, 0.3, seed=1)]
    assert "BERTScore F1: 20.00 > 30.00 points" in shown(folder, found, capsys, "--patient", "a")
    assert shown(folder, [], capsys, "--patient", "b").count("60.00 > 65.00") == 1


def test_a_patient_whose_traces_were_removed_in_part_is_left_out(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = [trace for trace in traces("cut") if trace.variant != "agent"]
    assert shown(folder, [*cut, *traces("whole")], capsys).startswith("Patients: 1 train; ")
    assert pmlm("show", "--run", folder.path, "--patient", "cut") == 2


def test_an_unknown_patient_is_one_line_with_close_ones_and_how_to_list(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.traces.append([*traces("A17"), *traces("B20")])
    assert pmlm("show", "--run", folder.path, "--patient", "A18") == 2
    said = capsys.readouterr().err
    start = f"pmlm show: {folder.traces.path} has no patient A18 (did you mean 'A17'?): "
    refined = "patients that `pmlm refine` added are in the file that it wrote: name it with --refined"
    assert said == f"{start}`pmlm show --run {folder.path}` lists all 2; {refined}\n"


def test_a_run_that_was_not_evaluated_says_how(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert pmlm("show", "--run", folder.path) == 2
    assert f"has no traces: evaluate it first with `pmlm evaluate --run {folder.path}`\n" in capsys.readouterr().err


def test_a_folder_without_a_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pmlm("show", "--run", tmp_path / "nothing") == 2
    assert capsys.readouterr().err.startswith(f"pmlm show: {tmp_path / 'nothing'} contains no run")


def test_texts_of_strangers_cannot_drive_the_terminal(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = replace(EPISODE, words=("Say\x1b[2J", *EPISODE.words[1:]), reference="\x1b]0;mine\x07")
    more = {"words": hostile.words, "reference": hostile.reference, "replies": (TracedReply("\x1b[9mno\u202e"),)}
    edits = (Edit("delete", 0, hostile.words[0]),)
    for options in ([], ["--patient", "a"]):
        found = traces(edits=edits, label="\x1b[31m", **more)
        out = shown(folder, found, capsys, *options)
        assert "\x1b" not in out
        assert "\u202e" not in out
        assert "\\x1b[31m" in out


# Patients whom `pmlm refine` added


def refined(patient: str, run: str = "mine", **more: object) -> Trace:
    """A trace as `pmlm refine` writes it: without scores and a reference."""
    (trace,) = (trace for trace in traces(patient) if trace.variant == "agent")
    without = {"before": {}, "after": {}, "reward": None, "reference": "", "label": "", "initial_reply": ""}
    return replace(trace, run=run, probabilities={trace.predicted: 0.75}, **without | more)  # type: ignore[arg-type]


@pytest.fixture
def refined_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    TraceFile("refined.jsonl").append([refined("new"), refined("b"), refined("elsewhere", run="other")])
    return tmp_path / "refined.jsonl"


def test_a_refined_patient_of_the_run_is_shown_without_scores(
    folder: RunFolder, refined_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shown(folder, traces(), capsys, "--patient", "new")
    assert f"Patient new (new), edited by lexicon\nCondition: unknown; predicted: {EPISODE.predicted} (75%)\n" in out
    assert "\n  [2:Say] it in one [1:sentence.]\n" in out
    assert "Reply to the refined prompt\n  A scar. Rest, and drink.\n" in out
    assert not {"Reply to the untouched prompt", "Reference", "component"} & {
        line.split(":")[0] for line in out.split("\n")
    }


def test_refined_patients_are_listed_after_the_evaluated_ones_of_the_same_run(
    folder: RunFolder, refined_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shown(folder, [*traces("a"), *traces("b", 0.2, 0.3)], capsys)
    start = out.index("Refined and not scored: 2 patients")
    assert [line.split()[0] for line in out[start:].splitlines() if line.split()[:1] in (["new"], ["b"])] == [
        "new",
        "b",
    ]
    assert "elsewhere" not in out
    assert "BERTScore F1: 20.00 > 30.00" in shown(folder, [], capsys, "--patient", "b")  # the evaluated one


def test_refined_patients_are_shown_of_a_run_that_was_not_evaluated_and_of_a_file_without_a_run(
    folder: RunFolder, refined_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Patient new" in shown(folder, [], capsys, "--patient", "new")
    for options, found in (
        (["--patient", "elsewhere"], "Patient elsewhere"),
        ([], "--refined refined.jsonl --patient"),
    ):
        assert pmlm("show", "--refined", "refined.jsonl", *options) == 0
        assert found in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--refined", "none.jsonl"], "none.jsonl has no patient: name a file that `pmlm refine` wrote"),
        (["--refined", "mine/traces.jsonl"], "mine/traces.jsonl was not written by pmlm refine: name its --out file"),
        (["--refined", "refined.jsonl", "--run", "mine"], "--run has no effect: --refined names the file"),
        (["--refined", "refined.jsonl", "--patient", "nwe"], "refined.jsonl has no patient nwe (did you mean 'new'?)"),
    ],
)
def test_a_wrong_file_of_refined_patients_is_one_line(
    options: list[str], said: str, folder: RunFolder, refined_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.traces.append(traces())
    assert pmlm("show", *options) == 2
    assert capsys.readouterr().err.startswith(f"pmlm show: {said}")


def test_a_damaged_file_that_nobody_named_is_passed_over(
    folder: RunFolder, refined_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refined_file.write_text("{}\n")
    assert "Patient a" in shown(folder, traces(), capsys, "--patient", "a")


# The rule


def test_the_rule_of_single_rule_is_named_in_the_list_and_with_each_patient(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [trace for patient in "abc" for trace in traces(patient, agent="single-rule")]
    rule = (
        "The agent single-rule deletes from every prompt, by role and place among the words of that role: "
        'instruction 5 ("sentence."); instruction 1 ("Say").'
    )
    assert rule in shown(folder, found, capsys)
    assert rule in shown(folder, [], capsys, "--patient", "a")


def test_lines_are_no_wider_than_the_terminal(
    folder: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    long = "\u5b50\u5bab" * 90  # characters that take two columns
    out = shown(folder, traces(reference=long), capsys, "--patient", "a")
    lines = [line.strip() for line in out.splitlines() if "\u5b50" in line]
    assert "".join(lines[:-1]).startswith(long[:29])
    assert max(map(len, lines)) == 29
