"""Prepare, train, evaluate and resume through the command line, with small models and the rule-based LLM."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents.cli.main import main
from agents.evaluation.variants import AGENT, KEEP_ALL, RANDOM
from agents.run_folder import RunFolder
from pmlm_env.llm import ReplyCache
from pmlm_env.rewards.bertscore import BertScorer
from tests.commands import pmlm
from tests.real.runs import prepare, small_bert, small_models

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("quick_stages")]

OPTIONS = [
    "--llm", "responder", "--device", "cpu", "--n-edits", "3", "--patients", "3", "--rollouts", "2",
    "--hidden", "16", "--dropout", "0.2", "--budget", "36",
]  # fmt: skip


def _options() -> list[object]:
    return [*OPTIONS, *small_models()]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    assert pmlm("simulate", "--out", folder / "cohort", "--patients", 120) == 0
    few = ["--n-folds", 2, "--max-train", 24, "--max-test", 12]
    assert pmlm("prepare", "--cohort", folder / "cohort", "--out", folder / "prepared", *few) == 0
    return folder / "prepared"


@pytest.fixture(scope="module")
def run(prepared: Path) -> RunFolder:
    folder = prepared.parent / "run"
    assert pmlm("train", "--episodes", prepared, "--run", folder, *_options()) == 0
    assert pmlm("evaluate", "--run", folder) == 0
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
    out = ["--encoder", small_bert(), "--out", tmp_path / "out" / "refined.jsonl"]
    assert pmlm("refine", "--model", run.checkpoint, "--episodes", prepared, *out) == 0
    assert pmlm("cache", "export", run.path, tmp_path / "out" / "replies.jsonl") == 0
    folders = [prepared.parent / "cohort", prepared, run.path, tmp_path / "out"]
    paths = [*folders, *(path for folder in folders for path in folder.rglob("*"))]
    assert len(paths) > 15
    assert [path for path in paths if path.stat().st_mode & 0o077] == []


def test_every_distinct_prompt_is_paid_for_once_and_kept(run: RunFolder) -> None:
    prompts = {trace.prompt for trace in run.traces.read() if trace.variant in (KEEP_ALL, RANDOM, AGENT)}
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
    arguments = ["--episodes", prepared, "--run", folder, *_options()]

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
    assert pmlm("train", *arguments, "--resume") == 0
    resumed = RunFolder(folder)
    assert _without_times(resumed.metrics()) == _without_times(run.metrics())
    for file in resumed.checkpoint.iterdir():
        assert file.read_bytes() == (run.checkpoint / file.name).read_bytes()


def test_a_resumed_run_scores_no_initial_reply_again(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scored in other company its last digits might be others, and the rest of the run with them."""
    few = prepare(prepared.parent / "few", n_train=3)
    options = [*OPTIONS[:-1], 27, *small_models()]
    arguments = ["--episodes", few, "--run", prepared.parent / "known", *options, "--max-llm-calls"]
    n_scored: list[int] = []
    honest = BertScorer.score

    def score(self: BertScorer, replies: Any, references: Any) -> Any:
        n_scored.append(len(replies))
        return honest(self, replies, references)

    monkeypatch.setattr(BertScorer, "score", score)
    assert pmlm("train", *arguments, 12) == 1  # 3 initial prompts and 6 refined ones, then it ends in the second update
    assert n_scored == [9]
    assert pmlm("train", *arguments, 1000, "--resume") == 0
    assert n_scored == [9, 6, 6, 6]


def test_resuming_with_other_settings_is_refused(prepared: Path, run: RunFolder, capsys: Any) -> None:
    arguments = ["--episodes", prepared, "--run", run.path, *_options(), "--resume", "--seed", "1"]
    assert pmlm("train", *arguments) == 2
    assert "has other values of seed" in capsys.readouterr().err


def test_a_run_is_never_overwritten(prepared: Path, run: RunFolder, capsys: Any) -> None:
    assert pmlm("train", "--episodes", prepared, "--run", run.path, *_options()) == 2
    assert "already contains a run" in capsys.readouterr().err


def test_the_limit_on_calls_ends_the_run_with_a_clear_line_and_a_higher_one_goes_on(
    prepared: Path, run: RunFolder, capsys: Any
) -> None:
    poor = RunFolder(prepared.parent / "poor")
    arguments = ["--episodes", prepared, "--run", poor.path, *_options(), "--max-llm-calls"]
    assert pmlm("train", *arguments, 10) == 1
    assert "would exceed the LLM call limit of 10" in capsys.readouterr().err
    assert json.loads((poor.path / "spent.json").read_text())["llm_calls"] == 10
    assert pmlm("train", *arguments, 1000, "--resume") == 0
    assert _without_times(poor.metrics()) == _without_times(run.metrics())
    assert pmlm("evaluate", "--run", poor.path) == 0  # the higher limit is the run's from then on
    assert poor.evaluation.read_text() == run.evaluation.read_text()


