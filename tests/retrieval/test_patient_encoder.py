"""The patient encoder on cohorts made by hand."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pmlm_env.cohort import Cohort, Schema
from pmlm_env.predictors.inputs import InputScaler
from pmlm_env.retrieval import CosineRetriever, NetworkEncoder
from pmlm_env.retrieval.network import hide_checkups
from tests.schemas import N_INDICATORS, SCHEMA, cohort_of


def test_vectors_are_128_float32_numbers_a_patient(encoder, two_groups) -> None:
    vectors = encoder.encode(two_groups)
    assert vectors.shape == (60, 128)
    assert vectors.dtype == np.float32
    assert encoder.encode(cohort_of()).shape == (0, 128)


def test_new_patients_lie_nearest_to_their_own_group(encoder, two_groups) -> None:
    train, new = two_groups[:40], two_groups[40:]
    retriever = CosineRetriever(encoder.encode(train), [p.patient_id for p in train], list(train.y))
    found = retriever.peers(encoder.encode(new), [p.patient_id for p in new], k=5)
    agreement = np.mean([peer.label == p.label for p, peers in zip(new, found, strict=True) for peer in peers])
    assert agreement > 0.8


def test_a_patient_has_the_same_vector_alone_and_among_others_in_any_order(encoder, two_groups) -> None:
    together = encoder.encode(two_groups)
    order = np.random.default_rng(0).permutation(60)
    assert (encoder.encode(two_groups.take(order)) == together[order]).all()
    assert (np.concatenate([encoder.encode(two_groups[i : i + 1]) for i in range(60)]) == together).all()


def test_a_mean_value_a_gap_and_no_check_up_give_different_vectors(encoder, two_groups, make_patient) -> None:
    scaler = InputScaler.fit(two_groups[:40])
    mean_value = scaler.median * np.expm1(scaler.mean)
    recent = mean_value * 1.2
    measured = make_patient(np.stack([mean_value, recent]))
    not_measured = make_patient(np.stack([np.full(N_INDICATORS, np.nan), recent]))
    no_check_up = make_patient(recent[None])
    a, b, c = encoder.encode(cohort_of(measured, not_measured, no_check_up))
    for one, other in ((a, b), (b, c), (a, c)):
        assert np.abs(one - other).max() > 1e-3


def test_a_value_of_zero_is_not_a_gap(encoder, make_patient) -> None:
    zero = np.full((1, N_INDICATORS), 8.0)
    gap = zero.copy()
    zero[0, 9], gap[0, 9] = 0.0, np.nan
    a, b = encoder.encode(cohort_of(make_patient(zero), make_patient(gap)))
    assert np.abs(a - b).max() > 1e-3


def test_saved_and_loaded_it_gives_the_same_vectors(encoder, two_groups, tmp_path) -> None:
    encoder.save(tmp_path)
    loaded = NetworkEncoder.load(tmp_path, SCHEMA, device="cpu")
    assert (loaded.encode(two_groups) == encoder.encode(two_groups)).all()


def test_nothing_is_pickled(encoder, tmp_path) -> None:
    encoder.save(tmp_path / "new" / "folder")
    names = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert names == ["patient_encoder.json", "patient_encoder.safetensors"]


def test_an_encoder_for_other_indicators_is_not_loaded(encoder, tmp_path) -> None:
    encoder.save(tmp_path)
    path = tmp_path / "patient_encoder.json"
    config = json.loads(path.read_text())
    config["indicators"].reverse()
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"indicators\[0\] is 'rbc', expected 'pH': fit the encoder again"):
        NetworkEncoder.load(tmp_path, SCHEMA)


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:999])


def _without_bias(path: Path) -> None:
    tensors = load_file(path)
    del tensors["first.bias"]
    save_file(tensors, path)


def _not_finite(path: Path) -> None:
    tensors = load_file(path)
    tensors["first.bias"][0] = torch.nan
    save_file(tensors, path)


def _huge(path: Path) -> None:
    os.truncate(path, 2**40)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncated, "is damaged: fit the encoder again"),
        (_without_bias, "lacks the tensor first.bias: fit the encoder again"),
        (_not_finite, ": 'first.bias' has numbers that are not finite: fit the encoder again"),
        (_huge, "is damaged: fit the encoder again"),
        (Path.unlink, "is missing"),
    ],
)
def test_damaged_weights_are_one_line_that_names_the_file(encoder, tmp_path, damage, message) -> None:
    encoder.save(tmp_path)
    damage(tmp_path / "patient_encoder.safetensors")
    with pytest.raises(ValueError, match=rf"/patient_encoder\.safetensors ?{message}"):
        NetworkEncoder.load(tmp_path, SCHEMA)


def test_the_seed_decides_and_nothing_else(two_groups) -> None:
    torch.manual_seed(5)
    one = NetworkEncoder.fit(two_groups[:20], seed=1, device="cpu").encode(two_groups)
    torch.manual_seed(6)
    same, other = (NetworkEncoder.fit(two_groups[:20], seed, "cpu").encode(two_groups) for seed in (1, 2))
    assert (one == same).all()
    assert np.abs(one - other).max() > 0.01


def test_global_generators_stay_as_they_are(two_groups) -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    NetworkEncoder.fit(two_groups[:20], seed=1, device="cpu").encode(two_groups)
    assert (torch.get_rng_state() == torch_state).all()
    assert (np.random.get_state()[1] == numpy_state).all()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_very_few_patients_are_enough(two_groups, n) -> None:
    assert np.isfinite(NetworkEncoder.fit(two_groups[:n], seed=0, device="cpu").encode(two_groups)).all()


def test_one_label_is_enough(two_groups) -> None:
    low = two_groups.take(np.flatnonzero(two_groups.y == "low"))
    assert np.isfinite(NetworkEncoder.fit(low, seed=0, device="cpu").encode(two_groups)).all()


def test_patients_without_any_value_have_vectors_too(encoder, make_patient) -> None:
    empty, blank = make_patient(np.empty((0, N_INDICATORS))), make_patient(np.full((2, N_INDICATORS), np.nan))
    assert np.isfinite(encoder.encode(cohort_of(empty, blank))).all()
    assert np.isfinite(NetworkEncoder.fit(cohort_of(empty, blank), seed=0, device="cpu").encode(cohort_of(empty))).all()


def test_an_empty_cohort_cannot_be_learnt_from() -> None:
    with pytest.raises(ValueError, match="empty cohort"):
        NetworkEncoder.fit(cohort_of(), seed=0)


def test_hidden_check_ups_leave_the_others_in_order_and_together() -> None:
    numbered = torch.arange(1.0, 46.0)[None, None, :, None].expand(64, 2, 45, 35)
    shown = hide_checkups(numbered, torch.Generator().manual_seed(0))
    assert (shown == shown[:, :1, :, :1]).all()
    for row in shown[:, 0, :, 0]:
        left = row[row > 0]
        assert (row[: len(left)] == left).all()
        assert (left.diff() > 0).all()
    kept = (shown[:, 0, :, 0] > 0).sum(dim=1)
    assert kept.min() < 30
    assert kept.max() == 45


# Other schemas


@pytest.fixture(scope="module")
def of_men(men_cohort: Cohort) -> NetworkEncoder:
    return NetworkEncoder.fit(men_cohort[:40], seed=0, device="cpu")


def test_patients_of_another_schema_have_vectors_and_peers(of_men: NetworkEncoder, men_cohort: Cohort) -> None:
    train, new = men_cohort[:40], men_cohort[40:]
    retriever = CosineRetriever(of_men.encode(train), [p.patient_id for p in train], list(train.y))
    found = retriever.peers(of_men.encode(new), [p.patient_id for p in new], k=3)
    agreement = np.mean([peer.label == p.label for p, peers in zip(new, found, strict=True) for peer in peers])
    assert agreement > 0.8


def test_the_inputs_have_the_sizes_of_the_schema(men_cohort: Cohort) -> None:
    assert InputScaler.fit(men_cohort).pad(men_cohort).shape == (60, 2, 20, 5)


def test_of_more_check_ups_than_the_schema_allows_the_latest_are_used(
    of_men: NetworkEncoder, men_cohort: Cohort
) -> None:
    patient = men_cohort[0]
    values = np.tile(patient.values, (21, 1)) * np.linspace(1, 2, 21)[:, None]
    long = replace(patient, dates=patient.dates[0] + np.arange(21), values=values)
    latest = replace(long, dates=long.dates[1:], values=long.values[1:])
    shorter = replace(long, dates=long.dates[2:], values=long.values[2:])
    a, b, c = of_men.encode(replace(men_cohort, patients=(long, latest, shorter)))
    np.testing.assert_allclose(a, b, atol=1e-6)
    assert np.abs(b - c).max() > 1e-4


def test_an_encoder_of_another_schema_is_saved_and_loaded(
    of_men: NetworkEncoder, men_cohort: Cohort, tmp_path: Path
) -> None:
    of_men.save(tmp_path)
    loaded = NetworkEncoder.load(tmp_path, men_cohort.schema, device="cpu")
    np.testing.assert_array_equal(loaded.encode(men_cohort), of_men.encode(men_cohort))


def _with_unit(schema: Schema, unit: str) -> Schema:
    return replace(schema, indicators=(replace(schema.indicators[0], unit=unit), *schema.indicators[1:]))


def test_patients_with_another_schema_than_the_training_patients_are_refused(
    of_men: NetworkEncoder, men_cohort: Cohort, two_groups: Cohort
) -> None:
    with pytest.raises(ValueError, match="that of the patient encoder: there are 35 indicators, expected 5"):
        of_men.encode(two_groups)
    micrograms = replace(men_cohort, schema=_with_unit(men_cohort.schema, "ug/mL"))
    with pytest.raises(ValueError, match=r"patient encoder: units\[0\] is 'ug/mL', expected 'ng/mL'"):
        of_men.encode(micrograms)
    shorter = replace(men_cohort, schema=replace(men_cohort.schema, max_checkups=19))
    with pytest.raises(ValueError, match="patient encoder: max_checkups is 19, expected 20"):
        of_men.encode(shorter)


def test_other_labels_and_bounds_do_not_matter_to_an_encoder(of_men: NetworkEncoder, men_cohort: Cohort) -> None:
    first, *others = men_cohort.schema.indicators
    schema = replace(men_cohort.schema, indicators=(replace(first, high=5000, synonyms=()), *others), labels=())
    np.testing.assert_array_equal(of_men.encode(replace(men_cohort, schema=schema)), of_men.encode(men_cohort))


def test_an_encoder_is_not_loaded_for_another_schema(
    of_men: NetworkEncoder, men_cohort: Cohort, tmp_path: Path
) -> None:
    of_men.save(tmp_path)
    with pytest.raises(ValueError, match=r"patient_encoder\.json: there are 5 indicators, expected 35: fit the"):
        NetworkEncoder.load(tmp_path, SCHEMA)
    with pytest.raises(ValueError, match=r"patient_encoder\.json: units\[0\] is 'ng/mL', expected 'ug/mL': fit"):
        NetworkEncoder.load(tmp_path, _with_unit(men_cohort.schema, "ug/mL"))
