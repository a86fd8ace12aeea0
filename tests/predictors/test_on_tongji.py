"""The predictors on real patients: 375 inpatients of Tongji Hospital, Wuhan."""

from __future__ import annotations

import pytest
from sklearn.metrics import roc_auc_score

from pmlm_env.predictors import PREDICTORS


@pytest.mark.parametrize("name", ["boosted-trees", "logistic", "lstm", "cnn", "transformer"])
@pytest.mark.usefixtures("short_training")
def test_death_is_foreseen_in_patients_admitted_later(tongji, name) -> None:
    assert 0.2 < len(tongji.test) / (len(tongji.train) + len(tongji.test)) < 0.4
    predictor = PREDICTORS.make(name, seed=0).fit(tongji.train)
    died = predictor.predict_proba(tongji.test)[:, predictor.labels.index("died")]
    assert roc_auc_score(tongji.test.y == "died", died) >= 0.92  # of the first day's lymphocyte ratio alone