def test_a_resumed_run_keeps_its_limits_and_its_replies_where_they_are(
    prepared: Path, run: RunFolder, capsys: Any
) -> None:
    folder = RunFolder(prepared.parent / "limited")
    arguments = ["--episodes", prepared, "--run", folder.path, *_options()]
    assert pmlm("train", *arguments, "--max-llm-calls", 10) == 1
    assert pmlm("train", *arguments, "--resume") == 1
    assert "exceed the LLM call limit of 10" in capsys.readouterr().err
    assert pmlm("train", *arguments, "--resume", "--cache", run.replies) == 2
    assert "the replies of this run are stored in the run folder: leave out --cache" in capsys.readouterr().err


def test_a_dry_run_tells_the_most_it_may_cost_and_leaves_nothing(prepared: Path, run: RunFolder, capsys: Any) -> None:
    folder = prepared.parent / "dry"
    assert pmlm("train", "--episodes", prepared, "--run", folder, *_options(), "--dry-run") == 0
    said = capsys.readouterr().out
    n_test = sum('"test"' in text for text in (prepared / "episodes.jsonl").read_text().splitlines())
    assert "training   36 LLM calls" in said
    assert f"evaluation {3 * n_test} LLM calls" in said
    assert not folder.exists()
    assert run.metrics()[-1]["llm_calls"] <= 36


def test_a_run_is_replayed_from_its_replies_alone(prepared: Path, run: RunFolder, capsys: Any) -> None:
    replay = RunFolder(prepared.parent / "replay")
    arguments = ["--episodes", prepared, "--run", replay.path, *_options(), "--replay", "--cache", run.replies]
    assert pmlm("train", *arguments) == 0
    assert pmlm("evaluate", "--run", replay.path) == 0
    assert replay.evaluation.read_text() == run.evaluation.read_text()
    assert json.loads((replay.path / "spent.json").read_text())["llm_calls"] == 0
    folder = prepared.parent / "other"
    other = ["--episodes", prepared, "--run", folder, *_options(), "--replay", "--cache", run.replies]
    assert pmlm("train", *other, "--seed", 5) == 1
    assert "differs from the cached one" in capsys.readouterr().err


def test_each_agent_has_settings_of_its_own_by_default_and_on_the_command_line(prepared: Path) -> None:
    folder = prepared.parent / "reinforce"
    arguments = ["--agent", "reinforce", "--patients", 4, "--episodes", prepared, "--run", folder, "--budget", 8]
    assert pmlm("train", *arguments, *OPTIONS[:6], *small_models()) == 0
    config = json.loads((folder / "config.json").read_text())["settings"]
    assert (config["agent"], config["budget"]) == ("reinforce", 8)
    assert [config["settings"][name] for name in ("baseline", "dropout", "hidden", "patients")] == ["none", 0.4, 256, 4]
    (line,) = RunFolder(folder).metrics()
    assert len(line["deltas"]) == 4


def test_a_budget_that_pays_for_no_episode_is_warned_of(
    prepared: Path, caplog: pytest.LogCaptureFixture, capsys: Any
) -> None:
    folder = prepared.parent / "poorest"
    arguments = ["--episodes", prepared, "--run", folder, *small_models(), *OPTIONS]
    assert pmlm("train", *arguments[:-1], 8) == 0
    assert "If its budget of 8 completions is too small for one batch, resume" in caplog.text
    assert "No episode was played in training" in capsys.readouterr().out
    assert RunFolder(folder).budget_spent() == 0


