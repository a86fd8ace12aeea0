"""The table of peers' agreement in the docs is that of the committed results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.patient_encoders import AGENTS, table

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "patient_encoders.json").read_text())


def test_the_docs_have_the_table_of_the_results() -> None:
    assert table(RESULTS["shares"]) in (ROOT / "docs" / "learned-encoder.md").read_text()


@pytest.mark.parametrize("signal", RESULTS["shares"])
def test_every_encoder_was_measured_with_all_seeds(signal: str) -> None:
    runs = RESULTS["shares"][signal]
    assert {"labels", "summaries", "random weights", "drawn at random", *AGENTS} <= runs.keys()
    assert len({len(each) for each in runs.values()}) == 1
