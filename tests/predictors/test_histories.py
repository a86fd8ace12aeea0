"""The two switches of the time-series models: each changes what it should, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pmlm_env.cohort.schema import Cohort
from pmlm_env.predictors import PREDICTORS
from pmlm_env.predictors.inputs import InputScaler
from pmlm_env.predictors.series.histories import SeriesModel, zero_padded
from tests.schemas import MAX_CHECKUPS, N_INDICATORS, cohort_of

pytestmark = pytest.mark.usefixtures("short_training")

NAMES = ("lstm", "cnn", "transformer", "rocket")


def make(name: str, **switches: bool) -> Any:
    if name == "rocket":
        pytest.importorskip("aeon")
        return PREDICTORS.make(name, kwargs={"n_kernels": 300, **switches})
    return PREDICTORS.make(name, kwargs=switches)


def padded_further(cohort: Cohort) -> Cohort:
    return replace(cohort, schema=replace(cohort.schema, max_checkups=cohort.schema.max_checkups + 5))


def test_check_ups_are_in_order_of_time_and_zeros_follow(make_patient) -> None:
    cohort = cohort_of(make_patient(days=(0, 7, 14), i0=[1.0, 2.0, 4.0], i1=[3.0, np.nan, 5.0]))
    scaler = InputScaler.fit(cohort)
    histories = zero_padded(cohort, scaler, true_lengths=True, missingness=True)
    assert histories.channels.shape == (1, MAX_CHECKUPS, 2 * N_INDICATORS)
    expected = np.nan_to_num(scaler.transform(cohort[0].values))
    np.testing.assert_allclose(histories.channels[0, :3, :N_INDICATORS], expected, rtol=1e-6)
    assert histories.channels[0, :3, N_INDICATORS : N_INDICATORS + 3].tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 0]]
    assert (histories.channels[0, 3:] == 0).all()


def test_of_too_many_check_ups_the_latest_are_read(make_patient) -> None:
    values = list(np.random.default_rng(0).lognormal(2, 0.3, 60))
    long, late = (make_patient(days=tuple(range(60))[cut], i0=values[cut]) for cut in (slice(None), slice(-45, None)))
    both = cohort_of(long, late)
    histories = zero_padded(both, InputScaler.fit(both), true_lengths=True, missingness=True)
    assert (histories.channels[0] == histories.channels[1]).all()
    assert histories.lengths.tolist() == [45, 45]


def test_true_lengths_change_lengths_alone_and_missingness_adds_channels_alone(make_groups) -> None:
    cohort = make_groups()
    scaler = InputScaler.fit(cohort)
    made = {
        (lengths, missing): zero_padded(cohort, scaler, true_lengths=lengths, missingness=missing)
        for lengths in (False, True)
        for missing in (False, True)
    }
    n_checkups = [len(patient.dates) for patient in cohort]
    for (lengths, missing), histories in made.items():
        assert (histories.channels[:, :, :N_INDICATORS] == made[False, False].channels).all()
        assert histories.channels.shape[2] == N_INDICATORS * (1 + missing)
        assert histories.lengths.tolist() == (n_checkups if lengths else [12] * len(cohort))


@pytest.mark.parametrize("name", NAMES)
def test_with_true_lengths_more_padding_changes_nothing_and_without_it_does(name, make_groups) -> None:
    train, new = make_groups(), make_groups(seed=1)
    ignoring, reading = make(name, true_lengths=True).fit(train), make(name, true_lengths=False).fit(train)
    assert (ignoring.predict_proba(new) == ignoring.predict_proba(padded_further(new))).all()
    assert (reading.predict_proba(new) != reading.predict_proba(padded_further(new))).any()


@pytest.mark.parametrize("name", NAMES)
def test_without_padding_true_lengths_change_nothing(name, make_patient) -> None:
    rng = np.random.default_rng(0)
    full = cohort_of(
        *(
            make_patient(f"p{i}", "xy"[i % 2], tuple(range(MAX_CHECKUPS)), i0=list(i % 2 + rng.random(MAX_CHECKUPS)))
            for i in range(16)
        )
    )
    with_lengths, without = (make(name, true_lengths=on).fit(full).predict_proba(full) for on in (True, False))
    np.testing.assert_allclose(with_lengths, without, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_only_with_missingness_a_gap_differs_from_the_mean(name, make_groups, make_patient) -> None:
    train = make_groups()
    scaler = InputScaler.fit(train)
    mean = float(scaler.median[0] * np.expm1(scaler.mean[0]))
    gap, measured = (cohort_of(make_patient(days=(0, 7), i0=[x, 1.0], i1=[1.0, 1.0])) for x in (np.nan, mean))
    blind, seeing = make(name, missingness=False).fit(train), make(name, missingness=True).fit(train)
    np.testing.assert_allclose(blind.predict_proba(gap), blind.predict_proba(measured), atol=1e-6)
    assert np.abs(seeing.predict_proba(gap) - seeing.predict_proba(measured)).max() > 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_both_switches_are_on_by_default_and_kept_in_the_file(name, make_groups, tmp_path) -> None:
    default: SeriesModel = make(name)
    assert (default.true_lengths, default.missingness) == (True, True)
    make(name, true_lengths=False, missingness=False).fit(make_groups(2)).save(tmp_path)
    loaded = PREDICTORS.find(name).load(tmp_path)
    assert (loaded.true_lengths, loaded.missingness) == (False, False)


@pytest.mark.parametrize("switch", ["true_lengths", "missingness"])
def test_a_switch_that_is_neither_on_nor_off_is_refused(switch) -> None:
    with pytest.raises(ValueError, match=f"{switch} is 'no': use true or false"):
        PREDICTORS.make("lstm", kwargs={switch: "no"})
