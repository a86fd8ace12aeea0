from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rouge_score import rouge_scorer

from agents.base import Edits
from agents.benchmark.config import LLM_IDENTITY, BenchmarkConfig, differences, model_identity
from agents.benchmark.patients import LitePatients, patients_of
from agents.benchmark.runner import benchmark
from agents.benchmark.runs_file import versions
from agents.evaluation.controls import CONTROLS
from agents.model_options import ModelOptions
from agents.problem import MeteredReward, Problem
from agents.registry import AGENTS, DEFAULT, RULE, make, settings_of
from agents.report.report import ReportConfig, report
from pmlm_env.core.edits import deletions
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.envs.lite import LiteReward, lite_episodes
from pmlm_env.envs.lite.reward import word_f1
from pmlm_env.llm import BudgetExceededError, load_llm
from pmlm_env.weights import DEFAULT_LLM
from tests.llm.tiny_llms import talkative
from tests.standins import HashEncoder, MarkedWordsReward, make_episodes

pytestmark = pytest.mark.once

_SMALL = {"agents": ("surrogate", "random-n", "keep-all"), "oracles": ("tapruning",), "budget": (100,), "seeds": 2}


def _lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "lite" / "runs.jsonl").read_text().splitlines()]


def _rouge1(text: str, reference: str) -> float:
    return rouge_scorer.RougeScorer(["rouge1"], use_stemmer=False).score(reference, text)["rouge1"].fmeasure


def test_a_benchmark_writes_a_line_a_run_and_the_report_reads_them(tmp_path: Path) -> None:
    benchmark(BenchmarkConfig(**_SMALL, out=tmp_path))
    lines = _lines(tmp_path)
    controls, lines = lines[: len(CONTROLS)], lines[len(CONTROLS) :]
    assert [(x["agent"], x["track"], x["budget"], x["calls"], x["seeded"]) for x in controls] == [
        (name, "control", 0, 0, False) for name in CONTROLS
    ]
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
    found = np.array(_lines(tmp_path)[-1]["deltas"])
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


def test_a_line_separator_within_a_line_ends_no_line(tmp_path: Path) -> None:
    config = BenchmarkConfig(agents=("keep-all",), oracles=(), seeds=1, out=tmp_path)
    file = benchmark(config)
    lines = [{**line, "note": "one\u2028line\x85"} for line in _lines(tmp_path)]
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    before = file.read_bytes()
    benchmark(config)
    assert file.read_bytes() == before


def test_runs_on_other_patients_do_not_go_into_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark(BenchmarkConfig(agents=("keep-all",), seeds=1, out=tmp_path))
    monkeypatch.setattr("agents.benchmark.patients.lite_episodes", lambda: lite_episodes({"train": 8, "test": 4}))
    with pytest.raises(ValueError, match=r"runs.jsonl has results with data .*, episodes '\w{16}', not '\w{16}': use"):
        benchmark(BenchmarkConfig(agents=("random-n",), seeds=1, out=tmp_path))
    assert [line["agent"] for line in _lines(tmp_path)] == [*CONTROLS, "keep-all"]


def _identity(llm: str, **more: str) -> dict:
    models = ModelOptions(llm=llm, device="cpu", **more)
    return model_identity(models, load_llm(models, device="cpu").identity)


def test_an_endpoint_that_replies_otherwise_is_another_llm_wherever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARD_API_KEY", "a-secret")

    def identity(settings: str = "", port: int = 1) -> dict:
        (tmp_path / "ward.toml").write_text(f'[ward]\nbase_url = "http://127.0.0.1:{port}/v1"\n{settings}\n')
        return _identity("ward:m", providers=str(tmp_path / "ward.toml"))

    usual = identity()
    assert differences(usual, identity(port=2)) == []
    others = 'system_prompt = "Be brief."', "extra_body = {a = 1}", 'headers = {a = "b"}', 'query = {a = "b"}'
    assert [differences(usual, identity(other)) for other in others] == [[LLM_IDENTITY]] * 4
    older = {name: value for name, value in usual.items() if name != LLM_IDENTITY}
    assert differences(older, usual) == differences(usual, older) == []


def test_another_model_in_a_folder_of_the_same_name_is_another_llm(tmp_path: Path) -> None:
    llm = f"local:{talkative(tmp_path / 'llm')}"
    before = _identity(llm)
    with (tmp_path / "llm" / "config.json").open("a") as file:
        file.write("\n")
    assert differences(before, _identity(llm)) == [LLM_IDENTITY]
    assert LLM_IDENTITY not in _identity(f"local:{DEFAULT_LLM}")


def test_the_word_overlap_of_lite_is_rouge_1_without_stems() -> None:
    texts = [text for e in list(lite_episodes({"test": 6})) for text in (e.prompt, e.reference, e.predicted, "")]
    assert [[word_f1(a, b) for a in texts] for b in texts] == [
        pytest.approx([_rouge1(a, b) for a in texts]) for b in texts
    ]


