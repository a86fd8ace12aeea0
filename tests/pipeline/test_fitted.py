"""A pipeline that was saved, moved and loaded somewhere else predicts, encodes, retrieves and fills as before."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmlm_env.cohort import Cohort, Indicator, Patient, Schema, read_cohort, split_by_date, write_cohort
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.pipeline import Pipeline, PipelineConfig, build_episodes
from pmlm_env.predictors import BoostedTrees
from pmlm_env.retrieval import NetworkEncoder
from tests import fresh
from tests.commands import pmlm

pytestmark = pytest.mark.usefixtures("quick_stages")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return simulate_cohort(150, seed=1)


@pytest.fixture(scope="module")
def new() -> Cohort:
    """Twenty new patients without label and reply."""
    later = simulate_cohort(20, seed=9)
    return replace(
        later, patients=tuple(replace(p, patient_id=f"new {i}", label="", reference="") for i, p in enumerate(later))
    )


@pytest.fixture(scope="module")
def train(cohort: Cohort) -> Cohort:
    return split_by_date(cohort).train


@pytest.fixture(scope="module")
def pipeline(train: Cohort) -> Pipeline:
    return Pipeline.fit(train, seed=3, device="cpu")


@pytest.fixture(scope="module")
def saved(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "pipeline"
    pipeline.save(folder)
    return folder


def everything(pipeline: Pipeline, cohort: Cohort) -> list[dict[str, Any]]:
    """What a pipeline says of each patient, to the last digit."""
    episodes = pipeline.episodes(cohort)
    found = pipeline.find_peers(episodes.vectors, cohort)
    return [
        {
            "probabilities": [p.hex() for p in proba],
            "vector": episode.vector.tobytes().hex(),
            "peers": [[peer.patient_id, peer.label, peer.similarity.hex()] for peer in peers],
            "prompt": episode.prompt,
            "roles": [*episode.roles],
        }
        for episode, proba, peers in zip(episodes, pipeline.predict_proba(cohort).tolist(), found, strict=True)
    ]


ELSEWHERE = """
import json, sys
import pmlm_env.predictors.boosted as boosted
import pmlm_env.retrieval.network as network
from pmlm_env.cohort import read_cohort
from pmlm_env.pipeline import Pipeline, PipelineConfig
from tests.pipeline.test_fitted import everything

