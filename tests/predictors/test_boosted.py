"""Boosted trees on cohorts made by hand."""

from __future__ import annotations

import os
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest

from pmlm_env.cohort import Cohort
from pmlm_env.predictors import BoostedTrees, Predictor
from pmlm_env.predictors.boosted import N_ITERATIONS
from pmlm_env.predictors.skops_files import save_model
from pmlm_env.predictors.summaries import summarize
from tests.schemas import cohort_of


def test_it_tells_two_plain_groups_apart(two_groups) -> None:
    predictor = BoostedTrees().fit(two_groups[:20])
    assert (predictor.predict(two_groups[20:]) == two_groups[20:].y).all()


def test_it_is_a_predictor() -> None:
    assert isinstance(BoostedTrees(), Predictor)


def test_the_columns_are_the_labels_sorted(two_groups) -> None:
    predictor = BoostedTrees().fit(two_groups)
    assert predictor.labels == ("high", "low")
    high = predictor.predict_proba(two_groups)[:, 0]
    assert ((high > 0.5) == (two_groups.y == "high")).all()


def test_the_order_of_those_predicted_is_of_no_account(two_groups) -> None:
    predictor = BoostedTrees().fit(two_groups)
    order = np.random.default_rng(0).permutation(len(two_groups))
    shuffled = predictor.predict_proba(two_groups.take(order))
    assert (shuffled == predictor.predict_proba(two_groups)[order]).all()


def test_a_patient_is_predicted_alone_as_among_others(simulated) -> None:
    cohort = simulated.train[:150]
    predictor = BoostedTrees().fit(cohort)
    alone = np.concatenate([predictor.predict_proba(cohort[i : i + 1]) for i in range(30)])
    assert len(predictor.labels) >= 9  # of fewer, sums are rounded in the same way in any case
    assert (alone == predictor.predict_proba(cohort)[:30]).all()


def test_probabilities_are_those_of_scikit_learn_but_for_rounding(simulated, two_groups) -> None:
    for cohort in (simulated.train[:100], two_groups):
        predictor = BoostedTrees().fit(cohort)
        summaries = summarize(cohort)
        there = summaries[:, ~np.isnan(summaries).all(axis=0)]
        expected = predictor._model.predict_proba(there)
        np.testing.assert_allclose(predictor.predict_proba(cohort), expected, rtol=1e-5)


def test_a_huge_file_is_refused_unread(two_groups, tmp_path: Path) -> None:
    BoostedTrees().fit(two_groups).save(tmp_path)
    os.truncate(tmp_path / "model.skops", 2**40)
    with pytest.raises(ValueError, match=r"model\.skops has 1,099,511,627,776 bytes, at most 268,435,456"):
        BoostedTrees.load(tmp_path)


def test_all_trees_are_written_as_one_array(simulated, tmp_path: Path) -> None:
    """skops takes time quadratic in the number of arrays: three minutes for 100 labels."""
    cohort = simulated.train[:200]
    fitted = BoostedTrees().fit(cohort)
    fitted.save(tmp_path)
    with ZipFile(tmp_path / "model.skops") as file:
        assert len(file.namelist()) < len(fitted.labels) * N_ITERATIONS
    there = [[tree.nodes for tree in row] for row in BoostedTrees.load(tmp_path)._model._predictors]
    here = [[tree.nodes for tree in row] for row in fitted._model._predictors]
    assert [[nodes.tobytes() for nodes in row] for row in there] == [[nodes.tobytes() for nodes in row] for row in here]


def test_a_model_that_was_written_tree_by_tree_is_read(two_groups, tmp_path: Path) -> None:
    fitted = BoostedTrees().fit(two_groups)
    fitted.save(tmp_path)
    save_model(fitted._model, tmp_path / "model.skops")
    assert (BoostedTrees.load(tmp_path).predict_proba(two_groups) == fitted.predict_proba(two_groups)).all()


def test_two_patients_are_enough(two_groups) -> None:
    proba = BoostedTrees().fit(two_groups[:2]).predict_proba(two_groups)
    np.testing.assert_allclose(proba.sum(axis=1), 1)


def test_patients_without_any_value_get_probabilities_too(two_groups, make_patient) -> None:
    blank = cohort_of(make_patient(days=()), make_patient(days=(0,)))
    np.testing.assert_allclose(BoostedTrees().fit(two_groups).predict_proba(blank).sum(axis=1), 1)


def test_it_can_be_fitted_to_single_check_ups_with_nothing_measured(make_patient) -> None:
    cohort = cohort_of(*(make_patient(f"p{i}", "xy"[i % 2]) for i in range(6)))
    np.testing.assert_allclose(BoostedTrees().fit(cohort).predict_proba(cohort), 0.5)


def test_it_learns_from_the_indicators_of_another_schema(men_cohort: Cohort) -> None:
    predictor = BoostedTrees().fit(men_cohort[:40])
    assert predictor.labels == ("gout", "no disease", "prostate cancer")
    assert (predictor.predict(men_cohort[40:]) == men_cohort[40:].y).all()
