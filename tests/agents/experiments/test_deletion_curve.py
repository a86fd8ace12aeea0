"""``pmlm experiment deletion-curve``."""

from __future__ import annotations

import json
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents import registry
from agents.evaluation.bootstrap import mean_interval
from agents.experiments.deletion_curve import DeletionCurve
from agents.problem import Problem
from pmlm_env.core.edits import apply_edits
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.envs.lite import HashedEncoder
from pmlm_env.llm.responder import Responder
from pmlm_env.rewards.bertscore import BertScorer
from tests.agents.experiments.quick import table
from tests.commands import pmlm
from tests.real.runs import small_bert, small_models

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("quick_stages", "hashed_sentences")]

SHARES = [0, 0.3, 0.9]
AGENTS = ["leave-one-out", "surrogate", "random-n"]


def command(*agents: str) -> list[object]:
    options = ["--llm", "responder", "--device", "cpu", *small_models()]
    return ["experiment", "deletion-curve", "--quick", "--agents", *agents, *options]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, quick_stages: None) -> Path:
    out = tmp_path_factory.mktemp("results")
    assert pmlm(*command(*AGENTS), "--out", out) == 0
    return out / "deletion-curve"


def runs(results: Path) -> dict[str, dict[str, Any]]:
    """Return the lines of the agents' runs."""
    lines = [json.loads(line) for line in (results / "runs.jsonl").read_text().splitlines()]
    return {line["cell"]["agent"]: line for line in lines if line["cell"]["agent"] != "echo"}


def held_out(results: Path) -> EpisodeSet:
    (words,) = (results.parent / "prepared").glob("*/episodes.jsonl")
    return EpisodeSet.load(words.parent).of("test")


def half_up(share: float, n_words: int) -> int:
    return int((Decimal(str(share)) * n_words).quantize(Decimal(1), ROUND_HALF_UP))


def test_each_share_of_the_words_of_every_prompt_is_deleted(results: Path) -> None:
    lengths = [len(episode.words) for episode in held_out(results)]
    assert len(lengths) == 10
    for line in runs(results).values():
        result = line["result"]
        assert result["shares"] == SHARES
        assert result["patients"] == [episode.patient_id for episode in held_out(results)]
        assert result["prompt_words"] == [[n - half_up(share, n) for n in lengths] for share in SHARES]
        assert all(np.array(result["prompt_tokens"])[:-1].ravel() >= np.array(result["prompt_tokens"])[1:].ravel())


def test_the_replies_are_to_prompts_that_lose_their_words_in_one_order(results: Path) -> None:
    patients = held_out(results)
    agent = registry.make("random-n", seed=0)
    order = agent.refine(Problem(patients, HashedEncoder(), None, 0.9))
    result = runs(results)["random-n"]["result"]
    for place, share in enumerate(SHARES):
        shorter = [edits[: half_up(share, len(e.words))] for edits, e in zip(order, patients, strict=True)]
        replies = Responder().generate(list(apply_edits(patients, range(len(patients)), shorter)))
        assert result["metrics"]["words"][place] == [len(reply.text.split()) for reply in replies]


def test_agents_learn_with_a_smaller_edit_budget_and_random_deletion_needs_no_calls(results: Path) -> None:
    found = runs(results)
    assert {name: line["cell"]["budget"] for name, line in found.items()} == dict(zip(AGENTS, (16, 16, 0), strict=True))
    assert {line["cell"]["models"]["n_edits"] for line in found.values()} == {0.3}


def test_the_untouched_prompts_are_the_same_for_all_agents(results: Path) -> None:
    first = [{name: values[0] for name, values in line["result"]["metrics"].items()} for line in runs(results).values()]
    assert first[0] == first[1] == first[2]
    assert first[0].keys() == {"bertscore_f1", "margin", "diagnosis_named", "wrong_diagnosis_named", "words", "cut"}


