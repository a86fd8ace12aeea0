"""The report on made-up runs with known numbers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tyro
from matplotlib.figure import Figure

from agents.report.figures import svg
from agents.report.report import ReportConfig, report
from agents.report.results import read_runs
from tests.agents.report.runs import PATIENTS, benchmark, column, echo, line, measured, write

pytestmark = pytest.mark.once


def row(text: str, agent: str) -> list[str]:
    """An agent's row in the first table that has one."""
    starts = tuple(f"| {name} |" for name in (agent, f"**{agent}**", f"*{agent}*"))
    rows = [line for line in text.splitlines() if line.startswith(starts)]
    return [cell.strip() for cell in rows[0].strip("|").split(" | ")]


def tables(text: str) -> list[list[str]]:
    """The names in the first column of each table, without the calls."""
    blocks = [part.splitlines() for part in text.split("\n\n") if part.startswith("| ")]
    return [[line.split(" | ")[0].partition(",")[0].strip("|* ") for line in block] for block in blocks]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("results"), benchmark())


@pytest.fixture(scope="module")
def text(results: Path) -> str:
    return report(ReportConfig(results))


def test_the_page_is_printed_and_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = report(ReportConfig(write(tmp_path, benchmark()[-1:]), tmp_path / "new" / "out"))
    assert capsys.readouterr().out == text == (tmp_path / "new" / "out" / "report.md").read_text(encoding="utf-8")


def test_the_table_has_means_in_points_at_each_budget(text: str) -> None:
    first, last = row(text, "leave-one-out")[1:3]
    assert first.startswith("+1.10 [")
    assert last.startswith("+4.10 [")
    assert row(text, "rloo")[1].startswith("+0.55 [")


def test_the_largest_budget_sorts_and_the_best_is_bold(text: str) -> None:
    rows = [line.split(" | ")[0].strip("|* ") for line in text.split("### Oracles")[0].splitlines() if line[:2] == "| "]
    assert rows[:8] == ["agent", "---", "surrogate", "leave-one-out", "rloo", "single-rule", "keep-all", "echo"]
    assert row(text, "surrogate")[2].startswith("**+5.10 [")
    assert "**" not in row(text, "leave-one-out")[2]


def test_differences_to_the_default_are_paired(text: str) -> None:
    assert row(text, "surrogate")[3] == "+1.00 [+1.00, +1.00], better"  # the same for all seeds and patients
    assert row(text, "surrogate")[2].endswith("▲")
    assert row(text, "rloo")[2].endswith("▼")
    assert row(text, "leave-one-out")[3] == "-"


def test_patients_are_paired_by_name_in_whatever_order(tmp_path: Path) -> None:
    ours, theirs = line("leave-one-out", 100, mean=0.01), line("rloo", 100, mean=0.03)
    for key in ("patients", "deltas"):
        theirs[key] = theirs[key][::-1]
    assert (
        row(report(ReportConfig(write(tmp_path, [echo(), ours, theirs]))), "rloo")[2]
        == "+2.00 [+2.00, +2.00], 1 seed in common"
    )


def test_an_agent_that_learns_nothing_stands_at_every_budget(text: str) -> None:
    first, last, difference, personal, seeds, calls = row(text, "keep-all")[1:]
    assert first == last.replace("**", "")
    assert first.startswith("+0.00 [")
    assert difference.startswith("-4.10 [")  # its single run is paired with all three seeds
    assert personal.startswith("-1.03 [")
    assert (seeds, calls) == ("1", "none to learn")


def test_another_agent_leaves_the_intervals_of_the_others_as_they_are(text: str, tmp_path: Path) -> None:
    more = [line("also", budget, seed, 0.005) for budget in (100, 400) for seed in range(3)]
    other = report(ReportConfig(write(tmp_path, [*more, *benchmark()])))
    for agent in ("leave-one-out", "rloo", "surrogate", "keep-all", "echo"):
        assert row(other, agent) == row(text, agent)


@pytest.mark.parametrize("n", [1, 3, 9])
def test_of_a_few_patients_no_interval_is_given_and_no_verdict(n: int, tmp_path: Path) -> None:
    few = {"patients": PATIENTS[:n], "deltas": [0.02] * n}
    metrics = {name: values[:n] for name, values in measured(0.6).items()}
    lines = [echo(**{**few, "metrics": metrics, "deltas": [0.14] * n})]
    lines += [line("leave-one-out", 100, seed, metrics=metrics, **few) for seed in range(3)]
    lines += [line("rloo", 100, seed, metrics=metrics, **{**few, "deltas": [0.14] * n}) for seed in range(3)]
    text = report(ReportConfig(write(tmp_path, lines)))
    assert f"Too few patients ({n}) for an interval" in text
    assert row(text, "rloo")[1:3] == ["**+14.00**", "+12.00, too few patients"]
    assert not any("[" in line or "▲" in line or "nan" in line for line in text.splitlines() if line.startswith("|"))


