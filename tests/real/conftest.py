"""Fixtures of tests about new patients."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real.new_patients import made


@pytest.fixture(scope="module")
def work(quick_stages: None) -> Path:
    """The folder with patients, prompts and a run; see ``made``."""
    return made()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test in a folder of its own."""
    monkeypatch.chdir(tmp_path)
