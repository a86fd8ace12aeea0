from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from pmlm_env.llm.lora.tunable import TunableLM, tunable_lm
from tests.llm.tiny_llms import tiny_model

pytest.importorskip("peft")

Load = Callable[..., TunableLM]


@pytest.fixture(autouse=True)
def adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of finished adapters, of each test alone."""
    monkeypatch.setattr("pmlm_env.llm.lora.kept.adapters_dir", lambda: tmp_path / "adapters")
    return tmp_path / "adapters"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model."""
    folder = tmp_path_factory.mktemp("models") / "small"
    tiny_model(folder, num_hidden_layers=2)
    return folder


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Load a model in float32, whose rounding does not hide errors."""
    monkeypatch.setattr("pmlm_env.llm.lora.tunable.llm_dtype", lambda device: torch.float32)

    def loaded(folder: Path) -> TunableLM:
        return tunable_lm(str(folder), "cpu")

    return loaded


@pytest.fixture
def lm(load: Load, folder: Path) -> TunableLM:
    return load(folder)
