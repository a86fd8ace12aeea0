"""A benchmark with the real BERTScore and the rule-based LLM: controls, raw-data prompts, metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.benchmark.fresh_samples import FreshSamples
from agents.benchmark.patients import RealPatients
from agents.evaluation.controls import CONTROLS
from agents.evaluation.metrics import METRICS
from agents.model_options import CallOptions, ModelOptions
from agents.report.report import ReportConfig, report
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.llm import LLMError, Reply, Request
from pmlm_env.llm.responder import Responder
from pmlm_env.rewards.bertscore import BertScorer
from tests.commands import pmlm
from tests.llm.tiny_llms import talkative
from tests.real.runs import prepare, small_bert

pytestmark = [pytest.mark.once, pytest.mark.real, pytest.mark.usefixtures("quick_stages")]

MODELS = ["--llm", "responder", "--device", "cpu", "--n-edits", "3"]
N_TEST = 4


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same patients' prompts by two templates, and those of others."""
    folder = tmp_path_factory.mktemp("benchmark")
    assert pmlm("simulate", "--out", folder / "cohort", "--patients", 80) == 0
    few = ["--n-folds", 2, "--max-train", 6, "--max-validation", 0, "--max-test", N_TEST]
    for name, template, seed in (("prepared", "default", 0), ("raw", "raw", 0), ("others", "raw", 1)):
        options = ["--cohort", folder / "cohort", "--out", folder / name, "--template", template, "--seed", seed]
        assert pmlm("prepare", *options, *few) == 0
    return folder


def _benchmark(work: Path, raw: str, out: str) -> int:
    where = ["--episodes", work / "prepared", "--raw", work / raw, "--out", work / out, "--run", work / f"{out}-run"]
    budget = ["--budget", 20, "--seeds", 1]
    return pmlm("benchmark", "--env", "real", "--agents", "keep-all", "single-rule", *budget, *where, *MODELS)


@pytest.fixture(scope="module")
def lines(work: Path) -> dict[str, dict[str, Any]]:
    assert _benchmark(work, "raw", "out") == 0
    text = (work / "out" / "real" / "runs.jsonl").read_text()
    return {line["agent"]: line for line in map(json.loads, text.splitlines())}


def test_controls_and_raw_data_come_first_and_every_line_has_all_metrics_of_every_patient(
    lines: dict[str, dict[str, Any]], work: Path
) -> None:
    assert list(lines) == [*CONTROLS, "raw-data", "keep-all", "single-rule"]
    patients = [e.patient_id for e in EpisodeSet.load(work / "prepared").of("test")]
    assert len(patients) == N_TEST
    for line in lines.values():
        assert line["patients"] == patients
        assert list(line["metrics"]) == list(METRICS)
        assert {len(values) for values in line["metrics"].values()} == {N_TEST}


def test_the_deltas_of_all_lines_are_differences_of_their_f1(lines: dict[str, dict[str, Any]]) -> None:
    keep_all = np.array(lines["keep-all"]["metrics"]["bertscore_f1"])
    for line in lines.values():
        f1 = np.array(line["metrics"]["bertscore_f1"])
        assert line["deltas"] == pytest.approx(f1 - keep_all, abs=2e-5)
    assert lines["echo"]["metrics"]["copy"] == pytest.approx([1] * N_TEST, abs=1e-5)


def test_raw_data_is_what_the_llm_replies_to_check_ups_as_text(lines: dict[str, dict[str, Any]], work: Path) -> None:
    raw, metrics = EpisodeSet.load(work / "raw").of("test"), lines["raw-data"]["metrics"]
    assert all("check-up" in e.prompt and e.predicted not in e.prompt for e in raw)
    replies = [completion.text for completion in Responder().generate([e.prompt for e in raw])]
    scorer = BertScorer(device="cpu")
    f1, copy = (scorer.score(replies, texts).f1 for texts in ([e.reference for e in raw], [e.prompt for e in raw]))
    assert metrics["bertscore_f1"] == pytest.approx(f1.tolist(), abs=2e-5)
    assert metrics["copy"] == pytest.approx(copy.tolist(), abs=2e-5)
    assert metrics["words"] == [len(reply.split()) for reply in replies]
    assert (lines["raw-data"]["track"], lines["raw-data"]["calls"]) == ("control", N_TEST)


def test_the_report_has_rows_of_echo_and_raw_data(lines: dict[str, dict[str, Any]], work: Path) -> None:
    text = report(ReportConfig(work / "out", default="keep-all"))
    for table in (text.split("| agent | 20 calls |")[1], text.split("| reply of |")[1]):
        rows = table.split("\n\n")[0]
        assert all(f"\n| *{name}* |" in rows for name in ("echo", "label", "raw-data"))
        assert "\n| single-rule |" in rows


