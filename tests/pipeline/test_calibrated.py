"""Probabilities of a pipeline are calibrated on training patients who were predicted out of fold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pmlm_env.cohort import Cohort, Split, split_by_date
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.pipeline import Pipeline, PipelineConfig, PipelineReport, build_episodes

pytestmark = pytest.mark.usefixtures("quick_stages")

BOASTFUL = "tests.own_stages:Boastful"


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return simulate_cohort(300, seed=1)


@pytest.fixture(scope="module")
def split(cohort: Cohort) -> Split:
    return split_by_date(cohort)


@pytest.fixture(scope="module")
def built(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> tuple[EpisodeSet, PipelineReport, Pipeline]:
    template = tmp_path_factory.mktemp("template") / "odds.txt"
    template.write_text("self: {probabilities}\npeer: {peers}\ninstruction: Write.")
    config = PipelineConfig(predictor=BOASTFUL, template=str(template), n_folds=3)
    return build_episodes(cohort, config, device="cpu")


def test_a_boastful_predictor_is_cooled_down_and_predicts_the_same_labels(built, split) -> None:
    _, report, pipeline = built
    raw = pipeline.predictor.predict_proba(split.test)
    calibrated = pipeline.predict_proba(split.test)
    assert pipeline.manifest.temperature > 2
    assert (calibrated.argmax(axis=1) == raw.argmax(axis=1)).all()
    accuracy = report.predictor["test"].micro_f1
    assert raw.max(axis=1).mean() > accuracy + 0.15
    assert calibrated.max(axis=1).mean() == pytest.approx(accuracy, abs=0.1)


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_the_report_of_each_split_is_about_calibrated_probabilities(built, name) -> None:
    assert built[1].predictor[name].calibration_error < 0.25  # 0.5 without


def test_prompts_of_training_patients_and_others_show_calibrated_probabilities(built) -> None:
    for name in ("train", "test"):
        shown = [episode.prompt.split("%")[0].split()[-1] for episode in built[0].of(name)]
        assert np.median([float(percent) for percent in shown]) < 80


def test_a_saved_pipeline_keeps_its_temperature(built, split, tmp_path: Path) -> None:
    pipeline = built[2]
    pipeline.save(tmp_path / "saved")
    loaded = Pipeline.load(tmp_path / "saved", allow_import=True)
    assert json.loads((tmp_path / "saved" / "pipeline.json").read_text())["temperature"] > 2
    assert (loaded.predict_proba(split.test) == pipeline.predict_proba(split.test)).all()


def test_labels_of_test_patients_do_not_reach_the_temperature(cohort, built) -> None:
    late = np.datetime64("2021-12-31")
    others = replace(
        cohort, patients=tuple(replace(p, label="told only here") if p.split_date > late else p for p in cohort)
    )
    _, _, pipeline = build_episodes(others, PipelineConfig(predictor=BOASTFUL, n_folds=3), device="cpu")
    assert pipeline.manifest.temperature == built[2].manifest.temperature


def test_a_pipeline_that_was_fitted_without_folds_is_not_calibrated(split) -> None:
    pipeline = Pipeline.fit(split.train, PipelineConfig(predictor=BOASTFUL), device="cpu")
    assert pipeline.manifest.temperature == 1
    assert (pipeline.predict_proba(split.test) == pipeline.predictor.predict_proba(split.test)).all()
