"""``pmlm experiment transfer``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.experiments.transfer import Transfer
from pmlm_env.core.edits import apply_edits, deletions
from pmlm_env.llm import Request
from pmlm_env.llm.responder import Responder
from tests.agents.experiments.quick import runs
from tests.agents.experiments.quick_runs import held_out, made_up, quick, table_after
from tests.commands import pmlm
from tests.own_parts import Shout

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("quick_stages", "hashed_sentences")]

LLMS = ["responder", "tests.own_parts:Shout"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, quick_stages: None) -> Path:
    out = tmp_path_factory.mktemp("results")
    assert quick("transfer", out, "--llms", *LLMS, llm=False) == 0
    return out / "transfer"


def pair(run: dict[str, Any]) -> tuple[str, str, str]:
    cell = run["cell"]
    return cell["row"], cell.get("learned_from", {}).get("llm", ""), cell["models"]["llm"]


def test_each_agent_is_judged_by_every_llm_beside_the_controls_of_that_llm(results: Path) -> None:
    assert [pair(run) for run in runs(results)] == [
        row
        for llm, other in (LLMS, LLMS[::-1])
        for row in (
            ("echo", "", llm),
            ("keep-all", "", llm),
            ("random-n", "", llm),
            ("leave-one-out", llm, llm),
            ("leave-one-out", llm, other),
        )
    ]


def test_an_agent_edits_the_prompts_in_the_same_way_for_every_llm(results: Path) -> None:
    slots = {pair(run): run["result"]["slots"] for run in runs(results) if "slots" in run["result"]}
    for source in LLMS:
        assert slots["leave-one-out", source, LLMS[0]] == slots["leave-one-out", source, LLMS[1]]
    assert slots["random-n", "", LLMS[0]] == slots["random-n", "", LLMS[1]]


def test_what_an_agent_learned_hangs_on_the_llm_it_learned_from(tmp_path: Path) -> None:
    assert quick("transfer", tmp_path, "--llms", *LLMS, "--agents", "single-rule", llm=False) == 0
    found = {pair(run): run["result"].get("slots") for run in runs(tmp_path / "transfer")}
    assert found["single-rule", LLMS[0], LLMS[0]] != found["single-rule", LLMS[1], LLMS[0]]


def test_the_metrics_are_those_of_the_judging_llms_replies(results: Path) -> None:
    patients = held_out(results)
    for run in runs(results):
        row, _, llm = pair(run)
        if row == "leave-one-out":
            edits = [deletions(e, slots) for e, slots in zip(patients, run["result"]["slots"], strict=True)]
            requests = [Request(prompt) for prompt in apply_edits(patients, range(len(patients)), edits)]
            replies = (Responder() if llm == "responder" else Shout()).ask(requests)
            words = [len(reply.text.split()) for reply in replies]  # type: ignore[union-attr]
            assert run["result"]["metrics"]["words"] == words


def test_a_dry_run_counts_an_agents_calls_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quick("transfer", tmp_path, "--llms", *LLMS, "--dry-run", llm=False) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "LLM calls" in line]
    # For each LLM: its agent's 16, and 10 patients' replies to untouched, random and two agents' prompts.
    assert [re.search(r"([\d,]+) LLM calls", line)[1] for line in lines] == ["56", "56"]  # type: ignore[index]


def test_the_figures_have_a_row_for_each_pair(results: Path) -> None:
    text = (results / "f1.svg").read_text()
    assert "leave-one-out, responder \u2192 tests.own_parts:" in text
    assert "random-n, responder" in text
    assert (results / "margin.svg").exists()


PATIENTS = [f"P{i}" for i in range(40)]
F1 = np.linspace(0.5, 0.7, 40)


def replied(llm: str, row: str, f1: float, source: str | None = None) -> dict[str, Any]:
    """Return a run in which an LLM's replies have an F1 that differs from ``F1`` by as much for everybody."""
    learned = {} if source is None else {"learned_from": {"llm": source}, "budget": 16}
    metrics = {"bertscore_f1": (F1 + f1).tolist()}
    return made_up(row, {"patients": PATIENTS, "metrics": metrics}, models={"llm": llm, "n_edits": 10}, **learned)


def test_changes_are_from_the_judging_llms_replies_to_untouched_prompts() -> None:
    runs = [
        replied("a", "keep-all", 0.0),
        replied("b", "keep-all", 0.1),
        replied("a", "random-n", -0.01),
        replied("a", "mine", 0.02, "a"),
        replied("a", "mine", 0.01, "b"),
        replied("b", "mine", 0.07, "a"),
        replied("b", "echo", 0.0),
    ]
    text = Transfer().table(runs)
    matrix = {row["learned from"]: row for row in table_after(text, "The change of F1 from the replies")}
    assert matrix["a"] == {
        "learned from": "a", "a": "+2.00 [+2.00, +2.00]", "b": "-3.00 [-3.00, -3.00]",
    }  # fmt: skip
    assert matrix["b"] == {"learned from": "b", "a": "+1.00 [+1.00, +1.00]", "b": "-"}
    assert matrix["(random-n)"] == {"learned from": "(random-n)", "a": "-1.00 [-1.00, -1.00]", "b": "-"}
    rows = {(row["LLM"], row["prompts edited by"], row["learned from"]): row for row in table_after(text, "All rows")}
    assert list(rows) == [
        ("a", "nobody", ""), ("a", "random-n", ""), ("a", "mine", "a"), ("a", "mine", "b"),
        ("b", "nobody", ""), ("b", "mine", "a"), ("b", "*echo*", ""),
    ]  # fmt: skip
    other = rows["a", "mine", "b"]
    assert other["F1, minus random-n"] == "+2.00 [+2.00, +2.00]"
    assert other["F1, minus learned from the LLM itself"] == "-1.00 [-1.00, -1.00]"
    assert rows["a", "mine", "a"]["F1, minus learned from the LLM itself"] == ""


def test_without_downloaded_models_the_llms_have_to_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PMLM_CACHE", str(tmp_path / "cache"))
    assert pmlm("experiment", "transfer", "--out", tmp_path / "out") == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "pmlm experiment: transfer needs two LLMs or more, not 0: name them (--llms), or download a bundled one "
        "(pmlm models --fetch smollm2-135m)"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--llms", "responder"), "transfer needs two LLMs or more, not 1: name them (--llms)"),
        (("--llm", "responder"), "--llm has no effect: --llms names the LLMs"),
        (("--llms", "responder", "no-such"), ""),
    ],
)
def test_wrong_options_are_refused(
    options: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pmlm("experiment", "transfer", *options, "--out", tmp_path / "out") == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"pmlm experiment: {said}")
    assert not (tmp_path / "out").exists()