def test_the_controls_of_a_benchmark_are_those_of_brute_force(tmp_path: Path) -> None:
    benchmark(BenchmarkConfig(agents=(), seeds=1, out=tmp_path))
    test, train = (lite_episodes().of(split) for split in ("test", "train"))
    before = LiteReward(test, texts=True)(range(len(test)), [e.prompt for e in test]).texts
    assert before is not None
    nearest = [train[int((train.vectors @ e.vector / np.linalg.norm(train.vectors, axis=1)).argmax())] for e in test]
    said = {
        "echo": [e.prompt for e in test],
        "facts": [e.prompt.split(" State the")[0] for e in test],
        "label": [e.predicted for e in test],
        "peer-letter": [peer.reference for peer in nearest],
    }
    lines = {line["agent"]: line for line in _lines(tmp_path)}
    for name, replies in said.items():
        assert lines[name]["patients"] == [e.patient_id for e in test]
        expected = [
            _rouge1(reply, e.reference) - _rouge1(initial, e.reference)
            for reply, initial, e in zip(replies, before.initial_reply, test, strict=True)
        ]
        assert lines[name]["deltas"] == pytest.approx(expected, abs=1e-6), name
    # here all patients with a condition have the same letter, so the right letter is a perfect reply
    right = np.array([e.predicted == e.label for e in test])
    perfect = np.array([1 - _rouge1(r, e.reference) for r, e in zip(before.initial_reply, test, strict=True)])
    assert np.array(lines["label-letter"]["deltas"])[right] == pytest.approx(perfect[right], abs=1e-6)


def test_a_benchmark_made_before_there_were_controls_gets_them_without_running_its_agents_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = BenchmarkConfig(agents=("random-n", "keep-all"), seeds=2, out=tmp_path)
    file = benchmark(config)
    old = [line for line in file.read_text().splitlines() if '"track": "control"' not in line]
    file.write_text("".join(f"{line}\n" for line in old))
    with pytest.raises(ValueError, match="the runs of lite have no echo"):
        report(ReportConfig(tmp_path))
    assert not (tmp_path / "report.md").exists()
    monkeypatch.setattr(LitePatients, "inductive", None)
    benchmark(config)
    assert [line["agent"] for line in _lines(tmp_path)[:-3]] == list(CONTROLS)  # as if they had been run at once
    assert "*echo*" in report(ReportConfig(tmp_path))


def test_lite_has_no_raw_data_prompts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--raw has no effect with --env lite, .*: leave it out, or give --env real"):
        BenchmarkConfig(raw=tmp_path)


def _edits(episodes: EpisodeSet, slots: list[list[int]]) -> Edits:
    return [deletions(episode, each) for episode, each in zip(episodes, slots, strict=True)]


def test_distinct_edits_are_counted_by_role_and_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.benchmark.patients.lite_episodes", lambda: lite_episodes({"train": 8, "test": 4}))
    patients = patients_of("lite", "test")
    prompts = patients.held_out
    last = [[len(episode.words) - 1] for episode in prompts]  # different slots, but the same place within the role
    assert len({slot for (slot,) in last}) > 1
    assert patients.judged(_edits(prompts, last))["edits"] == 1
    assert patients.judged(_edits(prompts, [[0, 1], [1, 0], [0], []]))["edits"] == 3


def test_words_deleted_from_fewer_than_three_prompts_are_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.benchmark.patients.lite_episodes", lambda: lite_episodes({"train": 8, "test": 4}))
    patients = patients_of("lite", "test")
    prompts = patients.held_out
    first = [[prompts[i].words.index(word)] for i, word in enumerate(["pregnant", "pregnant", "woman", "woman"])]
    assert patients.judged(_edits(prompts, first))["deleted"] == []
    first[0] = first[0] + [prompts[0].words.index("woman")]
    assert patients.judged(_edits(prompts, first))["deleted"] == [["woman", "background", 3]]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"agents": ("lexikon",)}, "there is no agent 'lexikon'"),
        ({"oracles": ("best",)}, "there is no oracle 'best'"),
        ({"seeds": 0}, "seeds is 0: use a whole number from 1 to 10,000"),
        ({"budget": (100, 0)}, "budget is 0: use a whole number from 1 to 10,000,000"),
        ({"budget": (10_000_001,)}, "budget is 10000001: use a whole number from 1 to 10,000,000"),
        ({"oracle_budget": 61}, "--oracle-budget has no effect: name a search with --oracles, or leave it out"),
        ({"oracle_budget": 10**9}, "oracle-budget is 1000000000: use a whole number from 1 to 10,000,000"),
        ({"budget": ()}, "--budget has no number: give one or more"),
    ],
)
def test_names_and_numbers_that_make_no_sense_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BenchmarkConfig(**wrong)


@pytest.mark.parametrize(("oracles", "said"), [((), "only the controls, which need no agent, are run"),
                                               (("tapruning",), "only the controls and oracles are run")])  # fmt: skip