def test_the_table_has_the_means_and_changes_of_each_share(results: Path) -> None:
    rows = table((results / "table.md").read_text(), "| agent | deleted, % | words |")
    assert [(row["agent"], row["deleted, %"]) for row in rows] == [
        ("", "0"),
        *((agent, share) for agent in AGENTS for share in ("30", "90")),
        ("*echo*", "0"),
    ]
    result = runs(results)["surrogate"]["result"]
    row = next(row for row in rows if (row["agent"], row["deleted, %"]) == ("surrogate", "90"))
    f1 = 100 * np.mean(result["metrics"]["bertscore_f1"], axis=1)
    assert row["F1"] == f"{f1[2]:.2f}"
    assert row["F1, change"].startswith(f"{f1[2] - f1[0]:+.2f} [")
    assert row["prompt tokens"] == f"{np.mean(result['prompt_tokens'][2]):.1f}"
    assert row["right, %"] == f"{100 * np.mean(result['metrics']['diagnosis_named'][2]):.0f}"
    assert row["seeds"] == "1"


def test_the_echo_is_compared_with_the_replies_to_the_untouched_prompts(results: Path) -> None:
    prompts = [episode.prompt for episode in held_out(results)]
    scorer = BertScorer(str(small_bert()), device="cpu")
    references = [episode.reference for episode in held_out(results)]
    echo = scorer.f1(prompts, references)
    change = echo - scorer.f1([reply.text for reply in Responder().generate(prompts)], references)
    interval = mean_interval(change, np.random.default_rng(0))
    *_, row = table((results / "table.md").read_text(), "| agent | deleted, % | words |")
    assert row["F1"] == f"{100 * echo.mean():.2f}"
    assert row["F1, change"].startswith(f"{100 * interval.mean:+.2f} [")
    assert row["prompt tokens"] != "-"


@pytest.mark.parametrize("figure", ["f1", "margin", "right"])
def test_there_is_a_figure_with_a_panel_for_each_agent(results: Path, figure: str) -> None:
    text = (results / f"{figure}.svg").read_text()
    assert all(agent in text for agent in AGENTS)
    assert "words deleted, %" in text


