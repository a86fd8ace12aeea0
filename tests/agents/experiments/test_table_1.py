"""``pmlm experiment table-1``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.evaluation.aggregate import crossed_bootstrap
from agents.evaluation.controls import CONTROLS
from agents.evaluation.metrics import METRICS, text_scores
from agents.experiments.reply_table import minus
from agents.experiments.table_1 import Table1
from tests.agents.experiments.quick import command, prepared, runs, table
from tests.commands import pmlm

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("quick_stages")]

SHOUT = "tests.own_parts:Shout"
ROWS = ["raw-data", *CONTROLS, "keep-all", "random-n", "surrogate"]


@pytest.fixture(scope="module")
def llms(men: Path) -> list[str]:
    return [f"responder:{men / 'schema.toml'}", SHOUT]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, men: Path, llms: list[str], quick_stages: None) -> Path:
    out = tmp_path_factory.mktemp("results")
    options = ["--llms", *llms, "--agents", "surrogate", "--send-values"]  # a class of one's own may send them anywhere
    assert pmlm(*command("table-1", men, *options, "--out", out)) == 0
    return out / "table-1"


def metrics(results: Path, llm: str, row: str) -> dict[str, list[float]]:
    cells = [(run["cell"]["models"]["llm"], run["cell"]["row"]) for run in runs(results)]
    return runs(results)[cells.index((llm, row))]["result"]["metrics"]


def test_each_llm_has_a_row_for_each_prompt_and_control_with_all_metrics(results: Path, llms: list[str]) -> None:
    done = runs(results)
    assert [(run["cell"]["models"]["llm"], run["cell"]["row"]) for run in done] == [
        (llm, row) for llm in llms for row in ROWS
    ]
    for run in done:
        assert run["result"]["metrics"].keys() == set(METRICS)
        assert run["result"]["patients"] == done[0]["result"]["patients"]
        assert len(run["result"]["patients"]) == 10


def test_the_first_row_is_of_replies_to_prompts_with_laboratory_values(results: Path) -> None:
    (raw,) = (episodes.of("test") for episodes in prepared(results) if "Latest check-up" in episodes[0].prompt)
    replies = [episode.prompt.upper() + "!" for episode in raw]
    scores = text_scores(replies, [episode.reference for episode in raw])
    assert metrics(results, SHOUT, "raw-data")["rouge1"] == pytest.approx(scores.rouge1, abs=1e-5)


def test_the_changes_from_the_raw_data_prompt_stand_beside_the_papers(results: Path, llms: list[str]) -> None:
    rows = table((results / "table.md").read_text(), "| LLM | prompt | F1 |")
    prompts = ["our prompt, unedited", "our prompt, edited by random-n", "our prompt, edited by surrogate (16 calls)"]
    assert [(row["LLM"], row["prompt"]) for row in rows] == [(llm, prompt) for llm in llms for prompt in prompts]
    f1 = [100 * np.mean(metrics(results, llms[0], row)["bertscore_f1"]) for row in ("surrogate", "raw-data")]
    assert rows[2]["F1"].startswith(f"{f1[0] - f1[1]:+.2f} [")
    # GPT3.5-turbo: 68.89 - 65.19; GPT4: 70.50 - 62.75
    assert [row["the paper's F1"] for row in rows[:3]] == ["", "", "+3.70 to +7.75"]


def test_each_llm_has_its_means_beside_the_papers(results: Path, llms: list[str]) -> None:
    text = (results / "table.md").read_text()
    rows = table(text[text.index(f", {llms[1]}: 10 test patients") :], "| reply to | BLEU-4 |")
    by_name = {row["reply to"]: row for row in rows}
    assert list(by_name)[:2] == ["raw-data prompt", "our prompt, unedited"]
    assert by_name["*echo*"]["F1"].startswith(f"{100 * np.mean(metrics(results, SHOUT, 'echo')['bertscore_f1']):.2f} [")
    assert by_name["raw-data prompt"]["the paper's F1"] == "61.26 to 65.19"
    assert by_name["our prompt, edited by surrogate (16 calls)"]["the paper's F1"] == "67.31 to 70.50"
    of_paper = table(text, "| the paper's | LLM | BLEU-4 |")
    assert len(of_paper) == 10
    assert list(of_paper[4].values())[1:] == ["GPT4", "7.76", "15.49", "28.62", "9.38", "61.03", "64.59", "62.75"]


@pytest.mark.parametrize("figure", ["f1", "margin"])
def test_there_is_a_figure_of_the_changes_of_all_llms(results: Path, figure: str) -> None:
    text = (results / f"{figure}.svg").read_text()
    assert "schema.toml, edited by surrogate (16 calls)" in text
    assert "Shout, unedited" in text


def made_up(row: str, f1: list[float], seed: int = 0, **more: Any) -> dict[str, Any]:
    """Return a run with these values of F1, one for each patient."""
    zeros = [0.0] * len(f1)
    result = {"patients": [f"P{i}" for i in range(len(f1))], "metrics": {**dict.fromkeys(METRICS, zeros)}}
    result["metrics"]["bertscore_f1"] = f1
    patients = {"cohort": "simulated-paper", "n": 9, "train": 5, "test": len(f1)}
    return {"cell": {"row": row, "seed": seed, **more, "patients": patients, "models": {"llm": "a"}}, "result": result}


def test_the_difference_of_two_rows_is_paired_by_patient_with_its_interval() -> None:
    rng = np.random.default_rng(1)
    raw, ours = rng.uniform(0.4, 0.6, 40), rng.uniform(0.5, 0.7, (2, 40))
    some = [made_up("raw-data", raw.tolist()), *(made_up("a2c", f.tolist(), i, budget=16) for i, f in enumerate(ours))]
    (row,) = table(Table1().table(some), "| LLM | prompt | F1 |")
    interval = crossed_bootstrap(ours - raw, np.random.default_rng(0))
    assert interval.low is not None
    assert interval.high is not None
    assert row["F1"] == f"{100 * interval.mean:+.2f} [{100 * interval.low:+.2f}, {100 * interval.high:+.2f}]"
    means = {row["reply to"]: row for row in table(Table1().table(some), "| reply to | BLEU-4 |")}
    assert means["raw-data prompt"]["F1"].startswith(f"{100 * raw.mean():.2f} [")
    assert means["our prompt, edited by a2c (16 calls)"]["seeds"] == "2"


def test_seeds_count_whichever_of_two_rows_has_several() -> None:
    rng = np.random.default_rng(1)
    one, several = {"bertscore_f1": rng.uniform(0.4, 0.6, (1, 40))}, {"bertscore_f1": rng.uniform(0.5, 0.7, (3, 40))}
    several["bertscore_f1"] += np.array([[-0.1], [0.0], [0.1]])
    there, back = minus(several, one, "bertscore_f1"), minus(one, several, "bertscore_f1")
    assert there is not None
    assert back is not None
    assert (back.mean, back.low, back.high) == pytest.approx((-there.mean, -there.high, -there.low), abs=0.004)
    assert there.high - there.low > 0.1  # most of it is the seeds'


def test_the_figure_has_all_llms_of_the_last_patients_whatever_their_names() -> None:
    some = []
    for llm, f1 in (("ollama:llama3.2:1b", [0.1, 0.2]), ("ollama:gemma3:1b", [0.1, 0.2]), ("ollama:gemma3:1b", [0.3])):
        for row in ("raw-data", "keep-all"):
            run = made_up(row, f1)
            some.append({**run, "cell": {**run["cell"], "models": {"llm": llm}}})

    def drawn(n_runs: int) -> list[str]:
        labels = Table1().figures(some[:n_runs])["f1"].axes[0].get_yticklabels()
        return sorted("".join(label.get_text().split()) for label in labels)  # long ones have several lines

    assert drawn(4) == ["ollama:gemma3:1b,unedited", "ollama:llama3.2:1b,unedited"]
    assert drawn(6) == ["ollama:gemma3:1b,unedited"]


def test_several_sets_of_patients_have_a_table_each_that_says_what_sets_them_apart() -> None:
    some = []
    for train in (5, 6):
        for llm in ("ollama:a", "ollama:b"):
            for row in ("raw-data", "keep-all"):
                run = made_up(row, [0.1 * train] * 12)
                cell = {**run["cell"], "models": {"llm": llm}, "patients": {**run["cell"]["patients"], "train": train}}
                some.append({**run, "cell": cell})
    text = Table1().table(some)
    first, second = text.index("**With patients.train 5:**"), text.index("**With patients.train 6:**")
    for part in (text[first:second], text[second:]):
        assert [row["LLM"] for row in table(part, "| LLM | prompt | F1 |")] == ["ollama:a", "ollama:b"]
    assert text.count("| LLM | prompt | F1 |") == 2
    assert text.count("**With ") == 2 + 4  # and the tables of each LLM
    assert "**With" not in Table1().table(some[:4])


def test_intervals_of_levels_and_of_differences_end_at_the_bounds_of_the_metric() -> None:
    ours, raw = made_up("a2c", [1.0] * 9 + [0.9], budget=16), made_up("raw-data", [0.5] * 10)
    ours["result"]["metrics"]["diagnosis_named"] = [1.0] * 9 + [0.0]
    text = Table1().table([raw, ours])
    (change,) = table(text, "| LLM | prompt | F1 |")
    assert change["right"].startswith("+90.00 [")
    assert change["right"].endswith(", +100.00]")
    row = table(text, "| reply to | BLEU-4 |")[1]
    assert row["F1"].startswith("99.00 [")
    assert row["F1"].endswith(", 100.00]")


def test_intervals_of_shares_end_at_0_and_100_percent() -> None:
    run = made_up("raw-data", [0.5] * 10)
    run["result"]["metrics"]["diagnosis_named"] = [1.0] + [0.0] * 9
    run["result"]["metrics"]["wrong_diagnosis_named"] = [0.0] + [1.0] * 9
    (row,) = table(Table1().table([run]), "| reply to | BLEU-4 |")
    assert row["right"].startswith("10 [0, ")
    assert row["wrong"].startswith("90 [")
    assert row["wrong"].endswith(", 100]")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--llm", "responder", "--llms", SHOUT), "--llm has no effect: --llms names the LLMs"),
        (
            ("--llms", "responder", "openai:gpt-4o-mini"),
            "table-1 sends raw-data prompts, which contain laboratory values, to openai:gpt-4o-mini on another "
            "machine: allow it with --send-values",
        ),
        (("--llms", "no-such"), "unknown LLM 'no-such'"),
    ],
)
def test_wrong_options_are_refused(
    options: tuple[str, ...],
    said: str,
    men: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
    assert pmlm(*command("table-1", men, *options, "--out", tmp_path / "out")) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"pmlm experiment: {said}")
    assert not (tmp_path / "out").exists()
