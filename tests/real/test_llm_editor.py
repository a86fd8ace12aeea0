"""An LLM as editor through the command line: trained, evaluated, compared, used, and what it may be sent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.problem import Problem
from agents.registry import load, make, settings_of
from agents.serving.refine import Refiner
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.llm.storage.budget import Account
from pmlm_env.weights import describe, state
from tests.commands import pmlm
from tests.llm.endpoint import KEY, Endpoint, chat, serve
from tests.problems import slots_of
from tests.real.runs import prepare, small_models
from tests.standins import HashEncoder

pytestmark = [pytest.mark.once, pytest.mark.real, pytest.mark.usefixtures("quick_stages", "no_figures")]

#: What the endpoint always answers.
NAMED = (2, 0)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with serve() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", KEY)
        server.answer = lambda count, prompt: chat(", ".join(map(str, NAMED)))
        yield server


@pytest.fixture(scope="module")
def work(endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared patients, and a file of providers in which ``mine`` is the endpoint."""
    folder = tmp_path_factory.mktemp("work")
    prepare(folder / "prepared")
    (folder / "providers.toml").write_text(f'[mine]\nbase_url = "{endpoint.url}"\napi_key_env = "OPENAI_API_KEY"\n')
    return folder


def _train(work: Path, run: Path, *more: object, agent: str = "llm-editor") -> list[object]:
    common = ["--episodes", work / "prepared", "--run", run, "--llm", "responder", "--device", "cpu", "--n-edits", 2]
    return ["train", "--agent", agent, *common, *small_models(), "--budget", 36, *more]


def _remote(work: Path) -> list[object]:
    return ["--editor", "mine:m", "--providers", work / "providers.toml"]


@pytest.fixture(scope="module")
def trained(work: Path) -> Path:
    """A run whose editor is the endpoint; not to be changed."""
    assert pmlm(*_train(work, work / "run", *_remote(work))) == 0
    return work / "run"


@pytest.fixture
def run(trained: Path) -> Path:
    copy = trained.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    return shutil.copytree(trained, copy)


