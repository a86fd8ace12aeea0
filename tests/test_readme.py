"""README and the pages that people read first: what they tell people to paste runs as it stands."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from pmlm_env.core.traces import TraceFile
from tests import fresh
from tests.commands import pmlm
from tests.llm.tiny_llms import talkative
from tests.pages import block, blocks, commands
from tests.real.runs import small_bert, small_models

pytestmark = [
    pytest.mark.once,
    pytest.mark.real,
    pytest.mark.usefixtures("quick_stages", "hashed_sentences", "no_figures"),
]

SNIPPETS = [
    pytest.param(snippet, id=f"{page} {number}")
    for page in ("README.md", "docs/start.md", "docs/new-patients.md", "docs/traces.md")
    for number, snippet in enumerate(blocks(page, "python"))
]
SMALL = [
    "--llm", "responder", "--n-edits", "3", "--budget", "16", "--patients", "2", "--rollouts", "2", "--train-patients",
    "12", "--test-patients", "4", "--n-folds", "2", "--device", "cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def after_a_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a small demo was run, as README says to do first, and new patients' prompts were refined."""
    folder = tmp_path_factory.mktemp("pasted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert pmlm("simulate", "--out", "cohort", "--patients", 80) == 0
        assert pmlm("demo", "--cohort", "cohort", *SMALL) == 0
        shutil.copytree("runs/demo", "runs/mine")
        assert pmlm("simulate", "--out", "new", "--patients", 3, "--seed", 1) == 0
        assert pmlm("refine", "--model", "runs/mine", "--cohort", "new") == 0
    return folder


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) == 5


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_runs_as_pasted(snippet: str, after_a_demo: Path, tmp_path: Path) -> None:
    env = {**os.environ, "PMLM_DEFAULT_LLM": str(talkative(tmp_path))}
    done = fresh.run("-c", snippet, cwd=after_a_demo, env=env)
    assert done.returncode == 0, done.stderr
    assert bool(done.stdout.strip()) == ("print(" in snippet)


def _write_patients(folder: Path, n: int, known: bool) -> None:
    """Write patients in the three files that README shows: its own two first, and more like them."""
    rng = np.random.default_rng(0)
    patients, labs = (table.splitlines() for table in blocks("README.md", "csv"))
    heads, letters = patients[0], [row.partition(',"')[2] for row in patients[1:]]
    rows = patients[1:] if known else []
    values = labs[1:] if known else []
    for i in range(n):
        year, name = (2024 if i % 3 == 0 else 2023), f"{'C' if known else 'B'}{i}"
        label = ("gout", "no finding")[i % 2]
        rows.append(f'{name},{label},{year}-05-02,"{letters[i % 2]}' if known else name)
        values.append(f"{name},{year}-05-01,urate,{(540, 310)[i % 2] + rng.normal(0, 20):.0f},umol/L")
    folder.mkdir()
    (folder / "letters.csv").write_text("\n".join([heads if known else "pat_id", *rows]) + "\n")
    (folder / "lab_results.csv").write_text("\n".join([labs[0], *values]) + "\n")
    (folder / "map.toml").write_text(block("README.md", "toml", "`map.toml`"))


def test_own_patients_are_refined_by_the_commands_of_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _write_patients(tmp_path / "my-patients", 80, known=True)
    _write_patients(tmp_path / "new-patients", 4, known=False)
    first = block("README.md", "bash", "## Your own data")
    lines = [words[1:] for words in commands(first + block("README.md", "bash", first), tmp_path) if words[0] == "pmlm"]
    assert [words[0] for words in lines] == ["demo", "refine", "show"]
    for words in lines:
        capsys.readouterr()
        assert pmlm(*words, *((*SMALL, "--scorer", str(small_bert())) if words[0] == "demo" else ())) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Patient B3 (new), edited by leave-one-out\n")
    assert "single rule" not in shown  # she is none of the patients whom it was tried on
    judged = [trace for trace in TraceFile("runs/mine/traces.jsonl").read() if trace.variant == "agent"]
    assert {trace.label for trace in judged} <= {"gout", "no finding"}
    assert len(judged) == 4
    assert judged[0].patient_id in Path("runs/mine/report.html").read_text(encoding="utf-8")
    new = TraceFile("refined.jsonl").read()
    assert [trace.patient_id for trace in new] == ["B0", "B1", "B2", "B3"]
    assert [trace.peers[0].label for trace in new] == ["gout", "no finding", "gout", "no finding"]
    assert all(trace.replies[0].text for trace in new)


def test_the_first_steps_run_as_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    demo = block("docs/start.md", "bash", "## The method in small")
    steps = block("docs/start.md", "bash", "The same steps one by one")
    few = {
        "simulate": ["--patients", "80"],
        "prepare": ["--n-folds", "2"],
        "train": [*SMALL[:10], *small_models()],
        "demo": [*SMALL, *small_models(), "--cohort", "cohort"],
        "refine": ["--encoder", str(small_bert())],
    }
    for words in commands(steps + demo, tmp_path):
        assert pmlm(*words[1:], *few.get(words[1], [])) == 0
