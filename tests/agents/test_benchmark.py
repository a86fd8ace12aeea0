from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from agents.arena import MeteredReward
from agents.benchmark import BenchmarkConfig, benchmark
from agents.catalogue import AGENTS, DEFAULT, UNSEEDED, UNTRAINED
from agents.ground import ground
from agents.report.report import ReportConfig, report
from pmlm_env.lite import LiteReward, lite_episodes
from pmlm_env.llm import BudgetExceededError
from tests.standins import MarkedWordsReward, make_episodes

_SMALL = {"agents": ("surrogate", "random-n", "keep-all"), "oracles": ("tapruning",), "budget": (100,), "seeds": 2}


def _lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "lite" / "runs.jsonl").read_text().splitlines()]


def test_a_benchmark_writes_a_line_a_run_and_the_report_reads_them(tmp_path: Path) -> None:
    benchmark(BenchmarkConfig(**_SMALL, out=tmp_path))
    lines = _lines(tmp_path)
    assert [(x["agent"], x["budget"], x["seed"]) for x in lines] == [
        ("surrogate", 100, 0), ("random-n", 0, 0), ("keep-all", 0, 0), ("tapruning", 60, 0),
        ("surrogate", 100, 1), ("random-n", 0, 1), ("tapruning", 60, 1),
    ]  # fmt: skip
    assert all(x["calls"] <= 100 for x in lines if x["track"] == "inductive")
    assert lines[2]["deltas"] == [0.0] * 64
    assert lines[3]["calls"] <= 64 * 60
    text = report(ReportConfig(tmp_path, default="surrogate"))
    assert "surrogate" in text
    assert "tapruning" in text


def test_the_deltas_of_a_run_are_those_of_the_words_it_deleted(tmp_path: Path) -> None:
    benchmark(BenchmarkConfig(agents=(), oracles=("tapruning",), seeds=1, out=tmp_path))
    test = lite_episodes().of("test")
    best = [LiteReward(test).best(i, 10).delta for i in range(len(test))]
    found = np.array(_lines(tmp_path)[0]["deltas"])
    assert (found <= np.array(best) + 1e-6).all()
    assert found.mean() > 0.9 * np.mean(best)


def test_what_is_there_is_not_run_again_and_a_cut_line_is(tmp_path: Path) -> None:
    config = BenchmarkConfig(**_SMALL, out=tmp_path)
    file = benchmark(config)
    whole = file.read_text()
    file.write_text(whole[:-40])
    benchmark(config)
    again = [{k: v for k, v in x.items() if k != "seconds"} for x in _lines(tmp_path)]
    assert again == [{k: v for k, v in json.loads(x).items() if k != "seconds"} for x in whole.splitlines()]


def test_runs_on_other_patients_do_not_go_into_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark(BenchmarkConfig(agents=("keep-all",), seeds=1, out=tmp_path))
    monkeypatch.setattr("agents.ground.lite_episodes", lambda: lite_episodes({"train": 8, "test": 4}))
    with pytest.raises(
        ValueError, match=r"runs.jsonl has results with episodes '\w{16}' and not '\w{16}': use the same"
    ):
        benchmark(BenchmarkConfig(agents=("random-n",), seeds=1, out=tmp_path))
    assert [line["agent"] for line in _lines(tmp_path)] == ["keep-all"]


def test_words_deleted_from_fewer_than_three_prompts_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.ground.lite_episodes", lambda: lite_episodes({"train": 8, "test": 4}))
    place = ground("lite", "test")
    first = [[place.held_out[i].words.index(word)] for i, word in enumerate(["pregnant", "pregnant", "woman", "woman"])]
    assert place._judged(first)["deleted"] == []
    first[0] = first[0] + [place.held_out[0].words.index("woman")]
    assert place._judged(first)["deleted"] == [["woman", "background", 3]]


@pytest.mark.parametrize("wrong", [{"agents": ("lexikon",)}, {"oracles": ("best",)}, {"seeds": 0}, {"budget": (0,)}])
def test_names_and_numbers_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"there is no agent|must be 1 or more"):
        BenchmarkConfig(**wrong)


def test_every_name_in_the_catalogue_makes_an_agent() -> None:
    assert {DEFAULT, *UNTRAINED, *UNSEEDED} <= set(AGENTS)
    for name, make in AGENTS.items():
        assert type(make("lite", 0)).__name__, name


def test_the_meter_counts_each_prompt_once_and_the_initial_one_too() -> None:
    episodes = make_episodes(4)
    meter = MeteredReward(MarkedWordsReward(episodes), limit=10, per_prompt=2)
    meter([0, 0, 1], ["a", "a", "b"])
    assert meter.calls == 2 * (2 + 2)
    meter([0], ["a"])
    assert meter.calls == 8
    with pytest.raises(BudgetExceededError):
        meter([2], ["c"])
    assert meter.calls == 8
    assert meter.cost([0], ["new"]) == 2
    meter([0], ["new"])
    assert meter.left == 0
    assert [n for _, n, _ in meter.history] == [3, 1, 1]
