"""Parts of an installed package, by name and by path, in every command, the benchmark and gym.make."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from agents.run_folder import RunFolder
from pmlm_env import EpisodeSet
from pmlm_env.cohort import read_cohort, split_by_date
from pmlm_env.cohort.schema import Schema
from pmlm_env.cohort.sources import SOURCES
from pmlm_env.pipeline import Pipeline
from pmlm_env.predictors.summaries import summarize
from tests.commands import pmlm
from tests.plugin_options import (
    COMMANDS,
    FEW,
    IMPORTS,
    NAMES,
    PATHS,
    PYTHON,
    ROOT,
    ROUGE,
    SHORT,
    install,
    make_run,
    model_options,
    named_parts,
    score,
    shortened,
    source_options,
    stage_options,
    without,
)

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("quick_stages")]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder where the package is installed, on this process's path."""
    folder = tmp_path_factory.mktemp("installed")
    site = install(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        patch.setenv("EXAMPLE_LLM", "cat")  # the reply is the prompt
        yield site
    for name in _modules():
        del sys.modules[name]


def _modules() -> set[str]:
    """The modules of the package that are loaded."""
    return {name for name in sys.modules if name.partition(".")[0] == "example_parts"}


@pytest.fixture(scope="module")
def work(installed: Path, quick_stages: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder: a cohort as tables and as JSON lines, and its prompts and a run, by the package's parts."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_run(installed)
        yield folder


# The page and the package


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_page_runs(line: str, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(line, comments=True)
    while "=" in words[0]:
        monkeypatch.setenv(*words.pop(0).split("=", 1))
    monkeypatch.setenv("EXAMPLE_LLM", "cat")  # not the LLM of somebody's machine
    command, *options = words[1:]
    if command == "prepare":
        options += FEW
    elif command == "benchmark":
        options += ["--budget", "80", "--seeds", "1"]
    elif command == "train" and "--help" not in options:
        options += SHORT
        options += [] if "--llm" in options else ["--llm", "responder"]
        options += [] if "--reward" in options else ["--reward", "rouge-l"]
        quick = ["--patients", "2", "--rollouts", "2"] if "--encoder" in options else ["--agent", "one-part"]
        options += [] if "--agent" in options else quick
    shutil.copytree(work, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    assert pmlm(command, *options) == 0


@pytest.mark.parametrize("line", PYTHON)
def test_a_line_of_python_of_the_page_runs(line: str, work: Path) -> None:
    exec(IMPORTS + line, {})


# Stages 1 to 3


def test_paths_make_the_same_prompts_as_names(work: Path, tmp_path: Path) -> None:
    assert pmlm("prepare", *stage_options(PATHS), "--template", "template.txt", "--out", tmp_path) == 0
    assert EpisodeSet.load(tmp_path).digest == EpisodeSet.load("prepared").digest


def test_the_source_reads_what_the_tables_hold(work: Path) -> None:
    tables, report = read_cohort("cohort")
    lines, same = SOURCES.find("json-lines")(Path("patients.jsonl"), tables.schema, split_by="admitted")
    assert (same.patients, same.checkups) == (report.patients, report.checkups)
    for one, other in zip(tables, lines, strict=True):
        assert (one.patient_id, one.label, one.reference) == (other.patient_id, other.label, other.reference)
        assert one.split_date == other.split_date
        np.testing.assert_array_equal(one.dates, other.dates)
        np.testing.assert_array_equal(one.values, other.values)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "1", "labs": []}', "line 1: there is no 'admitted'"),
        ('{"id": "1", "admitted": "2022-01-01", "labs": [{"date": "2022-01-01", "hgb": 12}]}', "line 1: hgb is 12"),
        ('{"id": "1", "admitted": "2022-01-01", "labs": [{"date": "2022-01-01", "abc": 12}]}', "line 1: .*abc"),
        ('{"id": "1", "admitted": "today", "labs": []}', "line 1: .*today"),
        ("[]", "line 1: "),
        ("{", "line 1: "),
    ],
)
def test_a_line_that_cannot_be_right_is_named(
    line: str, message: str, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrong.jsonl").write_text(line + "\n")
    assert pmlm("prepare", *source_options(NAMES, tmp_path / "wrong.jsonl"), "--out", tmp_path / "out") == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert re.search(rf"wrong.jsonl, {message}", error), error


def test_the_conditions_are_predicted_as_scikit_learn_does(work: Path) -> None:
    cohort, _ = read_cohort("cohort")
    train = split_by_date(cohort).train
    steps = SimpleImputer(keep_empty_features=True), StandardScaler(), LogisticRegression(C=0.5, max_iter=1000)
    model = make_pipeline(*steps).fit(summarize(train), train.y)
    place = {patient.patient_id: i for i, patient in enumerate(cohort)}
    test = EpisodeSet.load("prepared").of("test")
    patients = cohort.take([place[episode.patient_id] for episode in test])
    assert [episode.predicted for episode in test] == model.predict(summarize(patients)).tolist()


def test_the_peers_are_the_nearest_training_patients(work: Path) -> None:
    training = Pipeline.load("prepared", device="cpu").training
    for episode in EpisodeSet.load("prepared").of("test"):
        nearest = np.abs(training.vectors.astype(float) - episode.vector).sum(axis=1).argsort()[:10]
        assert episode.peers == tuple(training.labels[i] for i in nearest)


def test_the_prompts_are_those_of_the_template(work: Path) -> None:
    for episode in EpisodeSet.load("prepared"):
        start = f"The discharge letter of a patient is due. The laboratory tests suggest {episode.predicted}"
        assert episode.prompt.startswith(start) or episode.split == "train"  # whose predictions are out of fold
        assert episode.prompt.endswith("Write the letter in three sentences: diagnosis, findings, advice.")


# Agents, rewards, encoders, LLMs


def test_the_agent_found_the_part_whose_shortening_brings_most(work: Path) -> None:
    train = EpisodeSet.load("prepared").of("train")
    gain = {
        part: np.mean([score(shortened(e, part), e.reference) - score(e.prompt, e.reference) for e in train])
        for part in ("background", "self", "peer", "instruction")
    }
    best = max(gain, key=gain.__getitem__)
    assert gain[best] > 0
    checkpoint = json.loads(Path("runs/mine/checkpoint/config.json").read_text())
    assert checkpoint["learned"] == {"part": best}
    assert (checkpoint["shape"]["encoder"], checkpoint["shape"]["embedding_size"]) == ("character-ngrams", 8)
    deltas = [line["delta"] for line in RunFolder(Path("runs/mine")).metrics()]
    assert max(deltas) == pytest.approx(gain[best], abs=1e-6)


@pytest.mark.parametrize("parts", [NAMES, PATHS], ids=["names", "paths"])
def test_gym_make_takes_them_and_its_spec_can_be_written_as_json(parts: dict[str, str], work: Path) -> None:
    models = {option.removeprefix("--"): parts[option] for option in ("--reward", "--encoder", "--llm")}
    kwargs = {"reward_kwargs": {"measure": "precision"}, "encoder_kwargs": {"size": 8}, "llm_kwargs": {"timeout": 30}}
    made = gym.make("PMLM-v0", episodes="prepared", split="test", n_edits=2, device="cpu", **models, **kwargs)
    env = gym.make(EnvSpec.from_json(made.spec.to_json()))
    episode = EpisodeSet.load("prepared").of("test")[1]
    observation, _ = env.reset(options={"episode": 1})
    words = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=8).transform(episode.words).toarray()
    np.testing.assert_allclose(observation["embeddings"][: len(words)], words, atol=1e-6)
    assert not observation["embeddings"][len(words) :].any()
    env.step(3)
    _, reward, terminated, _, info = env.step(0)
    edited = without(episode, {0, 3})
    assert terminated
    assert info["reply"] == info["prompt"] == edited
    assert info["score"] == pytest.approx(score(edited, episode.reference))
    expected = score(edited, episode.reference) - score(episode.prompt, episode.reference)
    assert reward == pytest.approx(expected)
    assert expected != 0


def test_make_vec_takes_them(work: Path) -> None:
    models = {option.removeprefix("--"): NAMES[option] for option in ("--reward", "--encoder", "--llm")}
    env = gym.make_vec("PMLM-v0", num_envs=2, episodes="prepared", split="test", n_edits=1, device="cpu", **models)
    assert env.reset(seed=0)[0]["embeddings"].shape[0::2] == (2, 64)
    _, rewards, _, _, infos = env.step(np.array([0, 1]))
    last = infos["final_info"]
    test = {episode.prompt: episode for episode in EpisodeSet.load("prepared").of("test")}
    for reward, slot, initial, reply in zip(rewards, (0, 1), last["initial_reply"], last["reply"], strict=True):
        episode = test[initial]
        assert reply == without(episode, {slot})
        scores = [ROUGE.score(episode.reference, text)["rougeL"].fmeasure for text in (reply, initial)]
        assert reward == pytest.approx(scores[0] - scores[1])


def test_an_evaluation_shows_the_rewards_own_scores(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pmlm("evaluate", "--run", "runs/mine") == 0
    part = json.loads(Path("runs/mine/checkpoint/config.json").read_text())["learned"]["part"]
    test = EpisodeSet.load("prepared").of("test")
    before = np.mean([score(e.prompt, e.reference) for e in test])
    after = np.mean([score(shortened(e, part), e.reference) for e in test])
    summary = json.loads(Path("runs/mine/evaluation.json").read_text())["summary"]
    assert summary["keep_all"]["reward"] == pytest.approx(before)
    assert summary["echo"]["reward"] == pytest.approx(before)  # the LLM is an echo
    assert summary["agent"]["reward"] == pytest.approx(after)
    assert summary["reward_delta"]["agent"]["mean"] == pytest.approx(after - before)
    assert "Change of the reward rouge-l" in capsys.readouterr().out


def test_the_benchmark_takes_them_by_name_and_by_path(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {}
    for parts in (NAMES, PATHS):
        out = tmp_path / parts["--llm"]
        benchmark = ["--env", "real", "--episodes", "prepared", *SHORT, "--seeds", 1, *model_options(parts)]
        where = ["--out", out, "--run", tmp_path / f"run-{parts['--llm']}"]
        assert pmlm("benchmark", *benchmark, *where, "--agents", parts["--agent"], "keep-all") == 0
        rows |= {line["agent"]: line for line in map(json.loads, (out / "real" / "runs.jsonl").open())}
    mine, by_path = rows[NAMES["--agent"]], rows[PATHS["--agent"]]
    assert mine["deltas"] == by_path["deltas"]
    assert mine["calls"] == 60
    assert rows["echo"]["deltas"] == rows["keep-all"]["deltas"] == [0.0] * 6
    test = EpisodeSet.load("prepared").of("test")
    (part,) = {role for _, role, _ in mine["deleted"]}
    expected = [score(shortened(e, part), e.reference) - score(e.prompt, e.reference) for e in test]
    assert mine["deltas"] == pytest.approx(expected, abs=1e-6)
    monkeypatch.setenv("EXAMPLE_LLM", "cat -u")  # an LLM with another identity
    assert pmlm("benchmark", *benchmark, *where, "--agents", "keep-all") == 2
    assert "has results with llm_identity" in capsys.readouterr().err.splitlines()[-1]


def test_arguments_are_a_table_in_a_settings_file(work: Path, tmp_path: Path) -> None:
    settings = [f"reward = {NAMES['--reward']!r}", "[models.reward-kwargs]", "measure = 'recall'"]
    (tmp_path / "own.toml").write_text("\n".join(settings))
    options = ["--episodes", "prepared", "--run", tmp_path / "run", "--llm", "responder", "--agent", "keep-all", *SHORT]
    assert pmlm("train", "--config", tmp_path / "own.toml", *options) == 0
    models = RunFolder(tmp_path / "run").settings()["models"]
    assert (models["reward"], models["reward_kwargs"]) == ("rouge-l", {"measure": "recall"})


@pytest.mark.parametrize(
    ("option", "kwargs", "message"),
    [
        ("--reward", '{"measure": "f1"}', "measure is 'f1': use precision, recall or fmeasure"),
        ("--reward", '{"mesure": "recall"}', "the reward rouge-l does not take these arguments: .*'mesure'"),
        ("--encoder", '{"size": 0}', "the encoder character-ngrams has no hidden_size"),
        ("--llm", '{"timeout": 1, "program": "sh"}', "the LLM command does not take these arguments: .*'program'"),
    ],
)
def test_arguments_that_cannot_be_right_are_refused_in_one_line(
    option: str, kwargs: str, message: str, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = {"--reward": "rouge-l", "--llm": "responder", "--agent": "one-part", option: NAMES[option]}
    words = [word for pair in chosen.items() for word in pair]
    assert pmlm("train", "--episodes", "prepared", "--run", tmp_path, *words, f"{option}-kwargs", kwargs, *SHORT) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert re.search(message, error), error


def test_a_failing_program_gives_no_reply_and_no_score(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_LLM", "false")
    own = {"reward": "rouge-l", "encoder": "character-ngrams", "llm": "command", "llm_kwargs": {"timeout": 10}}
    env = gym.make("PMLM-v0", episodes="prepared", n_edits=1, device="cpu", **own)
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(0)
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert info["llm_error"] == "false gave no reply (exit code 1)"


def test_the_agents_settings_are_tuned_within_its_own_space(work: Path, tmp_path: Path) -> None:
    tune = ["--agents", NAMES["--agent"], "--trials", 2, "--budget", 100, "--seeds", 1, "--out", tmp_path]
    assert pmlm("tune", *tune) == 0
    tuned = json.loads((tmp_path / "lite" / "tuned.json").read_text())["agents"]["one-part"]
    assert tuned["settings"].keys() <= {"patients"}
    assert 4 <= tuned["settings"].get("patients", 16) <= 32


# New patients, in a process of its own


def _refine(out: Path) -> list[str]:
    options = ["--model", "runs/mine", *source_options(NAMES, "new.jsonl"), "--reply", "--out", out, "--device", "cpu"]
    return ["refine", *map(str, options)]


def test_new_patients_get_prompts_and_replies_in_another_process(installed: Path, work: Path, tmp_path: Path) -> None:
    out = tmp_path / "refined.jsonl"
    command = [sys.executable, "-m", "agents.cli", *_refine(out)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(installed), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    part = json.loads(Path("runs/mine/checkpoint/config.json").read_text())["learned"]["part"]
    cohort, _ = SOURCES.find("json-lines")(Path("new.jsonl"), Schema.load("obstetric"), split_by="admitted")
    episodes = Pipeline.load("prepared", device="cpu").episodes(cohort)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["patient_id"] for line in lines] == [episode.patient_id for episode in episodes]
    for line, episode in zip(lines, episodes, strict=True):
        assert line["predicted"] == episode.predicted
        assert [peer["label"] for peer in line["peers"]] == list(episode.peers)
        assert line["prompt"] == line["replies"][0]["text"] == shortened(episode, part)


def test_without_the_package_its_names_are_refused_in_one_line(
    installed: Path, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder != str(installed)])
    assert pmlm(*_refine(tmp_path / "refined.jsonl")) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "there is no agent 'one-part' here: install the package that adds it" in error


# Folders that name paths


@pytest.fixture(scope="module")
def by_path(work: Path) -> Path:
    """A folder of prompts, a run and a published agent, all made with paths."""
    assert pmlm("prepare", *stage_options(PATHS), "--out", "paths/prepared") == 0
    train = ["--episodes", "paths/prepared", *SHORT, "--run", "paths/run"]
    assert pmlm("train", *train, *model_options(PATHS), *named_parts(PATHS, "--agent")) == 0
    assert pmlm("publish", "--run", "paths/run", "--out", "paths/policy", "--allow-import") == 0
    return work / "paths"


@pytest.mark.parametrize(
    ("command", "by_name"),
    [
        (["evaluate", "--run", "paths/run"], set()),
        (["train", "--run", "paths/run", "--resume", "--budget", "70"], set()),
        (["publish", "--run", "paths/run", "--out", "paths/again"], set()),
        (["refine", "--model", "paths/run", "--episodes", "paths/prepared"], set()),
        (["refine", "--model", "paths/policy", "--episodes", "paths/prepared"], set()),
        (
            ["refine", "--model", "runs/mine", "--pipeline", "paths/prepared", *source_options(NAMES)],
            {"source", "agent"},
        ),
    ],
)
def test_a_folder_that_names_paths_imports_nothing_unless_allowed(
    command: list[str], by_name: set[str], by_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in _modules():
            patch.delitem(sys.modules, name)
        assert pmlm(*command) == 2
        imported = _modules()
        for name in imported:  # those from before come back
            del sys.modules[name]
    assert imported <= {"example_parts", *(f"example_parts.{name}" for name in by_name)}
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pmlm")]
    assert "example_parts." in error
    assert "--allow-import" in error
    assert pmlm(*command, "--allow-import") == 0
