"""Schemas of 400 indicators, and of Chinese names, from tables to refined prompts and replies, by the command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from agents.run_folder import RunFolder
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.traces import TraceFile
from pmlm_env.io.text import display_width
from tests.commands import pmlm
from tests.real.runs import small_bert
from tests.tiny_models import save_chinese_bert

pytestmark = [pytest.mark.once, pytest.mark.real, pytest.mark.usefixtures("quick_stages")]

N = 48
CUTS = ["--train-until", "2021-12-31", "--validation-until", "2022-03-31"]

TEMPLATE = """\
background: 您好 , 请 看 这 位 患者 的 情况 。
self: 预测 的 诊断 是 {predicted} 。
peer: 相似 患者 的 诊断 是 {peers} 。
instruction: 请 写 一 封 短 信 。
"""


def write(folder: Path, language: str, indicators: Sequence[str], labels: Sequence[str], reply: str) -> Path:
    """Write the tables of patients whose label shows in one of the first indicators, and their schema."""
    schema = {
        "language": language,
        "templates": "general",
        "indicators": [{"name": name, "unit": "g/L"} for name in indicators],
        "labels": [{"name": name} for name in labels],
    }
    folder.mkdir()
    (folder / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
    rng = np.random.default_rng(0)
    patients, checkups = [["patient_id", "split_date", "label", "reference"]], [["patient_id", "date", *indicators]]
    for i in range(N):
        label = i % len(labels)
        day = f"202{1 + i // 36}-{1 + i % 12:02d}"
        patients.append([f"P{i}", f"{day}-28", labels[label], reply.format(labels[label])])
        for date in ("03", "17"):
            values = rng.lognormal(3, 0.1, len(indicators))
            values[label] *= 3
            checkups.append([f"P{i}", f"{day}-{date}", *(f"{value:.2f}" for value in values)])
    for name, rows in (("patients", patients), ("checkups", checkups)):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
    return folder


def every_stage(cohort: Path, work: Path, bert: object, *template: object) -> None:
    """Take a cohort through all stages, with a BERT that reads its language."""
    quick = ["--k", 3, "--n-folds", 2, "--device", "cpu"]
    assert pmlm("prepare", "--cohort", cohort, "--out", work / "prepared", *CUTS, *quick, *template) == 0
    models = ["--llm", f"responder:{cohort / 'schema.json'}", "--scorer", bert, "--device", "cpu"]
    agent = ["--agent", "lexicon", "--budget", 12, "--patients", 3, "--rollouts", 2, "--n-edits", 3]
    assert pmlm("train", "--episodes", work / "prepared", "--run", work / "run", *agent, *models) == 0
    assert pmlm("evaluate", "--run", work / "run") == 0
    options = ["--model", work / "run", "--cohort", cohort, "--out", work / "refined.jsonl", "--device", "cpu"]
    assert pmlm("refine", *options, "--reply") == 0


def test_400_indicators_go_through_every_stage(tmp_path: Path) -> None:
    names = [f"marker {i}" for i in range(400)]
    cohort = write(tmp_path / "cohort", "en", names, ["gout", "asthma", "migraine"], "You have {}. Rest well.")
    every_stage(cohort, tmp_path, small_bert())
    traces = TraceFile(tmp_path / "refined.jsonl").read()
    assert len(traces) == N
    assert all(len(trace.edits) == 3 and trace.replies for trace in traces)
    correct = [trace.predicted == trace.label for trace in traces]
    assert np.mean(correct) > 0.9  # the label is plain to see in one of the indicators


def test_chinese_names_go_through_every_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = ["妊娠期糖尿病", "地中海贫血", "未见异常"]
    indicators = ["血红蛋白", "白蛋白", "血小板计数"]
    cohort = write(tmp_path / "病人", "zh", indicators, labels, "诊断 : {} 。 请 按时 复查 。")
    (tmp_path / "模板.txt").write_text(TEMPLATE, encoding="utf-8")
    capsys.readouterr()
    every_stage(cohort, tmp_path, save_chinese_bert(tmp_path / "bert"), "--template", tmp_path / "模板.txt")
    printed = capsys.readouterr().out
    for episode in EpisodeSet.load(tmp_path / "prepared"):
        assert episode.language == "zh"
        assert f"预测 的 诊断 是 {episode.predicted} 。" in episode.prompt
    traces = TraceFile(tmp_path / "refined.jsonl").read()
    assert len(traces) == N
    assert np.mean([trace.predicted == trace.label for trace in traces]) > 0.9
    for trace in traces:
        assert trace.predicted in trace.replies[0].text
    named = [trace.after["diagnosis_named"] for trace in RunFolder(tmp_path / "run").traces.read() if trace.after]
    assert any(named)
    table = [line for line in printed.splitlines() if line.startswith("P")]
    assert table
    assert max(map(display_width, table)) <= 120