def test_complete_runs_are_not_repeated_and_a_torn_one_is(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (results / "runs.jsonl").read_bytes()
    assert pmlm(*command(*AGENTS), "--out", results.parent) == 0
    assert (results / "runs.jsonl").read_bytes() == before
    assert "new runs: 0, earlier ones: 4" in capsys.readouterr().out
    torn = before.splitlines(keepends=True)
    (results / "runs.jsonl").write_bytes(b"".join(torn[:-1]) + torn[-1][:40])
    assert pmlm(*command(*AGENTS), "--out", results.parent) == 0
    assert "new runs: 1, earlier ones: 3" in capsys.readouterr().out
    again = [json.loads(line)["result"] for line in (results / "runs.jsonl").read_bytes().splitlines()]
    assert again == [json.loads(line)["result"] for line in before.splitlines()]


def test_protected_words_stay_in_the_prompts(tmp_path: Path) -> None:
    assert pmlm(*command("random-n"), "--protect", "instruction", "--out", tmp_path) == 0
    results = tmp_path / "deletion-curve"
    protected = [episode.roles.count("instruction") for episode in held_out(results)]
    words = runs(results)["random-n"]["result"]["prompt_words"]
    assert words[-1] == protected
    assert words[0] > protected


def test_an_agent_that_stops_deleting_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pmlm(*command("keep-all"), "--out", tmp_path) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("pmlm experiment: the agent keep-all deleted 0 words of a prompt instead of ")
    assert message.endswith("the curve needs an agent that goes on deleting, such as surrogate")


def test_agents_without_randomness_are_run_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agents = ["--agents", "random-n", "self-information-low", "--llm", "responder", "--seeds", "2"]
    assert pmlm("experiment", "deletion-curve", "--out", tmp_path, "--dry-run", *agents) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = [json.loads(line) for line in lines if line.startswith("{")]
    assert [(cell["agent"], cell["seed"]) for cell in cells] == [
        ("random-n", 0),
        ("self-information-low", 0),
        ("random-n", 1),
        ("echo", 0),
    ]
    assert "missing runs: 4, complete ones: 0" in lines


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--price", "-1"), "the price of prompt tokens is -1.0: it must be 0 or more"),
        (("--quick", "--budget", "3"), "--budget has no effect: --quick has its own"),
        (("--test-patients", "0"), "test-patients is 0: use a whole number from 1 to 100,000"),
        (("--agents", "no-such"), "there is no agent 'no-such': use "),
    ],
)
def test_wrong_options_are_refused(
    options: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pmlm("experiment", "deletion-curve", "--llm", "responder", "--out", tmp_path / "out", *options) == 2
    assert capsys.readouterr().err.startswith(f"pmlm experiment: {said}")
    assert not (tmp_path / "out").exists()


# What can go at no loss, from runs whose numbers are known


def made_up(changes: list[list[float]], agent: str = "surrogate", tokens: tuple[int, ...] = (100, 80, 60)) -> Any:
    """Return a run with these changes of F1 at 10 and 20 % for each of some patients."""
    n = len(changes[0])
    f1 = [[0.6] * n, *([0.6 + change for change in row] for row in changes)]
    zeros = [[0.0] * n for _ in f1]
    result = {
        "patients": [f"P{i}" for i in range(n)],
        "shares": [0, 0.1, 0.2][: len(f1)],
        "prompt_words": [[10 - i] * n for i in range(len(f1))],
        "prompt_tokens": [[tokens[i]] * n for i in range(len(f1))],
        "metrics": {
            "bertscore_f1": f1,
            **dict.fromkeys(("margin", "diagnosis_named", "wrong_diagnosis_named", "words", "cut"), zeros),
        },
    }
    patients = {"cohort": "simulated-paper", "n": 9, "train": 5, "test": n, "pipeline": {"template": "default"}}
    cell = {"agent": agent, "seed": 0, "budget": 16, "patients": patients, "models": {"llm": "a", "n_edits": 0.3}}
    return {"cell": cell, "result": result}


def no_loss(runs: list[Any], price: float | None = None) -> list[dict[str, str]]:
    return table(DeletionCurve(price=price).table(runs), "| agent | deleted, % | prompt tokens saved |")


SOME = np.linspace(-0.01, 0.01, 40)


def test_what_goes_at_no_loss_is_the_largest_share_whose_interval_excludes_a_loss_of_a_point() -> None:
    low = mean_interval(SOME, np.random.default_rng(0)).low
    assert low is not None
    assert -0.01 < low < -0.001
    (both,) = no_loss([made_up([SOME.tolist(), (SOME - 0.005).tolist()])])
    assert (both["deleted, %"], both["prompt tokens saved"], both["in %"]) == ("20", "40.0", "40")
    assert both["F1, change"].startswith("-0.50 [-0.")
    (one,) = no_loss([made_up([SOME.tolist(), (SOME - 0.01).tolist()])])  # on average a loss of a point
    assert (one["deleted, %"], one["prompt tokens saved"]) == ("10", "20.0")


def test_a_larger_share_does_not_count_after_a_loss_at_a_smaller_one() -> None:
    (row,) = no_loss([made_up([(SOME - 0.02).tolist(), SOME.tolist()])])
    assert (row["deleted, %"], row["prompt tokens saved"], row["F1, change"]) == ("0", "0.0", "")


def test_too_few_patients_for_an_interval_show_no_share() -> None:
    (row,) = no_loss([made_up([[0.0] * 4, [0.0] * 4])])
    assert row["deleted, %"] == "0"


def test_the_price_of_tokens_gives_the_amount_saved_in_a_thousand_prompts() -> None:
    runs = [made_up([SOME.tolist(), SOME.tolist()])]
    assert "saved in 1,000 prompts" not in no_loss(runs)[0]
    assert no_loss(runs, price=2.5)[0]["saved in 1,000 prompts"] == "0.1"  # 40 tokens x 1,000 x 2.5 / 1,000,000


def test_a_margin_that_nobody_has_is_a_dash() -> None:
    """Of a cohort with a single condition, there are no letters of other ones."""
    run = made_up([[0.0] * 12, [0.0] * 12])
    run["result"]["metrics"]["margin"] = [[None] * 12] * 3
    text = DeletionCurve().table([run])
    assert "nan" not in text
    (row,) = [line for line in text.splitlines() if line.startswith("| surrogate | 20 | 8.0")]
    assert row.split(" | ")[5:7] == ["+0.00 [+0.00, +0.00]", "-"]


def test_seeds_of_an_agent_are_one_row_and_budgets_are_told_apart() -> None:
    first, second = made_up([SOME.tolist()] * 2), made_up([SOME.tolist()] * 2)
    second["cell"]["seed"] = 1
    text = DeletionCurve().table([first, second])
    assert [row["seeds"] for row in table(text, "| agent | deleted, % | words |")] == ["", "2", "2"]
    second["cell"]["budget"] = 600
    assert [row["agent"] for row in no_loss([first, second])] == ["surrogate (16 calls)", "surrogate (600 calls)"]