def test_a_benchmark_of_no_agent_says_what_it_runs(
    oracles: tuple[str, ...], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    budget = {"oracle_budget": 1} if oracles else {}
    benchmark(BenchmarkConfig(agents=(), oracles=oracles, **budget, seeds=1, out=tmp_path))
    assert caplog.messages == [f"--agents names no agent: {said}"]
    assert [line["agent"] for line in _lines(tmp_path)] == [*CONTROLS, *oracles]


def test_an_agent_or_a_budget_that_is_named_twice_is_run_once(tmp_path: Path) -> None:
    benchmark(BenchmarkConfig(agents=("keep-all", "keep-all", "surrogate"), budget=(90, 90), seeds=1, out=tmp_path))
    assert [line["agent"] for line in _lines(tmp_path)] == [*CONTROLS, "keep-all", "surrogate"]


def test_every_name_of_the_registry_makes_an_agent() -> None:
    assert {DEFAULT, RULE} <= set(AGENTS)
    assert not set(AGENTS) & {*CONTROLS, "raw-data"}
    for name in AGENTS:
        assert make(name, settings_of(name, "lite")).name == name


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


def test_protected_words_stay_on_lite_too_and_are_part_of_what_identifies_results(tmp_path: Path) -> None:
    config = BenchmarkConfig(
        agents=("random-n",), seeds=1, out=tmp_path, models=ModelOptions(n_edits=3, protect=("self", "peer"))
    )
    benchmark(config)
    line = _lines(tmp_path)[-1]
    assert {role for _, role, _ in line["deleted"]} == {"background", "instruction"}
    assert (line["identity"]["n_edits"], line["identity"]["protect"]) == (3, ["self", "peer"])
    with pytest.raises(ValueError, match=r"has results with protect \['self', 'peer'\], not None: use the same"):
        benchmark(BenchmarkConfig(agents=("random-n",), seeds=1, out=tmp_path, models=ModelOptions(n_edits=3)))


def test_results_of_one_word_and_of_all_words_do_not_go_into_one_file(tmp_path: Path) -> None:
    options = {"agents": ("keep-all",), "seeds": 1, "out": tmp_path}
    benchmark(BenchmarkConfig(**options, models=ModelOptions(n_edits=1)))
    with pytest.raises(ValueError, match=r"has results with n_edits 1, not 1\.0: use the same, or another --out"):
        benchmark(BenchmarkConfig(**options, models=ModelOptions(n_edits=1.0)))


@pytest.mark.parametrize("is_used", [False, True])
def test_the_machine_includes_the_gpu_that_the_process_uses(monkeypatch: pytest.MonkeyPatch, is_used: bool) -> None:
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: is_used)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA X1")
    machine = versions([])["machine"].split(", ")
    assert machine[2:] == (["NVIDIA X1"] if is_used else [])


@pytest.mark.parametrize("name", ["leave-one-out", "q-dqn", "surrogate", "maskable-ppo", "ppo", "a2c", "dqn", "qrdqn"])
def test_learners_whose_prompts_are_all_known_may_play_as_many_episodes(name: str) -> None:
    """Three words, of which one is deleted, in two prompts: eight prompts at most, which do not spend the budget."""
    episodes, budget = make_episodes(2, n_words=3, n_marked=1), 200
    meter = MeteredReward(MarkedWordsReward(episodes), limit=budget)
    agent = make(name, settings_of(name, "lite"))
    agent.fit(Problem(episodes, HashEncoder(), meter, 1))
    assert meter.calls <= 8
    assert 1.5 * budget < sum(n for _, n, _ in meter.history) <= 2.2 * budget


@pytest.mark.parametrize("change", [{"vector": np.zeros(128, np.float32)}, {"label": "gout"}, {"predicted": "gout"}])
def test_results_of_patients_with_other_vectors_or_labels_do_not_go_into_one_file(
    change: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"agents": ("keep-all",), "out": tmp_path}
    benchmark(BenchmarkConfig(**options, seeds=1))
    everybody = lite_episodes()
    with monkeypatch.context() as patch:
        others = everybody.part(replace(episode, **change) for episode in everybody)
        patch.setattr("agents.benchmark.patients.lite_episodes", lambda: others)
        with pytest.raises(ValueError, match=r"has results with data '[0-9a-f]{16}', not '[0-9a-f]{16}': use the same"):
            benchmark(BenchmarkConfig(**options, seeds=2))
    (file,) = tmp_path.glob("*/runs.jsonl")
    older = [
        {**each, "identity": {"episodes": each["identity"]["episodes"], "n_edits": 10}} for each in _lines(tmp_path)
    ]
    file.write_text("".join(json.dumps(each) + "\n" for each in older))
    benchmark(BenchmarkConfig(agents=("keep-all", "random-n"), seeds=1, out=tmp_path))  # older results lack this
    assert len(_lines(tmp_path)) > len(older)
    assert "random-n" in report(ReportConfig(tmp_path))
