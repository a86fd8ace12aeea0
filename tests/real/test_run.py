"""Prepare, train, evaluate and resume through the command line, with the real encoder and the rule-based LLM."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents.baselines.single_rule import role_places
from agents.cli.main import main
from agents.evaluation.controls import CONTROLS
from agents.evaluation.evaluate import EvaluateConfig, evaluate
from agents.evaluation.variants import ARMS, METRICS, RULE, table
from agents.models import ModelOptions, Workbench
from agents.policies.word_policy import WordPolicy
from agents.run_folder import RunFolder
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.llm import LLMError, ReplyCache
from pmlm_env.llm.responder import Responder
from pmlm_env.rewards.bertscore import BertScorer

pytestmark = pytest.mark.real

OPTIONS = [
    "--llm", "responder", "--device", "cpu", "--n-edits", "3", "--updates", "4", "--patients", "3", "--rollouts", "2",
    "--hidden", "16", "--dropout", "0.2",
]  # fmt: skip
DEMO = OPTIONS[: OPTIONS.index("--hidden")]  # the demo's policy is a lexicon: it has no network to size


def _pmlm(command: str, *arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(command, [str(argument) for argument in arguments])
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    assert _pmlm("simulate", "--out", folder / "cohort", "--patients", 120) == 0
    assert _pmlm("prepare", "--cohort", folder / "cohort", "--out", folder / "prepared", "--n-folds", 2) == 0
    return folder / "prepared"


@pytest.fixture(scope="module")
def run(prepared: Path) -> RunFolder:
    folder = prepared.parent / "run"
    assert _pmlm("train", "--episodes", prepared, "--run", folder, *OPTIONS) == 0
    assert _pmlm("evaluate", "--run", folder) == 0
    return RunFolder(folder)


def _without_times(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the same run gives again: how much of it came from kept replies is another matter."""
    left_out = ("seconds", "cached_replies")
    return [{k: v for k, v in line.items() if k not in left_out and not k.startswith("share_")} for line in metrics]


def test_the_run_folder_holds_what_design_promises(run: RunFolder) -> None:
    assert {"config.json", "metrics.jsonl", "checkpoint", "evaluation.json"} <= {p.name for p in run.path.iterdir()}
    assert {p.suffix for p in run.checkpoint.iterdir()} == {".json", ".safetensors"}
    assert json.loads((run.path / "config.json").read_text())["versions"]["torch"] == torch.__version__


def test_all_that_holds_patients_texts_is_for_its_owner_alone(run: RunFolder, prepared: Path, tmp_path: Path) -> None:
    refined = ["--model", run.checkpoint, "--episodes", prepared, "--out", tmp_path / "out" / "refined.jsonl"]
    assert _pmlm("refine", *refined) == 0
    assert _pmlm("cache", "export", run.path, tmp_path / "out" / "replies.jsonl") == 0
    folders = [prepared.parent / "cohort", prepared, run.path, tmp_path / "out"]
    paths = [*folders, *(path for folder in folders for path in folder.rglob("*"))]
    assert len(paths) > 15
    assert [path for path in paths if path.stat().st_mode & 0o077] == []


def test_the_evaluation_holds_every_figure_and_every_patient(run: RunFolder) -> None:
    evaluation = json.loads(run.evaluation.read_text())
    assert {*evaluation["patients"][0]["arms"]} == {*ARMS, *CONTROLS}
    for arm in (*ARMS, *CONTROLS):
        assert set(evaluation["summary"][arm]) == set(METRICS)
        for metric in METRICS:
            each = [patient["arms"][arm][metric] for patient in evaluation["patients"]]
            assert evaluation["summary"][arm][metric] == pytest.approx(np.mean(each))
            low, high = {"words": (1, np.inf), "margin": (-1, 1)}.get(metric, (0, 1 + 1e-6))
            assert all(low <= value <= high for value in each)
    for arm in ("random", "policy", *CONTROLS):
        delta = evaluation["summary"]["delta"][arm]
        f1 = [[p["arms"][a]["bertscore_f1"] for p in evaluation["patients"]] for a in (arm, "keep_all")]
        assert delta["mean"] == pytest.approx(np.mean(np.subtract(*f1)))
        assert delta["ci95"][0] <= delta["mean"] <= delta["ci95"][1]


def test_the_controls_say_what_the_prompts_and_the_letters_say(run: RunFolder, prepared: Path) -> None:
    letters = {e.reference for e in EpisodeSet.load(prepared).of("train")}
    for patient in json.loads(run.evaluation.read_text())["patients"]:
        said = {name: patient["arms"][name]["reply"] for name in CONTROLS}
        assert said["echo"] == patient["arms"]["keep_all"]["prompt"]
        assert patient["arms"]["echo"]["copy"] == pytest.approx(1, abs=1e-5)
        assert said["label"] == patient["predicted"]
        assert said["echo"].startswith(said["facts"])
        assert {said[name] for name in CONTROLS if name.endswith("-letter")} <= letters


