"""The predictor on real patients: 375 inpatients of Tongji Hospital, Wuhan."""

from __future__ import annotations

from sklearn.metrics import roc_auc_score

from pmlm_env.predictors import BoostedTrees


def test_death_is_foreseen_in_patients_admitted_later(tongji) -> None:
    assert 0.2 < len(tongji.test) / (len(tongji.train) + len(tongji.test)) < 0.4
    predictor = BoostedTrees().fit(tongji.train)
    died = predictor.predict_proba(tongji.test)[:, predictor.labels.index("died")]
    assert roc_auc_score(tongji.test.y == "died", died) >= 0.85