def test_of_two_seeds_in_common_no_verdict_is_given(tmp_path: Path) -> None:
    lines = (
        [echo()]
        + [line("leave-one-out", 100, seed) for seed in (0, 1)]
        + [line("rloo", 100, seed, 0.05) for seed in (0, 1, 2)]
    )
    cells = row(report(ReportConfig(write(tmp_path, lines))), "rloo")
    assert (cells[2], "▲" in cells[1]) == ("+4.00 [+4.00, +4.00], 2 seeds in common", False)


def test_one_run_of_an_agent_that_draws_does_not_stand_for_all_seeds(tmp_path: Path) -> None:
    lines = [echo()] + [line("leave-one-out", 100, seed) for seed in range(3)] + [line("random-n", 0, mean=-0.04)]
    assert row(report(ReportConfig(write(tmp_path, lines))), "random-n")[2].endswith("1 seed in common")


def test_folders_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a", [line("rloo", 100)])
    write(tmp_path / "b", [line("rloo", 100, mean=0.05)])
    with pytest.raises(ValueError, match=r"both have rloo with 100 calls and seed 0: make a report of each folder"):
        read_runs(tmp_path)
    write(tmp_path / "b", [line("dqn", 100, identity={"episodes": "feed"})])
    with pytest.raises(ValueError, match=r"line 1 has other episodes or models than .*lite/runs.jsonl: make a"):
        read_runs(tmp_path)


def test_seeds_and_calls_are_in_the_table(text: str) -> None:
    assert row(text, "rloo")[5:] == ["3", "98 / 398"]
    assert "Seeds 0, 1, 2." in text
    assert "- 32 runs: machine abacus, torch 9.9" in text


def test_oracles_are_apart_with_claim_and_fresh_score(text: str) -> None:
    inductive, oracle = text.split("### Oracles")
    assert "best_of_n" not in inductive
    budget, claimed, rescored, seeds, calls = row(oracle, "best_of_n")[1:]
    assert (budget, claimed, seeds, calls) == ("16 calls", "+12.00", "3", "14")
    assert rescored.startswith("**+8.20 [")
    assert row(oracle, "greedy")[2] == "+20.00"
    assert "gains +4.10 of the +8.20 points of the best oracle (best_of_n, 16 calls), re-scored: 50 %" in oracle


def test_other_metrics_and_deleted_words_are_those_of_the_largest_budget(text: str) -> None:
    assert "| leave-one-out | - | - | - | 25.0 | - | - | 3 |" in text
    assert "| instruction | `sentence,` 288 |" in text
    assert "| peer | `a\\|b` 18 |" in text


def test_every_picture_that_is_named_is_there_and_small(text: str, results: Path) -> None:
    named = [part.split(")")[0] for part in text.split("](")[1:]]
    assert sorted(named) == sorted(f"figures/{path.name}" for path in (results / "figures").iterdir())
    assert len(named) == 5
    for name in named:
        assert 2_000 < (results / name).stat().st_size < 150_000


def test_the_same_runs_give_the_same_bytes_in_another_process(text: str, results: Path, tmp_path: Path) -> None:
    code = "import sys; from agents.report.report import *; report(ReportConfig(*map(Path, sys.argv[1:])))"
    command = [sys.executable, "-c", code, str(results), str(tmp_path)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "1"}, stdout=subprocess.DEVNULL)
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == text
    pictures = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert len(pictures) == 5
    for name in pictures:
        assert (tmp_path / "figures" / name).read_bytes() == (results / "figures" / name).read_bytes()