def test_edits_are_counted_in_how_many_ways_prompts_were_edited(run: RunFolder) -> None:
    evaluation = json.loads(run.evaluation.read_text())
    for arm in ARMS:
        ways = {
            tuple(sorted(role_places(p["roles"])[slot] for slot in p["arms"][arm]["deleted"]))
            for p in evaluation["patients"]
        }
        assert evaluation["summary"]["edits"][arm] == len(ways)


def test_the_deleted_slots_account_for_every_prompt(run: RunFolder) -> None:
    for patient in json.loads(run.evaluation.read_text())["patients"]:
        for arm in ARMS:
            played = patient["arms"][arm]
            assert len(played["deleted"]) == (0 if arm == "keep_all" else 3)
            left = [word for slot, word in enumerate(patient["words"]) if slot not in played["deleted"]]
            assert played["prompt"] == " ".join(left)


def test_every_distinct_prompt_is_paid_for_once_and_kept(run: RunFolder) -> None:
    evaluation = json.loads(run.evaluation.read_text())
    prompts = {p["arms"][arm]["prompt"] for p in evaluation["patients"] for arm in ARMS}
    kept = [entry.request["prompt"] for entry in ReplyCache(run.replies)]
    spent = json.loads((run.path / "spent.json").read_text())
    assert spent["llm_calls"] == len(kept) == len(set(kept))
    assert prompts < set(kept)


def test_tensorboard_shows_the_metrics(run: RunFolder) -> None:
    events = EventAccumulator(str(run.path)).Reload()
    deltas = [event.value for event in events.Scalars("train/delta")]
    assert deltas == pytest.approx([line["delta"] for line in run.metrics()], abs=1e-6)


