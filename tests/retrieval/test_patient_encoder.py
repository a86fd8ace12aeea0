"""The patient encoder on cohorts made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pmlm_env.predictors.inputs import InputScaler
from pmlm_env.retrieval import CosineRetriever, PatientEncoder
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


def test_the_order_of_patients_does_not_change_their_vectors(encoder, two_groups) -> None:
    order = np.random.default_rng(0).permutation(60)
    np.testing.assert_allclose(encoder.encode(two_groups.take(order)), encoder.encode(two_groups)[order], atol=1e-5)


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
    loaded = PatientEncoder.load(tmp_path, SCHEMA, device="cpu")
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
    with pytest.raises(ValueError, match=r"indicators\[0\] is 'rbc', expected 'pH'; fit the encoder again"):
        PatientEncoder.load(tmp_path, SCHEMA)


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


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncated, "is damaged: fit the encoder again"),
        (_without_bias, "is damaged: fit the encoder again"),
        (_not_finite, "has numbers that are not finite: fit the encoder again"),
        (Path.unlink, "is missing"),
    ],
)
def test_damaged_weights_are_one_line_that_names_the_file(encoder, tmp_path, damage, message) -> None:
    encoder.save(tmp_path)
    damage(tmp_path / "patient_encoder.safetensors")
    with pytest.raises(ValueError, match=rf"/patient_encoder\.safetensors {message}"):
        PatientEncoder.load(tmp_path, SCHEMA)


def test_the_seed_decides_and_nothing_else(two_groups) -> None:
    torch.manual_seed(5)
    one = PatientEncoder.fit(two_groups[:20], seed=1, device="cpu").encode(two_groups)
    torch.manual_seed(6)
    same, other = (PatientEncoder.fit(two_groups[:20], seed, "cpu").encode(two_groups) for seed in (1, 2))
    assert (one == same).all()
    assert np.abs(one - other).max() > 0.01


def test_global_generators_stay_as_they_are(two_groups) -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    PatientEncoder.fit(two_groups[:20], seed=1, device="cpu").encode(two_groups)
    assert (torch.get_rng_state() == torch_state).all()
    assert (np.random.get_state()[1] == numpy_state).all()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_very_few_patients_are_enough(two_groups, n) -> None:
    assert np.isfinite(PatientEncoder.fit(two_groups[:n], seed=0, device="cpu").encode(two_groups)).all()


def test_one_label_is_enough(two_groups) -> None:
    low = two_groups.take(np.flatnonzero(two_groups.y == "low"))
    assert np.isfinite(PatientEncoder.fit(low, seed=0, device="cpu").encode(two_groups)).all()


def test_patients_without_any_value_have_vectors_too(encoder, make_patient) -> None:
    empty, blank = make_patient(np.empty((0, N_INDICATORS))), make_patient(np.full((2, N_INDICATORS), np.nan))
    assert np.isfinite(encoder.encode(cohort_of(empty, blank))).all()
    assert np.isfinite(PatientEncoder.fit(cohort_of(empty, blank), seed=0, device="cpu").encode(cohort_of(empty))).all()


def test_an_empty_cohort_cannot_be_learnt_from() -> None:
    with pytest.raises(ValueError, match="empty cohort"):
        PatientEncoder.fit(cohort_of(), seed=0)


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