def _refused(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    capsys.readouterr()
    assert pmlm(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def _deleted(file: Path) -> list[tuple[int, ...]]:
    lines = map(json.loads, file.read_text().splitlines())
    return [tuple(edit["slot"] for edit in line["edits"]) for line in lines if line["variant"] == "agent"]


def test_an_endpoint_edits_and_its_calls_are_booked_once_more_by_themselves(
    run: Path, work: Path, endpoint: Endpoint
) -> None:
    before = endpoint.n_requests
    evaluate = ["evaluate", "--run", run, "--rule-calls", 0]
    assert pmlm(*evaluate, "--providers", work / "providers.toml") == 0
    assert endpoint.n_requests == before + 3
    assert _deleted(run / "traces.jsonl") == [NAMED] * 3
    counts = json.loads((run / "evaluation.json").read_text())["counts"]
    assert counts == {"prompts": 3, "deleted": 6}
    own, whole = (Account(path=run / f"{name}.sqlite").usage for name in ("spent.editor", "spent"))
    assert own.calls == 3
    traces = map(json.loads, (run / "traces.jsonl").read_text().splitlines())
    asked = {trace["prompt"] for trace in traces if trace["variant"] in ("keep_all", "random", "agent")}
    assert whole.calls == 3 + len(asked)
    spent = json.loads((run / "spent.json").read_text())
    assert (spent["llm_calls"], spent["editor_llm_calls"]) == (whole.calls, 3)
    assert pmlm(*evaluate, "--providers", work / "providers.toml") == 0
    assert endpoint.n_requests == before + 3  # the answers are cached
    assert pmlm(*evaluate, "--replay") == 0


def test_an_address_that_only_the_run_names_gets_no_prompt(
    run: Path, work: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    before = endpoint.n_requests
    said = _refused(capsys, "evaluate", "--run", run)
    assert said.endswith(f"If you trust it, add --providers {work / 'providers.toml'}")
    assert endpoint.n_requests == before


def test_a_checkpoint_that_names_another_editor_than_its_run_gets_no_prompt(
    run: Path, work: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((run / "config.json").read_text())
    config["settings"]["settings"]["editor"] = "responder"
    (run / "config.json").write_text(json.dumps(config))
    before = endpoint.n_requests
    said = _refused(capsys, "evaluate", "--run", run, "--providers", work / "providers.toml")
    assert "name different editors" in said
    assert endpoint.n_requests == before


def test_refine_asks_an_endpoint_only_if_it_is_named_again(
    run: Path, work: Path, endpoint: Endpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "refined.jsonl"
    refine = ["refine", "--model", run / "checkpoint", "--episodes", work / "prepared", "--out", out]
    before = endpoint.n_requests
    assert "name it with --editor" in _refused(capsys, *refine)
    assert endpoint.n_requests == before
    assert pmlm(*refine, *_remote(work)) == 0
    assert _deleted(out) == [NAMED] * 3
    assert pmlm(*refine, *_remote(work), "--reply", "--llm", "responder") == 2  # it takes no providers


def test_an_editor_that_no_agent_asks_has_no_effect(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pmlm(*_train(work, tmp_path / "run", agent="keep-all")) == 0
    refine = ["refine", "--model", tmp_path / "run", "--episodes", work / "prepared", "--editor", "responder"]
    assert "--editor has no effect: the agent keep-all asks no LLM itself" in _refused(capsys, *refine)
    said = _refused(capsys, "benchmark", "--agents", "keep-all", "--editor", "responder")
    assert "--editor has no effect: no agent asks an LLM itself" in said


def test_a_limit_of_the_run_holds_for_the_editor_too_and_its_own_for_it_alone(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pmlm(*_train(work, tmp_path / "run", *_remote(work), "--editor-calls", 2)) == 0
    evaluate = ["evaluate", "--run", tmp_path / "run", "--providers", work / "providers.toml"]
    capsys.readouterr()
    assert pmlm(*evaluate) == 1
    assert "LLM call limit of 2" in capsys.readouterr().err
    assert pmlm(*_train(work, tmp_path / "other", *_remote(work))) == 0
    assert pmlm(*evaluate[:2], tmp_path / "other", *evaluate[3:], "--max-llm-calls", 1) == 1
    assert Account(path=tmp_path / "other" / "spent.sqlite").usage.calls == 1


def test_a_benchmark_has_a_row_for_each_way_of_asking(work: Path, endpoint: Endpoint, tmp_path: Path) -> None:
    common = ["--env", "real", "--episodes", work / "prepared", "--llm", "responder", "--device", "cpu"]
    common += ["--n-edits", 2, *small_models(), "--out", tmp_path / "results", "--run", tmp_path / "run"]
    agents = ["keep-all", "llm-editor", "llm-editor-few-shot"]
    assert pmlm("benchmark", *common, "--agents", *agents, *_remote(work), "--budget", 36, "--seeds", 1) == 0
    lines = [json.loads(line) for line in (tmp_path / "results/real/runs.jsonl").read_text().splitlines()]
    rows = {line["agent"]: line for line in lines if line["track"] == "inductive"}
    assert list(rows) == agents
    for name in agents[1:]:
        assert rows[name]["counts"] == {"prompts": 3, "deleted": 6}
        assert rows[name]["config"]["editor"] == "mine:m"
    assert rows["llm-editor"]["deltas"] == rows["llm-editor-few-shot"]["deltas"]  # the endpoint always says the same
    assert rows["llm-editor"]["calls"] == 0
    assert 0 < rows["llm-editor-few-shot"]["calls"] <= 36
    assert pmlm("report", tmp_path / "results") == 0


def test_values_of_records_go_to_no_endpoint_unless_that_is_allowed(
    work: Path, endpoint: Endpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pmlm("simulate", "--out", tmp_path / "cohort", "--patients", 60, "--seed", 1) == 0
    raw = tmp_path / "prepared"
    assert pmlm("prepare", "--cohort", tmp_path / "cohort", "--out", raw, "--template", "raw") == 0
    shutil.copytree(raw, tmp_path / "folder" / "prepared")
    train = _train(tmp_path / "folder", tmp_path / "run", "--editor", "openai:m")  # the endpoint is on this machine
    assert "allow it with --send-values" in _refused(capsys, *train)
    assert not (tmp_path / "run" / "config.json").exists()
    assert pmlm(*train, "--send-values") == 0


def test_an_agent_with_examples_is_not_published_and_one_without_is(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = "llm-editor-few-shot"
    more = ["--editor", "responder", "--n-edits", 10, "--budget", 400, "--candidates", 99]
    assert pmlm(*_train(work, tmp_path / agent, *more, agent=agent)) == 0
    assert load(tmp_path / agent / "checkpoint").holds_prompts
    said = _refused(capsys, "publish", "--run", tmp_path / agent, "--out", tmp_path / "hub")
    assert "contains prompts of training patients" in said
    assert not (tmp_path / "hub").exists()
    assert pmlm(*_train(work, tmp_path / "zero", "--editor", "responder")) == 0
    assert pmlm("publish", "--run", tmp_path / "zero", "--out", tmp_path / "hub") == 0


def test_the_smallest_bundled_llm_names_words_that_may_go(work: Path) -> None:
    if state("smollm2-135m") == "missing":
        pytest.skip(describe("smollm2-135m"))
    episodes = EpisodeSet(list(EpisodeSet.load(work / "prepared").of("test"))[:2])
    agent = make("llm-editor", settings_of("llm-editor", changes={"editor": "local:smollm2-135m", "editor_tokens": 24}))
    agent.fit(Problem(episodes, HashEncoder(), None, 3))
    refined = Refiner(agent, HashEncoder()).refine_all(episodes)
    assert agent.counts["prompts"] == 2
    assert agent.counts.get("failed", 0) == 0
    assert agent.counts["deleted"] == sum(map(len, slots_of([each.edits for each in refined])))
    again = Refiner(agent, HashEncoder()).refine_all(episodes)
    assert [each.prompt for each in again] == [each.prompt for each in refined]