def test_personal_is_what_an_agent_has_beyond_the_single_rule_paired_by_seed_and_patient(tmp_path: Path) -> None:
    """Worked out by hand: seeds 1 and 2 are common to both, and so are patients a and b."""
    ours = {0: ("abc", [0.9, 0.9, 0.9]), 1: ("abc", [0.04, 0.05, 0.9]), 2: ("cba", [0.9, 0.06, 0.03])}
    theirs = {1: ("bad", [0.01, 0.02, 0.9]), 2: ("adb", [0.02, 0.9, 0.01]), 3: ("abd", [0.9, 0.9, 0.9])}
    lines = [echo(patients=list("ab"), deltas=[-0.01, -0.01])]
    for agent, runs in (("leave-one-out", ours), ("single-rule", theirs)):
        lines += [line(agent, 100, s, patients=[*names], deltas=deltas) for s, (names, deltas) in runs.items()]
    text = report(ReportConfig(write(tmp_path, lines)))
    # a: .04 - .02, .03 - .02; b: .05 - .01, .06 - .01
    assert row(text, "leave-one-out")[3] == f"+{100 * (0.02 + 0.01 + 0.04 + 0.05) / 4:.2f}"
    assert row(text, "single-rule")[3] == row(text, "echo")[3] == "-"


def test_the_replies_have_all_their_figures_in_a_table_with_the_echo(text: str) -> None:
    part = text.split("| reply of |")[1].split("\n\n")[0]
    f1, change, personal, margin, named, copy, words, cut, edits, seeds = row(part, "**leave-one-out**, 400 calls")[1:]
    assert f1.startswith("60.00 [")
    assert change == row(text, "leave-one-out")[2]
    assert personal == row(text, "leave-one-out")[4]
    assert margin.startswith("6.00 [")
    assert (named, copy, words, cut, edits, seeds) == ("50 / 20", "75.0", "40", "12", "4", "3")
    assert row(part, "**leave-one-out**, 100 calls")[2] == row(text, "leave-one-out")[1]
    assert row(part, "echo")[1].startswith("55.00 [")
    assert row(part, "echo")[6:] == ["100.0", "40", "-", "-", "1"]


def test_replies_have_a_row_for_each_budget_that_says_the_calls(tmp_path: Path) -> None:
    lines = [echo(metrics=measured(0.55)), line("keep-all", 0, metrics=measured(0.6))]
    lines += [line("leave-one-out", 100, metrics=measured(0.6))]
    lines += [line("single-rule", 100, metrics=measured(0.58))]
    lines += [line("surrogate", budget, metrics=measured(0.6 + budget / 1e4)) for budget in (100, 2000)]
    text = report(ReportConfig(write(tmp_path, lines)))
    rows = [row.split(" | ") for row in text.split("| reply of |")[1].split("\n\n")[0].splitlines()[2:]]
    names = [row[0].strip("| ") for row in rows]
    assert names == [
        "surrogate, 2,000 calls", "surrogate, 100 calls", "**leave-one-out**, 100 calls", "keep-all",
        "single-rule, 100 calls", "*echo*",
    ]  # fmt: skip
    assert [row[3] == "-" for row in rows] == [True, False, False, False, True, True]  # no rule with 2,000 calls
    assert [row[1][:5] for row in rows[:2]] == ["80.00", "61.00"]
    assert "| surrogate, 2,000 calls |" in text.split("| BLEU-4 |")[1]


def test_what_learns_nothing_is_compared_with_the_rule_of_the_largest_budget(tmp_path: Path) -> None:
    lines = [echo(metrics=measured(0.55)), line("keep-all", 0, mean=0.0, metrics=measured(0.6))]
    lines += [line("single-rule", budget, 0, gain) for budget, gain in ((100, 0.01), (400, 0.03))]
    part = report(ReportConfig(write(tmp_path, lines))).split("| reply of |")[1]
    assert row(part, "keep-all")[3].startswith("-3.00")


def test_a_margin_that_some_patient_lacks_has_no_mean(tmp_path: Path) -> None:
    lacking = {**measured(0.6), "margin": [None, *column(0.06)[1:]]}
    lines = [echo(metrics=measured(0.5)), line("leave-one-out", 100, metrics=lacking)]
    part = report(ReportConfig(write(tmp_path, lines))).split("| reply of |")[1]
    assert row(part, "leave-one-out")[4] == "-"
    assert row(part, "echo")[4].startswith("5.00 [")


def test_no_table_of_an_agent_is_without_the_echo(text: str, tmp_path: Path) -> None:
    agents = {"leave-one-out", "rloo", "surrogate", "single-rule", "keep-all"}
    with_agents = [names for names in tables(text) if agents & set(names)]
    assert len(with_agents) == 3  # deltas, replies, other metrics
    assert all("echo" in names for names in with_agents)
    for agent in agents:
        lines = [line for line in benchmark() if line["agent"] == agent or line["track"] == "oracle"]
        lines.append(echo(env="real"))  # the echo of another environment does not count
        lines.append(echo(mean=0.3, track="inductive"))  # nor does an agent of that name
        with pytest.raises(ValueError, match=r"runs of lite have no echo .* run `pmlm benchmark` with the same set"):
            report(ReportConfig(write(tmp_path / agent, lines)))
        assert not (tmp_path / agent / "report.md").exists()


