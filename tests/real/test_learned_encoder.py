"""A patient encoder that is learned with the policy, through the command line: trained, exported, used for peers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.registry import load
from pmlm_env.cohort import read_cohort
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.traces import TraceFile
from pmlm_env.pipeline import Pipeline
from tests.commands import pmlm
from tests.real.new_patients import N_NEW, made
from tests.real.runs import small_models

pytestmark = [
    pytest.mark.once,
    pytest.mark.real,
    pytest.mark.usefixtures("quick_stages", "hashed_sentences", "no_figures"),
]

PREPARE = ["--n-folds", 2, "--k", 4, "--device", "cpu"]
TRAIN = [
    "--patient-vector", "learned", "--budget", 12, "--patients", 2, "--rollouts", 2, "--n-edits", 2, "--hidden", 8,
    "--llm", "responder", "--device", "cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned an encoder, and its patients prepared anew with it."""
    folder = tmp_path_factory.mktemp("learned")
    train = ["train", "--episodes", made() / "prepared", "--run", folder / "run", *small_models(), *TRAIN]
    assert pmlm(*train) == 0
    again = ["prepare", "--cohort", made() / "cohort", "--out", folder / "anew", "--patient-encoder", folder / "run"]
    assert pmlm(*again, *PREPARE) == 0
    return folder


def test_pmlm_prepare_writes_the_check_ups_of_the_pipelines_standardization() -> None:
    episodes = EpisodeSet.load(made() / "prepared")
    pipeline = Pipeline.load(made() / "prepared")
    assert pipeline.scaler is not None
    cohort, _ = read_cohort(made() / "cohort")
    by_id = dict(zip((patient.patient_id for patient in cohort), pipeline.scaler.pad(cohort), strict=True))
    expected = np.stack([by_id[episode.patient_id] for episode in episodes])
    np.testing.assert_array_equal(episodes.padded_checkups(range(len(episodes))), expected.reshape(len(episodes), -1))


def test_the_exported_encoder_gives_the_vectors_that_the_policy_made_of_the_check_ups(work: Path) -> None:
    before, after = EpisodeSet.load(made() / "prepared"), EpisodeSet.load(work / "anew")
    policy = load(work / "run" / "checkpoint").policy
    with torch.inference_mode():
        seen = policy.patient_network(torch.from_numpy(before.padded_checkups(range(len(before)))))
    np.testing.assert_allclose(after.vectors, seen.numpy(), rtol=1e-4, atol=1e-5)


def test_peers_are_found_anew_by_it_and_their_agreement_is_printed(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "anew"
    assert (
        pmlm("prepare", "--cohort", made() / "cohort", "--out", out, "--patient-encoder", work / "run", *PREPARE) == 0
    )
    assert re.search(r"test: .*; peers with the patient's label 0\.\d\d \(by chance", capsys.readouterr().out)
    before, after = EpisodeSet.load(made() / "prepared"), EpisodeSet.load(out)
    assert [e.predicted for e in before] == [e.predicted for e in after]
    assert [e.peers for e in before] != [e.peers for e in after]
    assert [e.peers for e in after] == [e.peers for e in EpisodeSet.load(work / "anew")]


def test_the_whole_road_goes_on_from_there_to_new_patients(work: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "second", tmp_path / "refined.jsonl"
    assert pmlm("train", "--episodes", work / "anew", "--run", run, *small_models(), *TRAIN) == 0
    assert pmlm("evaluate", "--run", run) == 0
    assert json.loads((run / "evaluation.json").read_text())["n_patients"] > 0
    encoder = ["--encoder", small_models()[1]]
    assert pmlm("refine", "--model", run, "--cohort", made() / "new", "--out", out, "--device", "cpu", *encoder) == 0
    refined = TraceFile(out).read()
    assert len(refined) == N_NEW
    assert all(len(trace.edits) == 2 for trace in refined)


def test_training_says_where_the_encoder_is(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert pmlm("train", "--episodes", made() / "prepared", "--run", run, *small_models(), *TRAIN) == 0
    said = f"The patient encoder is in {run}/patient_encoder; for `pmlm prepare`: --patient-encoder {run}"
    assert said in capsys.readouterr().out
    for name in ("patient_encoder.json", "patient_encoder.safetensors"):
        assert (run / "patient_encoder" / name).read_bytes() == (work / "run" / "patient_encoder" / name).read_bytes()


def test_the_default_agent_exports_nothing(tmp_path: Path) -> None:
    options = [*small_models(), *TRAIN[2:]]
    assert pmlm("train", "--episodes", made() / "prepared", "--run", tmp_path / "run", *options) == 0
    assert not (tmp_path / "run" / "patient_encoder").exists()


def test_folders_without_check_ups_are_refused_before_a_run_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, run = tmp_path / "prepared", tmp_path / "run"
    old.mkdir()
    for name in ("episodes.jsonl", "vectors.safetensors", "labels.json"):
        (old / name).write_bytes((made() / "prepared" / name).read_bytes())
    assert pmlm("train", "--episodes", old, "--run", run, *small_models(), *TRAIN) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"{old} has no check-ups, from which leave-one-out learns with these settings: prepare it again" in line
    assert not (run / "config.json").exists()
    assert pmlm("train", "--episodes", old, "--run", run, *small_models(), *TRAIN[2:]) == 0


def test_check_ups_leave_the_prepared_folder_neither_in_traces_nor_with_a_published_agent(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = work / "run"
    assert pmlm("evaluate", "--run", run) == 0
    assert pmlm("publish", "--run", run, "--out", tmp_path / "published") == 0
    files = {path.name: path for path in (tmp_path / "published").iterdir()}
    assert sorted(files) == ["README.md", "config.json", "model.safetensors"]
    assert "| patient vector | computed by the agent from check-ups |" in files["README.md"].read_text()
    # A patient's values as they would appear in a text; safetensors hold the policy's weights alone, by their names.
    values = EpisodeSet.load(made() / "prepared").checkups[0].values
    texts = [f"{value:.4f}" for value in values[np.isfinite(values)][:20].tolist()]
    texts_of = [*run.glob("*.json*"), *(run / "checkpoint").glob("*.json"), files["README.md"], files["config.json"]]
    written = "".join(path.read_text() for path in texts_of) + capsys.readouterr().err
    assert not [text for text in texts if text in written]
    assert "checkups.safetensors" not in {path.name for path in run.rglob("*")}
