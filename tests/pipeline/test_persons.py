"""Several stays of one person: in one fold, and never each other's peers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pmlm_env.cohort import Cohort
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.pipeline import Pipeline, PipelineConfig, build_episodes
from pmlm_env.predictors.base import assign_folds
from pmlm_env.predictors.logistic import Logistic

CONFIG = PipelineConfig(k=5, n_folds=2, predictor="logistic", patient_encoder="summaries", split_by="random")


@pytest.fixture(scope="module")
def stays() -> Cohort:
    """120 stays of 40 people, whose stays are alike: without the rule they would be each other's nearest peers."""
    first = simulate_cohort(40, seed=3)
    copies = [
        replace(patient, patient_id=f"{patient.patient_id}-{k}", person_id=patient.patient_id)
        for patient in first
        for k in range(3)
    ]
    return Cohort(tuple(copies), first.schema)


@pytest.fixture(scope="module")
def pipeline(stays: Cohort) -> Pipeline:
    return Pipeline.fit(stays, CONFIG, device="cpu")


def persons_of(peers: list[list[str]]) -> list[set[str]]:
    return [{name.rpartition("-")[0] for name in each} for each in peers]


def peers_of(pipeline: Pipeline, cohort: Cohort) -> list[list[str]]:
    found = pipeline.find_peers(pipeline.encoder.encode(cohort), cohort)
    return [[peer.patient_id for peer in each] for each in found]


def test_nobodys_peer_is_an_own_other_stay(pipeline: Pipeline, stays: Cohort) -> None:
    found = peers_of(pipeline, stays)
    assert all(len({*each}) == CONFIG.k for each in found)
    assert not any(patient.person in persons for patient, persons in zip(stays, persons_of(found), strict=True))


def test_the_peers_are_the_nearest_stays_of_other_people(pipeline: Pipeline, stays: Cohort) -> None:
    vectors = pipeline.encoder.encode(stays).astype(np.float64)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = np.round(units @ units.T, 9)
    for i, found in enumerate(peers_of(pipeline, stays)):
        order = np.argsort(-cosines[i], kind="stable")
        expected = [stays[int(j)].patient_id for j in order if stays[int(j)].person != stays[i].person]
        assert found == expected[: CONFIG.k]


def test_a_new_stay_of_a_training_person_has_other_people_as_peers(
    pipeline: Pipeline, stays: Cohort, tmp_path: Path
) -> None:
    new = Cohort(tuple(replace(patient, patient_id=f"new-{i}") for i, patient in enumerate(stays[:6])), stays.schema)
    expected = peers_of(pipeline, new)
    assert not any(patient.person in persons for patient, persons in zip(new, persons_of(expected), strict=True))
    pipeline.save(tmp_path / "pipeline")
    assert peers_of(Pipeline.load(tmp_path / "pipeline", device="cpu"), new) == expected


def test_too_few_stays_of_other_people_are_refused(stays: Cohort) -> None:
    with pytest.raises(ValueError, match=r"3 training stays of other people, too few for 5 peers: use fewer peers"):
        Pipeline.fit(stays[:6], CONFIG, device="cpu")


def test_a_person_with_nearly_all_stays_is_refused_before_anything_is_fitted(
    stays: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Logistic, "fit", lambda *_: pytest.fail("something was fitted"))
    others = tuple(stays[3 * i] for i in range(4))
    many = tuple(replace(patient, person_id="P9") for patient in stays[60:80])
    with pytest.raises(ValueError, match="person P9 has 4 training stays of other people, too few for 5 peers"):
        Pipeline.fit(Cohort((*others, *many), stays.schema), CONFIG, device="cpu")


def test_whole_episodes_are_made_without_a_person_in_two_parts(stays: Cohort) -> None:
    episodes, report, _ = build_episodes(stays, CONFIG, device="cpu")
    part_of: dict[str, set[str]] = {}
    for episode in episodes:
        part_of.setdefault(episode.patient_id.rpartition("-")[0], set()).add(episode.split)
    assert len(part_of) == 40
    assert all(len(parts) == 1 for parts in part_of.values())
    assert "split: people drawn at random, seed 0; patients: train 84, validation 18, test 18" in str(report)


def test_chance_is_about_stays_of_other_people() -> None:
    first = simulate_cohort(12, seed=3)
    patients = tuple(  # two people of each label, with three stays each
        replace(each, patient_id=f"{i}-{k}", person_id=f"{i}", label=f"condition {i // 2}", extra={"split": split})
        for i, each in enumerate(first)
        for k in range(3)
        for split in ["train" if i < 10 else "test"]
    )
    config = replace(CONFIG, k=27, split_by="split")
    report = build_episodes(Cohort(patients, first.schema), config, device="cpu")[1]
    assert report.peer_agreement["train"] == pytest.approx(3 / 27)
    assert report.chance_agreement["train"] == pytest.approx(3 / 27)


@pytest.mark.parametrize("seed", range(5))
def test_folds_keep_people_together_and_labels_apart(stays: Cohort, seed: int) -> None:
    persons = [patient.person for patient in stays]
    folds = assign_folds(stays.y, 4, np.random.default_rng(seed), persons)
    assert all(len({*folds[[p == person for p in persons]].tolist()}) == 1 for person in {*persons})
    assert {*Counter(folds.tolist()).values()} == {30}
    for label in {*stays.y.tolist()}:
        counts = np.bincount(folds[stays.y == label], minlength=4) / 3
        assert counts.max() - counts.min() <= 1


def test_without_several_stays_folds_are_as_before(stays: Cohort) -> None:
    labels, names = stays.y, [patient.patient_id for patient in stays]
    alone, named = (assign_folds(labels, 5, np.random.default_rng(1), persons) for persons in (None, names))
    np.testing.assert_array_equal(alone, named)


def test_nobodys_peer_is_an_own_other_stay_if_all_training_patients_are_different_people(tmp_path: Path) -> None:
    training = simulate_cohort(40, seed=3)
    pipeline = Pipeline.fit(training, CONFIG, device="cpu")
    new = Cohort(
        tuple(replace(each, patient_id=f"{each.patient_id}-1", person_id=each.patient_id) for each in training),
        training.schema,
    )
    pipeline.save(tmp_path / "pipeline")
    for fitted in (pipeline, Pipeline.load(tmp_path / "pipeline", device="cpu")):
        found = peers_of(fitted, new)
        assert all(len({*each}) == CONFIG.k for each in found)
        assert not any(patient.person in peers for patient, peers in zip(new, found, strict=True))
    # Without the rule, everybody's nearest peer would be the own earlier stay.
    strangers = Cohort(tuple(replace(each, person_id="") for each in new), new.schema)
    assert [each[0] for each in peers_of(pipeline, strangers)] == [each.patient_id for each in training]
