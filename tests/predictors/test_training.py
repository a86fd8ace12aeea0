"""Early stopping is judged by people whom the network does not learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pmlm_env.cohort.schema import Cohort
from pmlm_env.predictors.series import network as series_network
from pmlm_env.predictors.series.lstm import Lstm
from pmlm_env.predictors.training import VALIDATION_FOLDS, TrainingSettings, train
from pmlm_env.retrieval import NetworkEncoder
from pmlm_env.retrieval import network as encoder_network


def parts(n: int, persons: Sequence[str] | None) -> tuple[set[int], set[int]]:
    """Return the patients that a network learned from, and those that judged it."""
    model, seen = nn.Linear(1, 1), {True: set[int](), False: set[int]()}

    def loss(batch: torch.Tensor) -> torch.Tensor:
        seen[model.training].update(batch.tolist())
        return model(torch.ones(len(batch), 1)).square().mean()

    labels = np.array(["a", "b"] * (n // 2))
    settings = TrainingSettings(max_epochs=2)
    train(model, loss, labels, settings, 0, torch.Generator().manual_seed(0), persons)
    return seen[True], seen[False]


def test_nobody_is_in_both_parts() -> None:
    persons = [f"p{k // 3}" for k in range(90)]
    learned, judged = parts(90, persons)
    assert learned | judged == set(range(90))
    assert {persons[k] for k in learned}.isdisjoint(persons[k] for k in judged)
    assert len({persons[k] for k in judged}) == pytest.approx(30 / VALIDATION_FOLDS, abs=1)


def test_without_persons_everybody_is_somebody_else() -> None:
    assert parts(42, None) == parts(42, [f"p{k}" for k in range(42)])


def test_too_few_people_with_many_stays_are_in_both_parts_as_too_few_patients_are() -> None:
    everybody = set(range(60))
    assert parts(60, [f"p{k % 5}" for k in range(60)]) == (everybody, everybody)


@pytest.mark.parametrize("module", [series_network, encoder_network])
def test_networks_of_both_stages_say_whose_the_stays_are(
    module: Any, two_groups: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    stays = Cohort(
        tuple(replace(patient, person_id=f"p{k // 2}") for k, patient in enumerate(two_groups)), two_groups.schema
    )
    given: list[Sequence[str]] = []
    monkeypatch.setattr(module, "train", lambda *arguments: given.append(arguments[-1]))
    if module is series_network:
        Lstm().fit(stays)
    else:
        NetworkEncoder.fit(stays, 0, "cpu")
    assert [*given[0]] == [patient.person_id for patient in stays]
