"""``pmlm prepare --patient-encoder``: vectors trained on labels, untrained, or by an encoder trained before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import pmlm_env  # noqa: F401  # registers PMLM-v0
from pmlm_env.cohort import read_cohort, write_cohort
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.pipeline import Pipeline
from pmlm_env.predictors import BoostedTrees
from pmlm_env.retrieval import NetworkEncoder
from tests.commands import pmlm
from tests.real.runs import small_bert

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("quick_stages")]

N_SUMMARIES = 7 * 35 + 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of 60 patients, and what ``pmlm prepare`` makes of it with the default patient encoder."""
    folder = tmp_path_factory.mktemp("simulated")
    write_cohort(simulate_cohort(60, seed=1), folder / "cohort")
    assert prepare(folder, folder / "labels") == 0
    return folder


def prepare(folder: Path, out: Path, *arguments: object) -> int:
    usual = ["--k", "2", "--n-folds", "2", "--device", "cpu"]
    return pmlm("prepare", "--cohort", folder / "cohort", "--out", out, *usual, *arguments)


def test_summaries_need_no_training_and_come_back_with_the_pipeline(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(NetworkEncoder, "fit", lambda *_: pytest.fail("a network was trained"))
        assert prepare(folder, tmp_path / "out", "--patient-encoder", "summaries") == 0
    episodes, labels = EpisodeSet.load(tmp_path / "out"), EpisodeSet.load(folder / "labels")
    assert episodes.vectors.shape[1] == N_SUMMARIES
    assert [e.peers for e in episodes] != [e.peers for e in labels]
    assert [e.predicted for e in episodes] == [e.predicted for e in labels]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["report"]["peer_agreement"]["test"] > report["report"]["chance_agreement"]["test"]
    pipeline = Pipeline.load(tmp_path / "out")
    everybody, _ = read_cohort(folder / "cohort", pipeline.schema)
    of = {patient.patient_id: patient for patient in everybody}
    for episode in episodes.of("test"):
        again = pipeline.prompt_for(of[episode.patient_id])
        assert EpisodeSet([again]).digest == EpisodeSet([episode]).digest
    for episode in episodes.of("train"):  # no labels are used, so vectors need not be out of fold
        np.testing.assert_array_equal(pipeline.prompt_for(of[episode.patient_id]).vector, episode.vector)


def test_an_agent_learns_with_summaries_and_refines_new_patients(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, run = tmp_path / "out", tmp_path / "run"
    assert prepare(folder, out, "--patient-encoder", "summaries") == 0
    small = str(small_bert())
    with gym.make("PMLM-v0", episodes=str(out), llm="responder", scorer=small, encoder=small) as env:
        observation, _ = env.reset(seed=0)
        assert observation["patient"].shape == (N_SUMMARIES,)
    options = ["--agent", "leave-one-out", "--budget", 9, "--patients", 3, "--rollouts", 2, "--n-edits", 3]
    models = ["--scorer", small, "--encoder", small, "--llm", "responder", "--device", "cpu"]
    assert pmlm("train", "--episodes", out, "--run", run, *options, *models) == 0
    refine = ["--model", run, "--out", tmp_path / "refined.jsonl", "--encoder", small, "--device", "cpu"]
    assert pmlm("refine", *refine, "--cohort", folder / "cohort", "--pipeline", out) == 0
    assert len((tmp_path / "refined.jsonl").read_text().splitlines()) == 60
    capsys.readouterr()
    assert pmlm("refine", *refine, "--episodes", folder / "labels") == 2
    assert f"the patient vector has 128 numbers, {N_SUMMARIES} in training: prepare" in capsys.readouterr().err


@pytest.mark.parametrize("inside", ["pipeline", "patient_encoder"])
def test_an_encoder_of_a_folder_is_used_as_it_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    given = tmp_path / "run"
    for name in ("patient_encoder.json", "patient_encoder.safetensors"):
        (given / inside).mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "labels" / "pipeline" / name, given / inside / name)
    monkeypatch.setattr(NetworkEncoder, "fit", lambda *_: pytest.fail("a network was trained"))
    chosen = given / inside if inside == "pipeline" else given
    assert prepare(folder, tmp_path / "out", "--patient-encoder", chosen) == 0
    shutil.rmtree(given)
    before, after = Pipeline.load(folder / "labels"), Pipeline.load(tmp_path / "out")
    np.testing.assert_array_equal(after.training.vectors, before.training.vectors)
    test, as_before = (EpisodeSet.load(each).of("test") for each in (tmp_path / "out", folder / "labels"))
    assert test.digest == as_before.digest
    train = EpisodeSet.load(tmp_path / "out").of("train")
    np.testing.assert_array_equal(train.vectors, after.training.vectors)


def _without(folder: Path, _: Path) -> Path:
    return folder / "cohort"


def _of_men(folder: Path, scratch: Path) -> Path:
    shutil.copytree(folder / "labels" / "pipeline", scratch / "men")
    config = scratch / "men" / "patient_encoder.json"
    config.write_text(config.read_text().replace('"alt"', '"psa"'))
    return scratch / "men"


def _damaged(folder: Path, scratch: Path) -> Path:
    shutil.copytree(folder / "labels" / "pipeline", scratch / "damaged")
    (scratch / "damaged" / "patient_encoder.safetensors").write_bytes(b"half")
    return scratch / "damaged"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda *_: "label", "there is no patient encoder label: use labels, summaries, or a folder with patient_enc"),
        (_without, "cohort: use labels, summaries, or a folder with patient_encoder.json or patient_encoder/patient_"),
        (_of_men, "'psa', expected 'alt': fit the encoder again"),
        (_damaged, "patient_encoder.safetensors is damaged: fit the encoder again"),
    ],
    ids=["no name", "another folder", "other patients", "damaged"],
)
def test_an_encoder_that_cannot_be_used_is_refused_before_anything_is_fitted(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    make,
    message: str,
) -> None:
    monkeypatch.setattr(BoostedTrees, "fit", lambda *_: pytest.fail("a predictor was fitted"))
    assert prepare(folder, tmp_path / "out", "--patient-encoder", make(folder, tmp_path)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_faiss_makes_the_prompts_of_cosine(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    assert prepare(folder, tmp_path / "out", "--retriever", "faiss") == 0
    assert EpisodeSet.load(tmp_path / "out").digest == EpisodeSet.load(folder / "labels").digest
    assert Pipeline.load(tmp_path / "out").manifest.retriever.name == "faiss"