boosted.N_ITERATIONS, network.MAX_EPOCHS, network.DROPOUT = 7, 9, 0.9
PipelineConfig.__init__.__defaults__ = (3, "listed", "raw", *PipelineConfig.__init__.__defaults__[3:])
boosted.BoostedTrees.__init__.__defaults__ = (77,)
pipeline = Pipeline.load(sys.argv[1])
cohort, _ = read_cohort(sys.argv[2], pipeline.schema)
print(json.dumps([everything(pipeline, cohort.take([i]))[0] for i in range(len(cohort))]))
"""


def test_another_process_with_other_defaults_says_the_same_of_each_patient_alone(
    pipeline: Pipeline, saved: Path, new: Cohort, tmp_path: Path
) -> None:
    moved = tmp_path / "somewhere" / "else"
    shutil.copytree(saved, moved)
    write_cohort(new, tmp_path / "new")
    there = fresh.run("-c", ELSEWHERE, moved, tmp_path / "new", cwd=tmp_path)
    assert there.returncode == 0, there.stderr
    assert json.loads(there.stdout) == everything(pipeline, new)


def test_who_else_is_asked_about_and_in_which_order_changes_nothing(
    pipeline: Pipeline, new: Cohort, cohort: Cohort
) -> None:
    both = replace(new, patients=(*cohort.patients, *new.patients))
    order = np.random.default_rng(0).permutation(len(both))
    shuffled = everything(pipeline, both.take(order))
    alone = everything(pipeline, new)
    assert [shuffled[int(np.flatnonzero(order == len(cohort) + i)[0])] for i in range(len(new))] == alone
    for patient, episode in zip(new, pipeline.episodes(new), strict=True):
        assert EpisodeSet([pipeline.prompt_for(patient)]).digest == EpisodeSet([episode]).digest


def test_labels_and_replies_are_not_used(pipeline: Pipeline, cohort: Cohort) -> None:
    test = split_by_date(cohort).test
    blank = replace(test, patients=tuple(replace(p, label="", reference="") for p in test))
    assert everything(pipeline, blank) == everything(pipeline, test)
    assert {(e.split, e.label, e.reference) for e in pipeline.episodes(blank)} == {("test", "", "")}


def test_peers_are_training_patients_alone(pipeline: Pipeline, train: Cohort, new: Cohort) -> None:
    labels = {patient.patient_id: patient.label for patient in train}
    assert {*pipeline.training.ids} == labels.keys()
    for patient in everything(pipeline, new):
        assert len({peer_id for peer_id, _, _ in patient["peers"]}) == pipeline.k == 10
        assert all(labels[peer_id] == label for peer_id, label, _ in patient["peers"])


def test_training_patients_among_the_new_are_named_in_one_line_and_not_their_own_peers(
    saved: Path, train: Cohort, new: Cohort, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = Pipeline.load(saved)
    mixed = replace(new, patients=(new[0], train[0], new[1], train[1]))
    with caplog.at_level(logging.WARNING):
        said = everything(loaded, mixed)
    assert caplog.messages == [
        "2 of 4 patients are training patients of this pipeline, and predicted better than others; they are not their "
        f"own peers: {train[0].patient_id}, {train[1].patient_id}"
    ]
    for patient, found in zip(mixed, said, strict=True):
        assert patient.patient_id not in [peer_id for peer_id, _, _ in found["peers"]]


def test_prepare_writes_a_pipeline_that_makes_its_test_patients_very_prompts(cohort: Cohort, tmp_path: Path) -> None:
    write_cohort(cohort, tmp_path / "cohort")
    options = ["--n-folds", "2", "--k", "4", "--peers", "listed", "--device", "cpu", "--max-test", "9", "--seed", "2"]
    assert pmlm("prepare", "--cohort", tmp_path / "cohort", "--out", tmp_path / "out", *options) == 0
    (tmp_path / "out").rename(tmp_path / "moved")
    test = EpisodeSet.load(tmp_path / "moved").of("test")
    pipeline = Pipeline.load(tmp_path / "moved")
    everybody, _ = read_cohort(tmp_path / "cohort", pipeline.schema)
    of = {patient.patient_id: patient for patient in everybody}
    assert len(test) == 9
    for episode in test:
        assert EpisodeSet([pipeline.prompt_for(of[episode.patient_id])]).digest == EpisodeSet([episode]).digest


def test_unlabeled_training_patients_are_not_learned_from(train: Cohort, pipeline: Pipeline, new: Cohort) -> None:
    unlabeled = replace(train[0], patient_id="unlabeled", label="")
    more = replace(train, patients=(unlabeled, *train.patients))
    assert everything(Pipeline.fit(more, seed=3, device="cpu"), new) == everything(pipeline, new)


CHOICES = [
    PipelineConfig(k=3, peers="listed"),
    PipelineConfig(template="raw"),
    PipelineConfig(template="paper", retriever="tests.own_stages:First", retriever_kwargs={"skip": 5}),
    PipelineConfig(predictor="tests.own_stages:Shares", predictor_kwargs='{"power": 2}'),
]


@pytest.mark.parametrize("config", CHOICES, ids=["listed peers", "raw data", "own retriever", "own predictor"])
def test_what_was_chosen_is_chosen_again(config: PipelineConfig, train: Cohort, new: Cohort, tmp_path: Path) -> None:
    fitted = Pipeline.fit(train, config, device="cpu")
    fitted.save(tmp_path / "pipeline")
    loaded = Pipeline.load(tmp_path / "pipeline", allow_import=True)
    assert everything(loaded, new) == everything(fitted, new)


def test_a_template_of_ones_own_comes_along(train: Cohort, new: Cohort, tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("# ours\nself: {probabilities}\\n\\n{gestational_weeks} \ninstruction:Be brief: {{short}}.\n")
    fitted = Pipeline.fit(train, PipelineConfig(template=str(file)), device="cpu")
    fitted.save(tmp_path / "pipeline")
    file.unlink()
    assert everything(Pipeline.load(tmp_path / "pipeline"), new) == everything(fitted, new)


@pytest.mark.parametrize("labels", ["one", "others than the schema's"])
def test_any_labels_come_back(labels: str, train: Cohort, new: Cohort, tmp_path: Path) -> None:
    names = ["hay fever"] if labels == "one" else ["zoster", 'a "b"', "Ärger\u2028"]
    some = replace(train, patients=tuple(replace(p, label=names[i % len(names)]) for i, p in enumerate(train)))
    fitted = Pipeline.fit(some, device="cpu")
    fitted.save(tmp_path / "pipeline")
    loaded = Pipeline.load(tmp_path / "pipeline")
    assert loaded.predictor.labels == tuple(sorted(names))
    assert everything(loaded, new) == everything(fitted, new)


def test_the_schema_comes_along_and_another_one_is_refused(train: Cohort, tmp_path: Path) -> None:
    schema = Schema((Indicator("psa", "ng/mL"), Indicator("crp")), language="en")
    men = tuple(
        Patient(f"m{i}", "ab"[i % 2], "", np.datetime64("2021-01-01"), p.dates, p.values[:, 1:3] + 1)
        for i, p in enumerate(train[:30])
    )
    fitted = Pipeline.fit(Cohort(men, schema), PipelineConfig(k=2, template="raw"), device="cpu")
    fitted.save(tmp_path / "pipeline")
    loaded = Pipeline.load(tmp_path / "pipeline")
    assert loaded.schema == schema
    assert everything(loaded, Cohort(men[:4], schema)) == everything(fitted, Cohort(men[:4], schema))
    other = replace(schema, indicators=(Indicator("psa", "ug/L"), Indicator("crp")))
    with pytest.raises(ValueError, match="schema is not that of the pipeline's training patients"):
        loaded.episodes(Cohort(men[:4], other))


def test_only_the_owner_can_read_it(saved: Path) -> None:
    assert saved.stat().st_mode & 0o077 == 0


def test_an_earlier_pipeline_is_replaced_and_nothing_else_is(
    saved: Path, pipeline: Pipeline, new: Cohort, tmp_path: Path
) -> None:
    shutil.copytree(saved, tmp_path / "again")
    (tmp_path / "again" / "pipeline.json").write_text("{}")
    pipeline.save(tmp_path / "again")
    assert everything(Pipeline.load(tmp_path / "again"), new) == everything(pipeline, new)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("Dear")
    (tmp_path / "letters" / "pipeline.json").write_text("{}")
    for folder in (tmp_path / "letters", tmp_path / "letters" / "dear.txt"):
        with pytest.raises(ValueError, match="is or contains something else than a pipeline: choose a new folder"):
            pipeline.save(folder)
    assert (tmp_path / "letters" / "dear.txt").read_text() == "Dear"


def test_a_pipeline_that_cannot_be_saved_leaves_the_earlier_one(
    saved: Path, pipeline: Pipeline, new: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(saved, tmp_path / "pipeline")

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(NetworkEncoder, "save", full)
    with pytest.raises(OSError, match="no space left"):
        pipeline.save(tmp_path / "pipeline")
    assert [path.name for path in tmp_path.iterdir()] == ["pipeline"]
    assert everything(Pipeline.load(tmp_path / "pipeline"), new) == everything(pipeline, new)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (PipelineConfig(predictor="forest"), "there is no predictor .forest.: use boosted-trees, .*or package"),
        (PipelineConfig(retriever="nearest"), "there is no retriever 'nearest': use cosine, faiss, or package"),
        (PipelineConfig(predictor_kwargs={"depth": 3}), "the predictor boosted-trees does not take these arguments"),
        (PipelineConfig(retriever_kwargs={"depth": 3}), "the retriever cosine does not take these arguments"),
        (
            PipelineConfig(predictor="tests.own_stages:Unsaved"),
            "the predictor tests.own_stages:Unsaved lacks save, load: see docs/write-your-own.md",
        ),
        (PipelineConfig(retriever="tests.own_stages:Shares"), "the retriever tests.own_stages:Shares lacks peers"),
        (
            PipelineConfig(k=200),
            r"training patients have a label, but 200 peers each need 201: use fewer peers \(--k\)",
        ),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_fitted(
    config: PipelineConfig, message: str, train: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object) -> None:
        pytest.fail("something was fitted")

    monkeypatch.setattr(BoostedTrees, "fit", never)
    monkeypatch.setattr(NetworkEncoder, "fit", never)
    with pytest.raises(ValueError, match=message):
        Pipeline.fit(train, config)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ({"k": 0}, r"k is 0: use 1 or more \(--k\)"),
        ({"n_folds": 1}, r"n_folds is 1: use 2 or more \(--n-folds\)"),
    ],
)
def test_numbers_that_are_too_small_are_refused_before_anything_is_fitted(number: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PipelineConfig(**number)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            PipelineConfig(predictor="tests.own_stages:Nothing"),
            r"own_stages:Nothing returned an array of shape \(\d+, 12",
        ),
        (
            PipelineConfig(predictor="tests.own_stages:Backwards"),
            "Backwards predicts .*, not the training patients' lab",
        ),
        (PipelineConfig(predictor="tests.own_stages:Lost"), "Lost has no labels after fit"),
        (PipelineConfig(retriever="tests.own_stages:Selfish"), "Selfish did not return 10 different training patients"),
        (
            PipelineConfig(retriever="tests.own_stages:Forgetful"),
            r"Forgetful returned the peers of \d+ patients, not of",
        ),
    ],
)
def test_parts_that_break_their_interface_are_named(config: PipelineConfig, message: str, cohort: Cohort) -> None:
    with pytest.raises(ValueError, match=message):
        build_episodes(cohort, replace(config, n_folds=2), device="cpu")


@pytest.mark.parametrize("returns", ["nothing", "flat", "tuples", "unlike", "nan"])
def test_a_retriever_that_returns_no_peers_is_named_before_the_folds_are_fitted(
    returns: str, train: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pmlm_env.pipeline.episodes.out_of_fold_proba", lambda *_, **__: pytest.fail("folds"))
    config = PipelineConfig(
        predictor="tests.own_stages:Shares",
        patient_encoder="summaries",
        retriever="tests.own_stages:Nameless",
        retriever_kwargs={"returns": returns},  # type: ignore[arg-type]
    )
    with pytest.raises(
        ValueError, match=r"^the retriever tests\.own_stages:Nameless returned something else than peers"
    ):
        build_episodes(train, config, device="cpu")


def test_peers_may_come_in_generators_with_similarities_of_numpy(train: Cohort) -> None:
    stages = {"predictor": "tests.own_stages:Shares", "patient_encoder": "summaries", "template": "personal"}
    lazy, usual = (
        Pipeline.fit(train, PipelineConfig(retriever=f"tests.own_stages:{name}", **stages), device="cpu")  # type: ignore[arg-type]
        for name in ("Nameless", "First")
    )
    assert lazy.prompt_for(train[0]).prompt == usual.prompt_for(train[0]).prompt


def test_parts_that_change_the_arrays_they_get_do_not_change_what_others_get() -> None:
    cohort = simulate_cohort(40, seed=1)
    config = PipelineConfig(k=3, retriever="tests.own_stages:Halving")
    usual = Pipeline.fit(cohort, PipelineConfig(k=3, retriever="tests.own_stages:First"), device="cpu")
    fitted = Pipeline.fit(cohort, config, device="cpu")
    np.testing.assert_array_equal(fitted.training.vectors, usual.training.vectors)
    np.testing.assert_array_equal(fitted.episodes(cohort[:2]).vectors, usual.episodes(cohort[:2]).vectors)
    with pytest.raises(ValueError, match="read-only"):
        Pipeline.fit(cohort, PipelineConfig(k=3, predictor="tests.own_stages:Filling"), device="cpu")
