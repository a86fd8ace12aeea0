"""The audits in docs/results/audit and the tables on the page of rewards."""

from __future__ import annotations

import json
from pathlib import Path

from tests.scripts import load_script

ROOT = Path(__file__).resolve().parents[3]


def test_the_tables_are_made_from_the_committed_audits() -> None:
    script = load_script(ROOT / "docs" / "make_audit_tables.py")
    page = (ROOT / "docs" / "rewards.md").read_text(encoding="utf-8")
    assert script.page(page) == page, "run `python docs/make_audit_tables.py`"


def test_guarded_passes_on_the_default_llm_and_bertscore_is_won_by_an_echo_on_the_smallest() -> None:
    winners = {
        file.stem: json.loads(file.read_text(encoding="utf-8"))["winners"]
        for file in (ROOT / "docs" / "results" / "audit").glob("*.json")
    }
    assert winners["guarded_qwen2.5-coder-0.5b"] == []
    assert "echo" in winners["bertscore_smollm2-135m_short"]
