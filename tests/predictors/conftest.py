"""Cohorts to predict on, made by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmlm_env.cohort.schema import Cohort, Patient
from pmlm_env.predictors import boosted, lora_llm
from pmlm_env.predictors.series import network
from tests.llm.tiny_llms import model_that_reads_levels
from tests.schemas import INDICATOR_NAMES, N_INDICATORS, SCHEMA, cohort_of

MakePatient = Callable[..., Patient]


@pytest.fixture
def make_patient() -> MakePatient:
    """Return a function that makes a patient from the days of her check-ups and the values of some indicators."""

    def make(patient_id: str = "a", label: str = "x", days: tuple[int, ...] = (0,), **columns: list[float]) -> Patient:
        values = np.full((len(days), N_INDICATORS), np.nan)
        for column, numbers in columns.items():
            values[:, int(column.removeprefix("i"))] = numbers
        dates = np.datetime64("2021-01-01") + np.array(days, dtype="timedelta64[D]")
        return Patient(patient_id, label, "", np.datetime64("2021-12-01"), dates, values)

    return make


@pytest.fixture
def two_groups(make_patient: MakePatient) -> Cohort:
    """Return 30 patients told apart by indicator 0: "high" about 10, "low" about 1."""
    rng = np.random.default_rng(3)
    means = {"high": 10.0, "low": 1.0}
    return cohort_of(
        *(
            make_patient(f"{label}{i}", label, (0, 7), i0=list(mean + rng.random(2)), i5=list(1 + rng.random(2)))
            for i in range(15)
            for label, mean in means.items()
        )
    )


MakeGroups = Callable[..., Cohort]


@pytest.fixture
def make_groups(make_patient: MakePatient) -> MakeGroups:
    """Return a function that makes patients of several labels, each with an indicator of its own that is high.

    Histories are padded to 12 check-ups only, which saves time.
    """

    def make(n_labels: int = 4, n_each: int = 12, seed: int = 0) -> Cohort:
        rng = np.random.default_rng(seed)
        patients = []
        for i in range(n_each):
            for label in range(n_labels):
                days = tuple(range(0, 7 * int(rng.integers(2, 6)), 7))
                values = 1 + 0.2 * rng.random((8, len(days)))
                values[label % 8] *= 5 + label // 8
                columns = {f"i{j}": list(values[j]) for j in range(8)}
                patients.append(make_patient(f"p{i}-{label}-{seed}", f"label {label:02}", days, **columns))
        return Cohort(tuple(patients), replace(SCHEMA, max_checkups=12))

    return make


#: Arguments that make predictors small. Those of the LLM are there once the fixture ``small_llm`` has run.
SMALL: dict[str, dict[str, Any]] = {"rocket": {"n_kernels": 300}}


@pytest.fixture(scope="session")
def small_llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an LLM of a few thousand weights, and return a folder with it and a short template."""
    folder = tmp_path_factory.mktemp("small_llm")
    model_that_reads_levels(folder / "model", INDICATOR_NAMES[:8], 60)
    (folder / "levels.txt").write_text("self: {levels}\n", encoding="utf-8")
    arguments = {"model": str(folder / "model"), "template": str(folder / "levels.txt")}
    SMALL["lora-llm"] = {**arguments, "max_tokens": 200, "n_epochs": 3, "learning_rate": 0.02, "device": "cpu"}
    return folder


@pytest.fixture
def own_adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep a test's adapters apart from those of others, and return their folder."""
    monkeypatch.setattr("pmlm_env.llm.lora.kept.adapters_dir", lambda: tmp_path / "adapters")
    return tmp_path / "adapters"


@pytest.fixture(scope="module")
def short_training(small_llm: Path) -> Iterator[None]:
    """Let predictors learn in a moment: what these tests ask for is easy."""
    settings = replace(network.SETTINGS, learning_rate=0.01, max_epochs=15)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "SETTINGS", settings)
        patch.setattr(boosted, "N_ITERATIONS", 30)
        patch.setattr(lora_llm, "SETTINGS", replace(lora_llm.SETTINGS, batch_size=4))
        patch.setattr("pmlm_env.retrieval.network.MAX_EPOCHS", 2)
        patch.setattr("pmlm_env.llm.lora.kept.adapters_dir", lambda: small_llm / "adapters")
        yield