def test_raw_data_prompts_of_other_patients_are_refused_before_anything_is_asked(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _benchmark(work, "others", "refused") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{work / 'others'} has no prompt of patient " in error
    assert "prepare it with the same cohort, seed and limits" in error
    assert not (work / "refused" / "real" / "runs.jsonl").exists()


def test_other_raw_data_prompts_are_refused_unless_an_older_line_does_not_say_which_they_were(
    lines: dict[str, dict[str, Any]], work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = work / "out" / "real" / "runs.jsonl"
    before = file.read_text()
    assert _benchmark(work, "raw", "out") == 0
    capsys.readouterr()
    assert _benchmark(work, "prepared", "out") == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == (
        f"pmlm benchmark: {file} has a run with other raw-data prompts than {work / 'prepared'}: use those, or another "
        "--out"
    )
    assert file.read_text() == before
    older = [{**line, "config": {}} if line["agent"] == "raw-data" else line for line in lines.values()]
    file.write_text("".join(json.dumps(line) + "\n" for line in older))
    assert _benchmark(work, "prepared", "out") == 0
    file.write_text(before)


def _refuse(monkeypatch: pytest.MonkeyPatch, is_refused: Callable[[str], bool]) -> None:
    """Have the LLM refuse some prompts for good, as a filter does."""
    replies = Responder.replies

    def some(self: Responder, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        for batch in replies(self, requests):
            yield {i: LLMError("refused") if is_refused(requests[i].prompt) else reply for i, reply in batch.items()}

    monkeypatch.setattr(Responder, "replies", some)


def test_runs_without_test_replies_are_named_at_the_end_and_those_without_training_replies_in_the_report(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    known = {each.prompt for each in EpisodeSet.load(work / "prepared")}
    _refuse(monkeypatch, lambda prompt: prompt not in known)
    where = ["--episodes", work / "prepared", "--out", work / "cut", "--run", work / "cut-run"]
    agents = ["--agents", "random-n", "keep-all", "single-rule", "--budget", 20, "--seeds", 1]
    assert pmlm("benchmark", "--env", "real", *agents, *where, *MODELS) == 1
    file = work / "cut" / "real" / "runs.jsonl"
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error == (
        f"pmlm benchmark: 1 of {len(CONTROLS) + 3} runs have no result, the others are in {file}: see to what the "
        "warnings say, then run the command again"
    )
    lines = {line["agent"]: line for line in map(json.loads, file.read_text().splitlines())}
    assert list(lines) == [*CONTROLS, "keep-all", "single-rule"]
    n_failed = lines["single-rule"]["failed"]
    assert n_failed > 0
    assert "failed" not in lines["keep-all"]
    assert [text for text in caplog.messages if "refused" in text] == [
        "random-n, 0 calls, seed 0 has no result: 4 test patients got no reply, the last because: refused. See to "
        "that, then run the command again: it asks for the missing replies only",
        f"single-rule: {n_failed} episodes got no reply and are left out, the last because: refused",
    ]
    text = report(ReportConfig(work / "cut", default="keep-all"))
    assert f"did not reply (single-rule, 20 calls, seed 0: {n_failed})" in text


def test_a_benchmark_stops_without_a_reply_that_every_run_needs(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = EpisodeSet.load(work / "prepared").of("test")[0].prompt
    _refuse(monkeypatch, lambda prompt: prompt == first)
    assert _benchmark(work, "raw", "stopped") == 1
    assert capsys.readouterr().err.strip().splitlines()[-1] == (
        "pmlm benchmark: 1 test patient got no reply, the last because: refused. See to that, then run the command "
        "again: it asks for the missing replies only"
    )


@pytest.mark.parametrize(("llm", "temperature", "again"), [("", 0.0, False), ("", 0.5, True), ("responder", 0.0, True)])
def test_oracles_score_again_unless_a_local_llm_is_greedy(
    tmp_path: Path, llm: str, temperature: float, again: bool
) -> None:
    """All samples of a local LLM that decodes greedily are equal."""
    bert, llm = str(small_bert()), llm or f"local:{talkative(tmp_path / 'llm')}"
    models = ModelOptions(llm=llm, temperature=temperature, encoder=bert, scorer=bert, device="cpu")
    patients = RealPatients("test", prepare(tmp_path / "prepared"), tmp_path / "run", models, CallOptions())
    assert (patients.fresh("a search") is not None) == again


def test_fresh_scores_compare_with_a_fresh_reply_to_the_initial_prompt_and_need_all_replies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bert = str(small_bert())
    models = ModelOptions(llm="responder", encoder=bert, scorer=bert, device="cpu")
    patients = RealPatients("test", prepare(tmp_path / "prepared"), tmp_path / "run", models, CallOptions())
    rescore, ask, asked = patients.fresh("a search"), FreshSamples.replies, list[list[str]]()
    assert rescore is not None
    kept = np.ones((2, patients.max_words), dtype=np.bool_)
    kept[[0, 1], [0, 1]] = False
    first = patients.held_out[0]
    edited = [" ".join(word for place, word in enumerate(first.words) if place != gone) for gone in (0, 1)]

    def recorded(self: FreshSamples, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        asked.append([request.prompt for request in requests])
        yield from ask(self, requests)

    monkeypatch.setattr(FreshSamples, "replies", recorded)
    assert rescore([0, 0], kept).tolist() == rescore([0, 0], kept).tolist()
    assert asked == [[*edited, first.prompt]] * 2

    def lost(self: FreshSamples, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        yield {index: LLMError("no reply") for index in range(len(requests))}

    monkeypatch.setattr(FreshSamples, "replies", lost)
    with pytest.raises(RuntimeError, match=r"2 test patients got no reply, the last because: no reply\. See to that"):
        rescore([0, 0], kept)