@pytest.mark.parametrize("command", ["train", "demo"])
def test_a_budget_below_one_is_refused(command: str, tmp_path: Path, capsys: Any) -> None:
    assert pmlm(command, "--run", tmp_path / "run", "--budget", 0) == 2
    assert "budget is 0: use a whole number from 1 to 10,000,000" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "--cohort", "/nowhere"], "pmlm prepare: there is no folder /nowhere"),
        (["prepare", "--cohort", __file__], f"pmlm prepare: {__file__} is a file: give the folder that it is in"),
        (
            ["prepare", "--cohort", "/nowhere", "--template", "persnal"],
            "pmlm prepare: there is no template 'persnal' (did",
        ),
        (
            ["prepare", "--cohort", "/nowhere", "--retriever", "cosin"],
            "pmlm prepare: there is no retriever 'cosin' (did",
        ),
        (["evaluate", "--run", "/nowhere/run"], "pmlm evaluate: /nowhere/run contains no run"),
        (["train", "--episodes", "/nowhere"], "pmlm train: /nowhere/episodes.jsonl is missing"),
        (["fly"], "pmlm: unknown command 'fly': use one of demo, "),
        (["evaluat"], "pmlm: unknown command 'evaluat' (did you mean evaluate?): use one of demo, "),
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
        pmlm("simulate", "--out", tmp_path / name, "--patients", 40, "--seed", 7)
    for file in ("patients.csv", "checkups.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_demo_runs_on_ones_own_cohort_and_fetches_what_it_needs(
    prepared: Path, monkeypatch: Any, capsys: Any
) -> None:
    fetched: list[str] = []
    monkeypatch.setattr("agents.cli.demo.fetch", lambda *names: fetched.extend(names))
    run = prepared.parent / "demo"
    arguments = ["--cohort", prepared.parent / "cohort", "--run", run, "--train-patients", 6, "--test-patients", 4]
    assert pmlm("demo", *arguments, *OPTIONS, "--scorer", small_bert(), "--n-folds", 2) == 0
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["n_patients"] == 4
    # the budget, as many calls for the rule, 4 variants of 4 prompts
    assert 0 < json.loads((run / "spent.json").read_text())["llm_calls"] <= 36 + 36 + 16
    assert json.loads((run / "config.json").read_text())["settings"]["agent"] == "leave-one-out"
    assert fetched == ["minilm"]
    said = capsys.readouterr().out
    for row in ("before (keep all)", "best single rule", "after (agent)", "control: echo", "control: label"):
        assert f"\n{row} " in said
    told = said.split("The first 3 of 4 patients:")[1].split("LLM calls")[0]
    first = [trace for trace in RunFolder(run).traces.read() if trace.variant == AGENT][:3]
    for trace in first:
        for reply in (trace.initial_reply, trace.replies[0].text):
            assert " ".join(reply.split()) in told
    assert [line.split(",")[0] for line in told.splitlines() if "points" in line and ": F1 " in line] == [
        trace.patient_id for trace in first
    ]
    # A cohort with an error leaves the demo as it was.
    before = _files(run)
    (prepared.parent / "empty").mkdir()
    assert pmlm("demo", "--cohort", prepared.parent / "empty", "--run", run, *OPTIONS) == 2
    assert "has no patients.csv" in capsys.readouterr().err
    assert _files(run) == before


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_demo_does_not_replace_a_run_of_train(run: RunFolder, prepared: Path, capsys: Any) -> None:
    before = _files(run.path)
    assert pmlm("demo", "--cohort", prepared.parent / "cohort", "--run", run.path, *OPTIONS) == 2
    assert capsys.readouterr().err == (
        f"pmlm demo: {run.path} contains a run that is no demo: choose another folder with --run\n"
    )
    assert _files(run.path) == before


def test_tables_of_ones_own_are_not_replaced_by_simulated_ones(tmp_path: Path, capsys: Any) -> None:
    for name, text in (("patients.csv", "patient_id,label\nP1,gout\n"), ("checkups.csv", "patient_id,date,urate\n")):
        own = tmp_path / f"own {name}"
        own.mkdir()
        (own / name).write_text(text)
        assert pmlm("simulate", "--out", own, "--patients", 3) == 2
        assert capsys.readouterr().err == (
            f"pmlm simulate: {own} has tables that `pmlm simulate` did not write: choose another folder with --out\n"
        )
        assert [path.name for path in own.iterdir() if path.suffix == ".csv"] == [name]
        assert (own / name).read_text() == text
    simulated = tmp_path / "simulated"
    assert pmlm("simulate", "--out", simulated, "--patients", 3) == 0
    assert pmlm("simulate", "--out", simulated, "--patients", 4, "--seed", 1, "--personal", 1) == 0
    assert pmlm("simulate", "--out", simulated, "--patients", 5) == 0
    (simulated / "labs.csv").touch()
    assert pmlm("simulate", "--out", simulated, "--patients", 5) == 2


@pytest.mark.parametrize("option", ["--rule-calls", "--cases"])
def test_a_negative_number_is_refused(run: RunFolder, option: str, capsys: Any) -> None:
    before = run.evaluation.read_text()
    assert pmlm("evaluate", "--run", run.path, option, "-1") == 2
    assert "must be 0 or more" in capsys.readouterr().err
    assert run.evaluation.read_text() == before
