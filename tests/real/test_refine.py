"""A trained agent handed on: refine in a fresh process, publish to a folder and to the hub."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors import safe_open

import agents.serving.publish
from agents.evaluation.variants import AGENT
from agents.registry import load
from agents.run_folder import RunFolder
from agents.serving.refine import Refiner
from pmlm_env import EpisodeSet
from pmlm_env.core.edits import Edit
from tests.commands import pmlm
from tests.real.runs import error, small_bert, start
from tests.standins import make_episodes

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("quick_stages", "no_figures")]

TRAIN = ["--llm", "responder", "--device", "cpu", "--n-edits", 3, "--budget", 18]
GROUPS = ["--patients", 3, "--rollouts", 2]  # 9 completions in the first update, as many in the second
KINDS = {
    "lexicon": ["--agent", "lexicon", *GROUPS],
    "network": ["--hidden", 8, *GROUPS],
    "rule": ["--agent", "single-rule", "--protect", "self"],
    "untouched": ["--agent", "keep-all"],
}


def _copy_of(run: Path, target: Path) -> RunFolder:
    return RunFolder(shutil.copytree(run, target))


def _change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def _change_shape(run: RunFolder, **values: Any) -> None:
    config = run.checkpoint / "config.json"
    _change(config, shape={**json.loads(config.read_text())["shape"], **values})


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    assert pmlm("simulate", "--out", folder / "cohort", "--patients", 80) == 0
    few = ["--n-folds", 2, "--max-train", 12, "--max-test", 8]
    assert pmlm("prepare", "--cohort", folder / "cohort", "--out", folder / "prepared", *few) == 0
    for kind, options in KINDS.items():
        train = ["--scorer", small_bert(), "--episodes", folder / "prepared", "--run", folder / kind, *TRAIN, *options]
        assert pmlm("train", *train) == 0
    assert pmlm("evaluate", "--run", folder / "lexicon") == 0
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_process_refines_as_this_one_does(work: Path, kind: str) -> None:
    checkpoint, prepared, out = work / kind / "checkpoint", work / "prepared", work / f"{kind}.jsonl"
    child = start(work / "log", "refine", "--model", checkpoint, "--episodes", prepared, "--out", out)
    child.join()
    assert child.exitcode == 0, (work / "log").read_text()
    episodes = EpisodeSet.load(prepared).of("test")
    refiner = Refiner.from_pretrained(checkpoint)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["patient_id"] for line in lines] == [episode.patient_id for episode in episodes]
    for line, episode in zip(lines, episodes, strict=True):
        alone = refiner.refine((episode.words, episode.roles), episode.vector)
        edits = tuple(Edit(**edit) for edit in line["edits"])
        assert (line["prompt"], edits) == (alone.prompt, alone.edits)
        assert [edit.word for edit in edits] == [episode.words[edit.slot] for edit in edits]
        assert [edit.probability is None for edit in edits] == [kind == "rule"] * len(edits)
        slots = {edit.slot for edit in edits}
        assert len(slots) <= 3 if kind == "rule" else len(slots) == (0 if kind == "untouched" else 3)
        left = [word for slot, word in enumerate(episode.words) if slot not in slots]
        assert alone.prompt.split() == left


def test_it_refines_as_the_evaluation_did(work: Path) -> None:
    evaluated = [trace for trace in RunFolder(work / "lexicon").traces.read() if trace.variant == AGENT]
    refined = Refiner.from_pretrained(work / "lexicon" / "checkpoint").refine_all(
        EpisodeSet.load(work / "prepared").of("test")
    )
    assert [(each.prompt, each.edits) for each in refined] == [(trace.prompt, trace.edits) for trace in evaluated]


def test_words_are_protected_in_training_and_more_of_them_when_prompts_are_refined(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    episodes = EpisodeSet.load(work / "prepared").of("test")
    out, options = tmp_path / "out.jsonl", ["--episodes", work / "prepared"]
    for kind, more, barred in (
        ("rule", [], {"self"}),
        ("network", ["peer", "background"], {"peer", "background"}),
        ("rule", ["instruction"], {"self", "instruction"}),
    ):
        model = work / kind / "checkpoint"
        protect = ["--protect", *more] if more else []
        assert pmlm("refine", "--model", model, *options, "--out", out, *protect) == 0
        for line, episode in zip(out.read_text().splitlines(), episodes, strict=True):
            assert barred.isdisjoint(episode.roles[edit["slot"]] for edit in json.loads(line)["edits"])
    capsys.readouterr()
    assert pmlm("refine", "--model", work / "rule" / "checkpoint", *options, "--protect", "names") == 2
    assert "protect names 'names'" in error(capsys)


def test_one_patients_prompt_is_printed(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    episode = EpisodeSet.load(work / "prepared").of("test")[0]
    options = ["--model", work / "lexicon" / "checkpoint", "--episodes", work / "prepared"]
    capsys.readouterr()
    assert pmlm("refine", *options, "--patient", episode.patient_id) == 0
    printed = capsys.readouterr().out.strip().splitlines()
    assert len(printed) == 1
    assert len(printed[0].split()) == len(episode.words) - 3
    assert pmlm("refine", *options, "--patient", "nobody") == 2
    assert "nobody" in capsys.readouterr().err


def test_prompts_are_printed_one_a_line_and_written_with_their_own_line_breaks(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    episodes = [
        replace(episode, spaces=("\n",) * (len(episode.words) - 1) + ("",))
        for episode in EpisodeSet.load(work / "prepared").of("test")
    ]
    EpisodeSet(episodes).save(tmp_path / "prepared")
    options = ["--model", work / "lexicon" / "checkpoint", "--episodes", tmp_path / "prepared"]
    capsys.readouterr()
    assert pmlm("refine", *options) == 0
    printed = capsys.readouterr().out.splitlines()
    assert pmlm("refine", *options, "--out", tmp_path / "out.jsonl") == 0
    written = [json.loads(line)["prompt"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert printed == [prompt.replace("\n", " ") for prompt in written]
    assert all(prompt.count("\n") > 20 for prompt in written)


def test_the_folder_of_the_refined_prompts_is_made_and_a_folder_in_their_place_is_found_first(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", work / "lexicon" / "checkpoint", "--episodes", work / "prepared"]
    out = tmp_path / "no" / "such" / "x.jsonl"
    assert pmlm("refine", *options, "--out", out) == 0
    assert len(out.read_text().splitlines()) == len(EpisodeSet.load(work / "prepared").of("test"))
    monkeypatch.delattr(Refiner, "refine_all")  # from here on nothing may be refined
    capsys.readouterr()
    assert pmlm("refine", *options, "--out", tmp_path) == 2
    assert error(capsys) == f"pmlm refine: {tmp_path} is a folder: name the file to write"


def test_a_vector_of_another_length_is_refused(work: Path) -> None:
    episode = make_episodes(1)[0]
    refiner = Refiner.from_pretrained(work / "network" / "checkpoint")
    with pytest.raises(ValueError, match="7 numbers, 128 in training"):
        refiner.refine((episode.words, episode.roles), np.zeros(7))


def test_a_published_folder_has_three_files_and_refines_alike(work: Path) -> None:
    out = work / "published"
    assert pmlm("publish", "--run", work / "lexicon", "--out", out, "--license", "apache-2.0") == 0
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    episodes = EpisodeSet.load(work / "prepared").of("test")
    ours, theirs = (Refiner.from_pretrained(f).refine_all(episodes) for f in (work / "lexicon" / "checkpoint", out))
    assert ours == theirs
    with safe_open(out / "model.safetensors", "pt") as weights:
        assert set(weights.keys()) == {"table.weight"}


def test_the_card_tells_of_the_run_and_of_no_patient(work: Path) -> None:
    out = work / "card"
    assert pmlm("publish", "--run", work / "lexicon", "--out", out, "--license", "apache-2.0") == 0
    card = (out / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert (head["license"], head["library_name"]) == ("apache-2.0", "pmlm-env")
    evaluation = json.loads((work / "lexicon" / "evaluation.json").read_text())
    assert f"{100 * evaluation['summary']['delta']['agent']['mean']:+6.2f}" in card
    assert "trained on the replies of | `responder` |" in card
    for episode in EpisodeSet.load(work / "prepared").of("test"):
        assert episode.patient_id not in card
        assert episode.reference[:40] not in card
    for row in (
        "| agent | `lexicon` |",
        "| settings | `patients 3`, `rollouts 2`, `baseline leave-one-out`",
        "| embeddings | not used |",
        "| edits | at most 3 per prompt |",
        "| protected | none |",
        "| budget | 18 completions, 18 of them spent |",
    ):
        assert row in card
    assert pmlm("publish", "--run", work / "network", "--out", out) == 0
    assert "not evaluated" in (out / "README.md").read_text()
    assert "| embeddings | `minilm`, 384 numbers per word |" in (out / "README.md").read_text()
    assert pmlm("publish", "--run", work / "rule", "--out", out) == 0
    assert "| protected | `self` |" in (out / "README.md").read_text()


def test_the_card_tells_of_an_edit_budget_that_is_a_share(work: Path, tmp_path: Path) -> None:
    run = _copy_of(work / "lexicon", tmp_path / "run")
    _change_shape(run, n_edits=0.2)
    assert pmlm("publish", "--run", run.path, "--out", tmp_path / "out") == 0
    assert "| edits | at most a share of 0.2 of each prompt's words |" in (tmp_path / "out" / "README.md").read_text()


def test_a_run_folder_or_any_other_folder_with_files_is_not_published_over(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _copy_of(work / "network", tmp_path / "run").path
    mine, file = tmp_path / "mine", tmp_path / "file"
    mine.mkdir()
    (mine / "README.md").write_text("My own")
    file.write_text("My own")
    agent = tmp_path / "agent"  # with a card by hand
    load(run / "checkpoint").save(agent)
    (agent / "README.md").write_text("My own")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for out in (run, run / "checkpoint", mine, file, agent):
        capsys.readouterr()
        assert pmlm("publish", "--run", run, "--out", out) == 2
        assert error(capsys).startswith(f"pmlm publish: {out} is not a folder that pmlm publish wrote")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    empty = tmp_path / "empty"
    empty.mkdir()
    for _ in range(2):
        assert pmlm("publish", "--run", run, "--out", empty) == 0


@pytest.mark.parametrize("command", ["publish", "evaluate"])
def test_a_run_without_a_checkpoint_is_never_looked_up_on_the_hub(
    work: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    shutil.rmtree(_copy_of(work / "lexicon", tmp_path / "mine").checkpoint)
    asked = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: asked.append(name) or str(tmp_path))
    capsys.readouterr()
    assert pmlm(command, "--run", "mine", *(["--out", "out"] if command == "publish" else [])) == 2
    assert asked == []
    assert "mine has no checkpoint: train first (pmlm train --run mine" in error(capsys)
    assert not Path("out").exists()


@pytest.mark.parametrize("command", ["publish", "evaluate"])
def test_a_checkpoint_whose_agent_cannot_be_is_one_line(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    run = _copy_of(work / "network", tmp_path / "run")
    _change_shape(run, n_edits="3")
    capsys.readouterr()
    assert pmlm(command, "--run", run.path, *(["--out", tmp_path / "out"] if command == "publish" else [])) == 2
    assert error(capsys).startswith(f"pmlm {command}: {run.checkpoint}/config.json: n_edits is '3': use a whole")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["publish", "evaluate"])
def test_a_checkpoint_left_between_its_two_renames_is_read_where_it_is(
    work: Path, tmp_path: Path, command: str
) -> None:
    run = _copy_of(work / "lexicon", tmp_path / "run")
    run.checkpoint.rename(run.checkpoint.with_name("checkpoint.old"))
    assert pmlm(command, "--run", run.path, *(["--out", tmp_path / "out"] if command == "publish" else [])) == 0
    assert not run.checkpoint.exists()  # training may be about to put it there


def test_the_card_shows_no_evaluation_of_another_checkpoint(work: Path, tmp_path: Path) -> None:
    run, out = _copy_of(work / "lexicon", tmp_path / "run"), tmp_path / "out"
    assert json.loads(run.evaluation.read_text())["updates"] == 2
    run.append_metrics(
        {**run.metrics()[-1], "update": 3, "llm_calls": 1_234_567}
    )  # of an update that no checkpoint has seen

    def card() -> str:
        assert pmlm("publish", "--run", run.path, "--out", out) == 0
        return (out / "README.md").read_text()

    assert "| updates | 2 |" in card()
    assert "1234567" not in card()
    assert "On test patients" in card()
    progress = json.loads((run.checkpoint / "trainer.json").read_text())["progress"]
    _change(run.checkpoint / "trainer.json", progress={**progress, "updates": 3})  # as after --resume
    assert "| updates | 3 |" in card()
    assert "not evaluated: `pmlm evaluate`" in card()
    assert "On test patients" not in card()
    _change(run.checkpoint / "trainer.json", progress={**progress, "meter": {**progress["meter"], "calls": 19}})
    assert "not evaluated: `pmlm evaluate`" in card()
    _change(run.checkpoint / "trainer.json", progress={**progress, "updates": 3})
    assert pmlm("evaluate", "--run", run.path) == 0
    assert "On test patients" in card()


def test_the_card_names_models_without_url_system_prompt_or_path(work: Path, tmp_path: Path) -> None:
    run = _copy_of(work / "network", tmp_path / "run")
    _change_shape(run, encoder="/secret/encoders/ours")
    config = json.loads((run.path / "config.json").read_text())
    for llm, name in {
        "openai:gpt-x": "gpt-x",
        "ollama:llama:8b": "llama:8b",
        "local:/secret/models/tuned/": "tuned",
        f"vllm:{tmp_path}": tmp_path.name,
        "local:smollm2-135m": "smollm2-135m",
        "local:someone/model": "someone/model",
    }.items():
        identity = json.dumps({"base_url": "https://secret", "system_prompt": "secret", "extra_body": {"secret": 1}})
        models = {**config["settings"]["models"], "llm": llm, "scorer": "../secret/scorer"}
        models |= {"scorer_layer": 7, "long_texts": "chunks"}
        settings = {**config["settings"], "models": models, "llm_identity": identity}
        _change(run.path / "config.json", settings=settings)
        assert pmlm("publish", "--run", run.path, "--out", tmp_path / "out") == 0
        card = (tmp_path / "out" / "README.md").read_text()
        assert f"replies of | `{name}` |" in card
        assert "| embeddings | `ours`, 384 numbers per word |" in card
        assert "change of BERTScore F1 (`scorer`, layer 7, long texts in chunks) from" in card
        assert "secret" not in card + (tmp_path / "out" / "config.json").read_text()
        assert str(tmp_path.parent) not in card


def test_a_model_name_writes_no_markup_and_nothing_unseen_into_the_card(work: Path, tmp_path: Path) -> None:
    run = _copy_of(work / "network", tmp_path / "run")
    config = json.loads((run.path / "config.json").read_text())
    evil = "gpt`<script>\n| x | y |\x1b[2J\u202e"
    models = {**config["settings"]["models"], "llm": f"openai:{evil}", "scorer": evil}
    _change(run.path / "config.json", settings={**config["settings"], "models": models})
    assert pmlm("publish", "--run", run.path, "--out", tmp_path / "out") == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert r"| trained on the replies of | `gpt'<script> \| x \| y \|\x1b[2J\u202e` |" in card
    assert "\x1b" not in card
    assert "\u202e" not in card


def test_the_words_that_an_agent_knows_are_printed_before_they_leave(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []

    class Api:
        def create_repo(self, *_: Any, **__: Any) -> None:
            said.append(capsys.readouterr().out)
            raise OSError("nothing leaves here")

    monkeypatch.setattr(agents.serving.publish, "HfApi", Api)
    for kind in KINDS:
        assert pmlm("publish", "--run", work / kind, "--repo", "me/mine") == 1
        learned = json.loads((work / kind / "checkpoint" / "config.json").read_text())["learned"]
        words = {text.strip() for _, text in learned.get("lexicon", [])} - {""}
        assert (len(words) > 10) == (kind == "lexicon")
        head, _, listed = said.pop().strip().partition(": ")
        assert head == f"The agent contains {len(words)} words of the training prompts"
        assert listed.split() == (sorted(words) or ["none"])


def test_the_hub_gets_those_three_files_and_gives_them_back(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the hub: what is sent, and what a download by the repository's name brings."""
    hub = work / "hub"
    asked: dict[str, Any] = {}

    class Api:
        def create_repo(self, repo: str, **options: Any) -> None:
            asked.update(repo=repo, **options)

        def upload_folder(self, *, repo_id: str, folder_path: Path, allow_patterns: list[str], **_: Any) -> Any:
            hub.mkdir()
            for path in folder_path.iterdir():
                assert path.name in allow_patterns
                (hub / path.name).write_bytes(path.read_bytes())
            return type("Commit", (), {"repo_url": f"https://hub.example/{repo_id}"})()

    monkeypatch.setattr(agents.serving.publish, "HfApi", Api)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: str(hub))
    assert pmlm("publish", "--run", work / "network", "--repo", "me/mine") == 0
    assert asked == {"repo": "me/mine", "private": True, "exist_ok": True}
    assert {path.name for path in hub.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    ours, theirs = (load(name) for name in (work / "network" / "checkpoint", "me/mine"))
    assert (ours.name, ours.config, ours.shape) == (theirs.name, theirs.config, theirs.shape)
    (_, before), (_, after) = ours.learned(), theirs.learned()
    assert before.keys() == after.keys()
    assert all((after[name] == value).all() for name, value in before.items())


def test_where_to_must_be_said_and_there_must_be_a_run(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pmlm("publish", "--run", work / "lexicon") == 2
    assert "--out FOLDER or --repo OWNER/NAME" in capsys.readouterr().err
    assert pmlm("publish", "--run", work / "nothing", "--out", work / "x") == 2
    assert "contains no run" in capsys.readouterr().err
    published = work / "no-run"
    assert pmlm("publish", "--run", work / "network", "--out", published) == 0
    capsys.readouterr()
    assert pmlm("publish", "--run", published, "--out", work / "x") == 2
    assert error(capsys).startswith(f"pmlm publish: {published / 'config.json'} is damaged, or was not written by")
    assert pmlm("refine", "--model", work / "nothing", "--episodes", work / "prepared") in (1, 2)
    assert not (work / "nothing").exists()
