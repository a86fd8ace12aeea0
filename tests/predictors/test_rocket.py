"""ROCKET, against aeon's own and scikit-learn's."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import RidgeClassifierCV
from sklearn.preprocessing import StandardScaler

from pmlm_env.cohort.schema import Cohort
from pmlm_env.predictors.inputs import InputScaler
from pmlm_env.predictors.series.histories import zero_padded
from pmlm_env.predictors.series.rocket import ALPHAS, Rocket
from tests.schemas import cohort_of

convolution_based = pytest.importorskip("aeon.transformations.collection.convolution_based")


def aeon_features(train: Cohort, cohort: Cohort, seed: int) -> np.ndarray:
    """aeon's features of zero-padded histories, (patients, channels, time) as aeon has it."""
    scaler = InputScaler.fit(train)
    series, fitted = (
        zero_padded(each, scaler, true_lengths=False, missingness=False).channels.swapaxes(1, 2).copy()
        for each in (cohort, train)
    )
    rocket = convolution_based.Rocket(n_kernels=200, normalise=False, random_state=seed)
    return rocket.fit(fitted).transform(series)


def test_features_of_zero_padded_histories_are_aeons(make_groups) -> None:
    train, new = make_groups(), make_groups(seed=1)
    rocket = Rocket(seed=5, true_lengths=False, missingness=False, n_kernels=200).fit(train)
    assert (rocket.features(new) == aeon_features(train, new, 5)).all()


def test_labels_are_those_of_scikit_learns_ridge_classifier_on_these_features(make_groups) -> None:
    train, new = make_groups(6, 8), make_groups(6, 8, seed=1)
    rocket = Rocket(seed=5, true_lengths=False, missingness=False, n_kernels=200).fit(train)
    scaler = StandardScaler().fit(aeon_features(train, train, 5))
    ridge = RidgeClassifierCV(ALPHAS).fit(scaler.transform(aeon_features(train, train, 5)), train.y)
    expected = ridge.predict(scaler.transform(aeon_features(train, new, 5)))
    assert len(set(expected)) > 3
    assert np.mean(rocket.predict(new) == expected) >= 0.97  # penalties may tie


def test_with_true_lengths_a_history_is_stretched_to_the_common_length(make_patient, make_groups) -> None:
    values = [1.0, 2.0, 4.0]
    short = cohort_of(make_patient(days=(0, 1, 2), i0=values))
    long = cohort_of(make_patient(days=tuple(range(45)), i0=[x for x in values for _ in range(15)]))
    rocket = Rocket(n_kernels=50).fit(make_groups())
    assert (rocket.features(short) == rocket.features(long)).all()


def test_the_number_of_kernels_is_limited() -> None:
    for wrong in (0, 10**6, 1.5, "many", True):
        with pytest.raises(ValueError, match=r"n_kernels is .*: use 1 to 100,000"):
            Rocket(n_kernels=wrong)


def test_kernels_that_aeon_would_not_draw_are_refused(make_groups, tmp_path) -> None:
    Rocket(n_kernels=50).fit(make_groups(2)).save(tmp_path)
    path = tmp_path / "weights.safetensors"
    tensors = load_file(path)
    tensors["kernels.channels"] += 10_000  # outside of any series
    save_file(tensors, path)
    with pytest.raises(ValueError, match="has other kernels than this version of aeon draws"):
        Rocket.load(tmp_path)


def test_without_aeon_it_is_said_how_to_install_it(make_groups, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "aeon.transformations.collection.convolution_based", None)
    with pytest.raises(ValueError, match=r"needs aeon: install it with `pip install 'pmlm-env\[rocket\]'`"):
        Rocket().fit(make_groups(2))
