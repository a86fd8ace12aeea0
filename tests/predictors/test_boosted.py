"""Boosted trees on cohorts made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pmlm_env.predictors import BoostedTrees, Predictor
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


def test_the_seed_decides_and_nothing_else(simulated) -> None:
    cohort = simulated.train[:150]
    np.random.seed(1)
    state = np.random.get_state()[1].copy()
    one, same, other = (BoostedTrees(seed).fit(cohort).predict_proba(cohort) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()
    assert (np.random.get_state()[1] == state).all()


def test_with_one_label_that_one_is_certain(two_groups) -> None:
    high = two_groups.take(np.flatnonzero(two_groups.y == "high"))
    predictor = BoostedTrees().fit(high)
    assert predictor.labels == ("high",)
    assert (predictor.predict_proba(two_groups) == 1).all()


def test_two_patients_are_enough(two_groups) -> None:
    proba = BoostedTrees().fit(two_groups[:2]).predict_proba(two_groups)
    np.testing.assert_allclose(proba.sum(axis=1), 1)


def test_patients_without_any_value_get_probabilities_too(two_groups, make_patient) -> None:
    blank = cohort_of(make_patient(days=()), make_patient(days=(0,)))
    np.testing.assert_allclose(BoostedTrees().fit(two_groups).predict_proba(blank).sum(axis=1), 1)


def test_it_can_be_fitted_to_single_check_ups_with_nothing_measured(make_patient) -> None:
    cohort = cohort_of(*(make_patient(f"p{i}", "xy"[i % 2]) for i in range(6)))
    np.testing.assert_allclose(BoostedTrees().fit(cohort).predict_proba(cohort), 0.5)


def test_an_indicator_new_at_test_time_changes_nothing(two_groups, make_patient) -> None:
    predictor = BoostedTrees().fit(two_groups)
    known = predictor.predict_proba(cohort_of(make_patient(i0=[9.0])))
    assert (predictor.predict_proba(cohort_of(make_patient(i0=[9.0], i9=[3.0]))) == known).all()


def test_no_patients_give_no_rows(two_groups) -> None:
    assert BoostedTrees().fit(two_groups).predict_proba(cohort_of()).shape == (0, 2)


def test_an_empty_cohort_cannot_be_learnt_from() -> None:
    with pytest.raises(ValueError, match="empty cohort"):
        BoostedTrees().fit(cohort_of())


def test_it_must_be_fitted_first(two_groups) -> None:
    with pytest.raises(RuntimeError, match=r"call fit\(cohort\) first"):
        BoostedTrees().predict(two_groups)