def test_a_run_cut_short_and_resumed_ends_as_if_it_had_never_stopped(prepared: Path, run: RunFolder) -> None:
    folder = prepared.parent / "cut"
    arguments = ["--episodes", prepared, "--run", folder, *OPTIONS]

    class Cut(Exception):
        pass

    import agents.training.train

    honest, calls = agents.training.train.save_checkpoint, []

    def cut(*given: Any) -> None:
        honest(*given)
        calls.append(1)
        if len(calls) == 2:
            raise Cut

    agents.training.train.save_checkpoint = cut
    try:
        with pytest.raises(Cut):
            main("train", [str(argument) for argument in arguments])
    finally:
        agents.training.train.save_checkpoint = honest
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"update": 3, "del')  # what a crash may leave
    shutil.move(folder / "checkpoint", folder / "checkpoint.old")  # as between the two renames
    assert _pmlm("train", *arguments, "--resume") == 0
    resumed = RunFolder(folder)
    assert _without_times(resumed.metrics()) == _without_times(run.metrics())
    a, b = (WordPolicy.from_pretrained(folder.checkpoint) for folder in (resumed, run))
    for mine, other in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_a_resumed_run_scores_no_initial_reply_again(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scored in other company its last digits might be others, and the rest of the run with them."""
    few = prepared.parent / "few"
    _pmlm("prepare", "--cohort", prepared.parent / "cohort", "--out", few, "--n-folds", 2, "--max-train", 3)
    arguments = ["--episodes", few, "--run", prepared.parent / "known", *OPTIONS, "--max-llm-calls"]
    n_scored: list[int] = []
    honest = BertScorer.score

    def score(self: BertScorer, replies: Any, references: Any) -> Any:
        n_scored.append(len(replies))
        return honest(self, replies, references)

    monkeypatch.setattr(BertScorer, "score", score)
    assert (
        _pmlm("train", *arguments, 12) == 1
    )  # 3 initial prompts and 6 refined ones, then it ends in the second update
    assert n_scored == [9]
    assert _pmlm("train", *arguments, 1000, "--resume") == 0
    assert n_scored == [9, 6, 6, 6]


def test_resuming_with_other_settings_is_refused(prepared: Path, run: RunFolder, capsys: Any) -> None:
    arguments = ["--episodes", prepared, "--run", run.path, *OPTIONS, "--resume", "--seed", "1"]
    assert _pmlm("train", *arguments) == 2
    assert "has another seed" in capsys.readouterr().err


def test_a_run_is_never_overwritten(prepared: Path, run: RunFolder, capsys: Any) -> None:
    assert _pmlm("train", "--episodes", prepared, "--run", run.path, *OPTIONS) == 2
    assert "holds a run already" in capsys.readouterr().err


def test_the_limit_on_calls_ends_the_run_with_a_clear_line_and_a_higher_one_goes_on(
    prepared: Path, run: RunFolder, capsys: Any
) -> None:
    poor = RunFolder(prepared.parent / "poor")
    arguments = ["--episodes", prepared, "--run", poor.path, *OPTIONS, "--max-llm-calls"]
    assert _pmlm("train", *arguments, 10) == 1
    assert "would exceed the LLM call limit of 10" in capsys.readouterr().err
    assert json.loads((poor.path / "spent.json").read_text())["llm_calls"] == 10
    assert _pmlm("train", *arguments, 1000, "--resume") == 0
    assert _without_times(poor.metrics()) == _without_times(run.metrics())
    assert _pmlm("evaluate", "--run", poor.path) == 0  # the higher limit is the run's from then on
    assert poor.evaluation.read_text() == run.evaluation.read_text()


def test_a_resumed_run_keeps_its_limits_and_its_replies_where_they_are(
    prepared: Path, run: RunFolder, capsys: Any
) -> None:
    folder = RunFolder(prepared.parent / "limited")
    arguments = ["--episodes", prepared, "--run", folder.path, *OPTIONS]
    assert _pmlm("train", *arguments, "--max-llm-calls", 10) == 1
    assert _pmlm("train", *arguments, "--resume") == 1
    assert "exceed the LLM call limit of 10" in capsys.readouterr().err
    assert _pmlm("train", *arguments, "--resume", "--cache", run.replies) == 2
    assert "the replies of this run are kept in the run folder: leave --cache out" in capsys.readouterr().err


def test_a_patient_without_a_reply_is_left_out_of_every_arm_and_named(run: RunFolder, monkeypatch: Any) -> None:
    text = run.evaluation.read_text()
    whole = json.loads(text)
    lost = whole["patients"][1]
    honest = Responder.replies

    def replies(self: Responder, requests: Any) -> Any:
        for lot in honest(self, requests):
            gone = LLMError("the reply was filtered")
            yield {i: gone if requests[i].prompt == lost["arms"]["policy"]["prompt"] else lot[i] for i in lot}

    monkeypatch.setattr(Responder, "replies", replies)
    bench = Workbench(ModelOptions(**{**whole["models"], "device": "cpu"}))  # with no kept replies
    ours = evaluate(EvaluateConfig(run.path), bench)
    run.evaluation.write_text(text)
    assert lost["patient_id"] in ours["without_reply"]
    left = [patient["patient_id"] for patient in ours["patients"]]
    assert left == [p["patient_id"] for p in whole["patients"] if p["patient_id"] not in ours["without_reply"]]
    assert ours["n_patients"] == len(left)
    theirs = {patient["patient_id"]: patient for patient in whole["patients"]}
    for patient in ours["patients"]:
        for arm in ARMS:
            assert patient["arms"][arm]["reply"] == theirs[patient["patient_id"]]["arms"][arm]["reply"]


def test_a_dry_run_tells_the_most_it_may_cost_and_leaves_nothing(prepared: Path, run: RunFolder, capsys: Any) -> None:
    folder = prepared.parent / "dry"
    assert _pmlm("train", "--episodes", prepared, "--run", folder, *OPTIONS, "--dry-run") == 0
    said = capsys.readouterr().out
    n_test = sum('"test"' in text for text in (prepared / "episodes.jsonl").read_text().splitlines())
    assert f"training   {12 + 4 * 3 * 2} LLM calls" in said
    assert f"evaluation {3 * n_test} LLM calls" in said
    assert not folder.exists()
    assert run.metrics()[-1]["llm_calls"] <= 36


def test_a_run_is_replayed_from_its_replies_alone(prepared: Path, run: RunFolder, capsys: Any) -> None:
    replay = RunFolder(prepared.parent / "replay")
    arguments = ["--episodes", prepared, "--run", replay.path, *OPTIONS, "--replay", "--cache", run.replies]
    assert _pmlm("train", *arguments) == 0
    assert _pmlm("evaluate", "--run", replay.path) == 0
    assert replay.evaluation.read_text() == run.evaluation.read_text()
    assert json.loads((replay.path / "spent.json").read_text())["llm_calls"] == 0
    other = ["--episodes", prepared, "--run", prepared.parent / "other", *OPTIONS, "--replay", "--cache", run.replies]
    assert _pmlm("train", *other, "--seed", 5) == 1
    assert "differs from the cached one" in capsys.readouterr().err


def test_the_paper_preset_is_eq_11(prepared: Path) -> None:
    folder = prepared.parent / "paper"
    arguments = ["--preset", "paper", "--episodes", prepared, "--run", folder, "--updates", 1, *OPTIONS[:6]]
    assert _pmlm("train", *arguments) == 0
    settings = json.loads((folder / "config.json").read_text())["settings"]
    assert settings["learner"]["baseline"] == "none"
    assert (settings["learner"]["learning_rate"], settings["dropout"], settings["hidden"]) == (0.005, 0.4, 256)
    line = RunFolder(folder).metrics()[0]
    n_train = sum('"train"' in text for text in (prepared / "episodes.jsonl").read_text().splitlines())
    assert len(line["deltas"]) == n_train


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "--cohort", "/nowhere"], "pmlm prepare: there is no folder /nowhere"),
        (["evaluate", "--run", "/nowhere/run"], "pmlm evaluate: /nowhere/run holds no run"),
        (["train", "--episodes", "/nowhere"], "pmlm train: /nowhere/episodes.jsonl is missing"),
        (["fly"], "pmlm: unknown command 'fly'"),
    ],
)
def test_bad_input_is_one_line_and_no_traceback(arguments: list[str], message: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments=arguments)
    error = capsys.readouterr().err.strip()
    assert stop.value.code == 2
    assert not Path("/nowhere").exists()
    assert error.startswith(message)
    assert len(error.splitlines()) == 1


def test_a_cohort_from_one_seed_is_one_cohort(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _pmlm("simulate", "--out", tmp_path / name, "--patients", 40, "--seed", 7)
    for file in ("patients.csv", "checkups.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_demo_runs_on_ones_own_cohort_and_fetches_what_it_needs(
    prepared: Path, monkeypatch: Any, capsys: Any
) -> None:
    fetched: list[str] = []
    monkeypatch.setattr("agents.cli.demo.fetch", lambda *names: fetched.extend(names))
    run = prepared.parent / "demo"
    arguments = ["--cohort", prepared.parent / "cohort", "--run", run, "--train-patients", 6, "--test-patients", 4]
    assert _pmlm("demo", *arguments, *DEMO, "--n-folds", 2) == 0
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["n_patients"] == 4
    # 6 untouched prompts and 4 updates of 3 x 2 in training, as many calls for the rule, 4 ways to edit 4 prompts
    assert 0 < json.loads((run / "spent.json").read_text())["llm_calls"] <= 30 + 30 + 16
    assert fetched == ["minilm"]
    said = capsys.readouterr().out
    for row in ("before (keep all)", "best single rule", "after (policy)", "control: echo", "control: label"):
        assert f"\n{row} " in said
    told = said.split("The first 3 of 4 patients:")[1].split("LLM calls")[0]
    first = evaluation["patients"][:3]
    for patient in first:
        for arm in ("keep_all", "policy"):
            assert " ".join(patient["arms"][arm]["reply"].split()) in told
    assert [line.split(",")[0] for line in told.splitlines() if "points" in line and ": F1 " in line] == [
        patient["patient_id"] for patient in first
    ]


def test_with_calls_for_it_the_best_single_rule_is_judged_beside_the_policy(
    run: RunFolder, tmp_path: Path, capsys: Any
) -> None:
    shutil.copytree(run.path, tmp_path / "ruled")
    folder = RunFolder(tmp_path / "ruled")
    before = len(list(ReplyCache(folder.replies)))
    assert _pmlm("evaluate", "--run", folder.path, "--rule-calls", 30) == 0
    said = capsys.readouterr().out
    ours, theirs = (json.loads(each.evaluation.read_text()) for each in (folder, run))
    assert 0 < len(list(ReplyCache(folder.replies))) - before <= 30 + ours["n_patients"]
    gone = [
        {place for slot, place in enumerate(role_places(p["roles"])) if slot in p["arms"][RULE]["deleted"]}
        for p in ours["patients"]
    ]
    rule = set.union(*gone)
    assert len(rule) <= 3
    assert gone == [rule & {*role_places(p["roles"])} for p in ours["patients"]]
    assert ours["summary"]["edits"].pop(RULE) == len({frozenset(places) for places in gone})
    f1 = np.array([[p["arms"][arm]["bertscore_f1"] for arm in ("policy", RULE)] for p in ours["patients"]])
    assert ours["summary"]["delta"][f"policy_over_{RULE}"]["mean"] == pytest.approx(np.mean(f1[:, 0] - f1[:, 1]))
    assert "policy - rule (personal)" in said
    assert "policy - rule (personal)" not in table(theirs)
    for patient in ours["patients"]:  # the others are as they were without it
        del patient["arms"][RULE]
    assert ours["patients"] == theirs["patients"]


@pytest.mark.parametrize("option", ["--rule-calls", "--cases"])
def test_a_negative_number_is_refused(run: RunFolder, option: str, capsys: Any) -> None:
    before = run.evaluation.read_text()
    assert _pmlm("evaluate", "--run", run.path, option, "-1") == 2
    assert "must be 0 or more" in capsys.readouterr().err
    assert run.evaluation.read_text() == before