def test_an_echo_without_metrics_does_not_stand_beside_agents_with_metrics(tmp_path: Path) -> None:
    lines = [echo(), line("leave-one-out", 100, metrics=measured(0.6))]
    with pytest.raises(ValueError, match="the echo in the runs of lite has no metrics, and agents have"):
        report(ReportConfig(write(tmp_path, lines)))


def test_controls_are_in_italics_and_never_the_best(tmp_path: Path) -> None:
    lines = [echo(mean=0.5), line("leave-one-out", 100), line("rloo", 100, mean=0.005)]
    text = report(ReportConfig(write(tmp_path, lines)))
    assert "| *echo* | +50.00 [" in text
    assert row(text, "leave-one-out")[1].startswith("**+1.00 [")


def test_partial_results_are_shown_with_what_they_have(tmp_path: Path) -> None:
    lines = [
        *benchmark(),
        line("late", 100, 1, 0.02),
        line("late", 100, 2, 0.02),
        line("short", 400, 0, 0.5, patients=PATIENTS[:4], deltas=[0.1] * 4),
        line("other", 100, 7, 0.03, history=[]),
    ]
    text = report(ReportConfig(write(tmp_path, lines)))
    assert row(text, "late")[2:] == ["-", *row(text, "late")[3:5], "2", "98"]
    assert row(text, "other")[3:5] == ["-", "-"]  # no seed in common with the default agent or with the rule
    assert row(text, "short")[2] == "**+10.00**"
    assert "12 test patients (short 4)" in text


def test_a_folder_without_the_default_agent_has_no_comparison(tmp_path: Path) -> None:
    text = report(ReportConfig(write(tmp_path, [echo(), *benchmark()[-5:]]), default="nobody"))
    assert "There is no run of nobody to compare with." in text
    assert "improvement" not in text


@pytest.mark.parametrize("keep", ["keep-all", "best_of_n"])
def test_a_single_line_is_enough_with_the_echo_beside_an_agent(tmp_path: Path, keep: str) -> None:
    lines = [line for line in benchmark() if line["agent"] == keep][:1]
    lines += [echo()] if keep == "keep-all" else []
    assert keep in report(ReportConfig(write(tmp_path, lines)))


def test_each_environment_has_its_section(tmp_path: Path) -> None:
    agents = [line("leave-one-out", 100), line("leave-one-out", 50, env="real", mean=0.03)]
    text = report(ReportConfig(write(tmp_path, [*agents, echo(), echo(env="real")])))
    lite, real = text.split("## real")
    assert "+1.00 [" in lite
    assert "+3.00 [" in real
    assert "figures/real-budget.svg" in real


def test_the_results_folder_is_given_by_position() -> None:
    assert tyro.cli(ReportConfig, args=["there", "--default", "rloo"]) == ReportConfig(Path("there"), default="rloo")
    assert tyro.cli(ReportConfig, args=[]) == ReportConfig()


def test_words_and_versions_of_others_write_no_markup_into_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "`|<script>\n# x\x1b[2J"
    values = {"deleted": [[evil, "peer", 7]], "versions": {"machine": f"[a](b:c) {evil}"}}
    report(ReportConfig(write(tmp_path, [echo(), line("leave-one-out", 100, **values)])))
    (page,) = tmp_path.rglob("report.md")
    text = page.read_text()
    assert "\x1b" not in text + capsys.readouterr().out
    assert r"| peer | `'\|<script> # x\x1b[2J` 7 |" in text
    assert r"- 1 runs: machine \[a](b:c) \`\|&lt;script> # x\x1b\[2J" in text


def test_a_figure_keeps_the_decimals_of_its_labels() -> None:
    figure = Figure()
    axes = figure.add_subplot()
    axes.plot([0.0, 1.0], [0.001234, 0.004])
    axes.set_yticks([0.001, 0.0025, 0.004])
    text = svg(figure)
    assert re.findall(r">(0\.0\d+)</text>", text) == ["0.0010", "0.0025", "0.0040"]
    assert not re.search(r"\d\.\d{3}", re.sub(r">[^<]*<", "><", text))  # positions are cut, as they need no more
