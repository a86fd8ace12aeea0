"""How hard the labels of simulated patients are to predict."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import f1_score
from threadpoolctl import threadpool_limits

from pmlm_env.cohort.schema import Cohort

pytestmark = pytest.mark.once

TRAIN_END, TEST_START = np.datetime64("2021-12-31"), np.datetime64("2022-07-01")


def summaries(cohort: Cohort) -> np.ndarray:
    """Return last, mean, lowest, highest, slope and count of each indicator, and the number of check-ups."""
    out = []
    for patient in cohort:
        values, day = patient.values, (patient.dates - patient.split_date).astype(float)[:, None]
        there = ~np.isnan(values)
        n = np.maximum(there.sum(axis=0), 1)
        filled = np.where(there, values, 0)
        mean = filled.sum(axis=0) / n
        away = np.where(there, day - (day * there).sum(axis=0) / n, 0)
        slope = (away * filled).sum(axis=0) / np.maximum((away**2).sum(axis=0), 1e-9)
        last = values[len(values) - 1 - there[::-1].argmax(axis=0), np.arange(values.shape[1])]
        low, high = np.where(there, values, np.inf).min(axis=0), np.where(there, values, -np.inf).max(axis=0)
        table = np.stack([last, mean, low, high, slope])
        out.append(
            np.concatenate([np.where(there.any(axis=0), table, np.nan).ravel(), there.sum(axis=0), [len(values)]])
        )
    return np.array(out)


def split(cohort: Cohort) -> tuple[np.ndarray, np.ndarray]:
    """Return which patients are for training and which for testing."""
    date = np.array([patient.split_date for patient in cohort])
    return date <= TRAIN_END, date >= TEST_START


def predict(cohort: Cohort) -> tuple[np.ndarray, np.ndarray]:
    """Return the true and the predicted labels of the test patients."""
    x, (train, test) = summaries(cohort), split(cohort)
    model = HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=8, l2_regularization=1.0, random_state=0)
    with threadpool_limits(1):
        model.fit(x[train], cohort.y[train])
        return cohort.y[test], model.predict(x[test])


def test_labels_are_about_as_predictable_as_in_the_papers_table_a1(paper_cohort: Cohort) -> None:
    truth, guess = predict(paper_cohort)
    assert 0.75 < f1_score(truth, guess, average="micro") < 0.90
    assert 0.65 < f1_score(truth, guess, average="macro") < 0.92


def test_published_shifts_alone_predict_far_worse(literature_cohort: Cohort) -> None:
    truth, guess = predict(literature_cohort)
    assert 0.22 < f1_score(truth, guess, average="micro") < 0.50


def test_nearest_peers_share_the_label_at_least_twice_as_often_as_chance(paper_cohort: Cohort) -> None:
    x, y, (train, test) = summaries(paper_cohort), paper_cohort.y, split(paper_cohort)
    x = np.where(np.isnan(x), np.nanmedian(x[train], axis=0), x)
    x = (x - x[train].mean(axis=0)) / (x[train].std(axis=0) + 1e-9)
    z = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto").fit(x[train], y[train]).transform(x)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    peers = np.argsort(-z[test] @ z[train].T, axis=1)[:, :10]
    chance = np.mean(y[test][:, None] == y[train])
    assert np.mean(y[train][peers] == y[test][:, None]) > 2 * chance
