"""Check-ups that are padded batch by batch are those that are padded at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pmlm_env.predictors.inputs import InputScaler
from pmlm_env.retrieval.packed import PackedCheckups
from tests.schemas import MAX_CHECKUPS, N_INDICATORS, cohort_of


@pytest.mark.parametrize("lengths", [(3, 0, MAX_CHECKUPS, MAX_CHECKUPS + 9, 1), (0, 0)])
def test_a_batch_is_what_pad_returns(two_groups, make_patient, lengths: tuple[int, ...]) -> None:
    rng, scaler = np.random.default_rng(1), InputScaler.fit(two_groups)
    patients = []
    for number, length in enumerate(lengths):
        values = rng.lognormal(2, 1, (length, N_INDICATORS))
        values[rng.random(values.shape) < 0.3] = np.nan
        patients.append(make_patient(values, f"P{number}"))
    cohort = cohort_of(*patients)
    packed, padded = PackedCheckups(cohort, scaler, torch.device("cpu")), scaler.pad(cohort)
    assert (len(packed), packed.size) == (len(cohort), padded[0].size)
    for batch in ([0], [*range(len(cohort))], [len(cohort) - 1, 0, 0]):
        np.testing.assert_array_equal(packed.padded(torch.tensor(batch)).numpy(), padded[batch])
