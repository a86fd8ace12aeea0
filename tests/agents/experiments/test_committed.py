"""The tables of the page are made from the committed runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[3]


def test_the_tables_of_the_page_are_those_of_the_committed_runs() -> None:
    spec = importlib.util.spec_from_file_location("make_tables", ROOT / "docs" / "make_tables.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    assert "| logistic | " in page
    assert script.page(page) == page, "run `python docs/make_tables.py`"
