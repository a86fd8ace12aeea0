"""Write a report of the benchmark's runs: ``pmlm report``."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import numpy as np

from agents.evaluation.aggregate import iqm_interval, probability_of_improvement
from agents.evaluation.bootstrap import FEWEST
from agents.registry import RULE
from agents.report import tables
from agents.report.config import ReportConfig
from agents.report.results import Run, Runs, read_runs
from agents.report.summary import Cells, summarise
from pmlm_env.io.files import make_folder, write
from pmlm_env.io.text import as_code


def report(config: ReportConfig) -> str:
    """Write the report, print it and return it.

    Raises:
        ValueError: There are no runs, or a line is invalid.
    """
    runs = read_runs(config.results)
    out = config.results if config.out is None else config.out
    make_folder(out)
    parts = ["# Benchmark of the agents", _how(config.default)]
    for env in sorted({run.env for run in runs}):
        parts += _env([run for run in runs if run.env == env], env, config.default, out, config.seed)
    text = "\n\n".join(part for part in parts if part) + "\n"
    write(out / "report.md", text)
    print(text, end="")
    return text


_HOW = """Deltas are changes of F1 from the initial to the refined prompt on test patients, in points (hundredths), with
95 % intervals that resample seeds and patients both (pigeonhole bootstrap, Owen 2007). ▲ and ▼: the difference to
{default} on the same seeds and patients, {fewest} seeds or more, has an interval wholly above or below zero; there is
no correction for the number of comparisons. With few seeds the intervals underestimate how much seeds differ; with
three they are too narrow. With fewer than {few} patients there is no interval and no verdict, and in figures over runs
none with fewer than {few} runs. Agents never read a test patient's reference. Names in italics are controls: replies
that need no agent and, but for `raw-data`, no LLM. "Personal" is the difference to `{rule}`, one set of deletions for
all patients, searched with as many calls. That is at most what comes from treating patients differently, because the
search may miss a better rule. Oracles search each test patient's edits *with* the reference; what they find is a lower
bound of what editing can reach. A budget is a limit, and some agents spend less: prompts that they have asked about
before are free, a batch that would exceed the budget is not asked for, and no learner plays more than twice as many
episodes as its budget pays for. † marks agents that spent less than nine tenths of the largest budget, or of the one
that the row names: their rank is that of fewer calls."""


def _how(default: str) -> str:
    return _HOW.format(default=tables.shown(default), rule=RULE, fewest=tables.FEWEST_SEEDS, few=FEWEST)


_REPLIES = """The replies, with a row for each budget of an agent. F1 and its change in points; *margin*: F1 against
the patient's own letter minus the mean F1 against eight letters of patients with other labels; the share of replies
that name the right condition, and a wrong one; *copy*: F1 of the reply against the prompt it replies to; its length in
words; the share cut at the limit on new tokens; *edits*: in how many different ways the test patients' prompts were
edited."""


_OTHER_REWARD = """The agents of this part were trained and judged by another reward, {reward}: deltas are changes of
its score instead of F1, in hundredths of its unit. F1 itself stands in the table of the replies."""


def _env(runs: list[Run], env: str, default: str, out: Path, seed: int) -> list[str]:
    """Return the sections of one environment."""
    reward = runs[0].identity.get("reward")  # only if it is not BERTScore F1
    parts = [f"## {env}", *([_OTHER_REWARD.format(reward=as_code(str(reward)))] if reward else [])]
    inductive = Runs(run for run in runs if run.track != "oracle")
    oracle = Runs(run for run in runs if run.track == "oracle")
    if inductive.agents:
        cells = summarise(inductive, default, seed, RULE)
        parts += ["### Agents and controls", tables.patients_line(cells), tables.main_table(inductive, cells, default)]
        parts += [tables.failures_line(run for run in runs if run.track != "oracle")]
        parts += _titled(_REPLIES, tables.replies_table(inductive, cells, default, seed))
        parts += _titled("Other metrics, in %, each agent at its largest budget:", tables.metrics_table(inductive))
        parts += _pictures(inductive, cells, env, default, out, seed, reward)
        parts += _titled(
            f"Words that {tables.shown(default)} deletes most often, of each run's twenty commonest, with how many "
            "times in all:",
            tables.deleted_table(inductive.last(default)),
        )
    if oracle.agents:
        cells = summarise(oracle, None, seed)
        parts += ["### Oracles", tables.patients_line(cells), tables.oracle_table(cells)]
        parts += [tables.failures_line(run for run in runs if run.track == "oracle")]
        parts += [tables.reached(inductive, oracle, default)]
        parts += _titled("Other metrics, in %, each oracle at its largest budget:", tables.metrics_table(oracle))
    seeds = ", ".join(str(seed) for seed in sorted({run.seed for run in runs}))
    return [*parts, f"### Runs\n\nSeeds {seeds}.", tables.versions_lines(runs)]


def _pictures(runs: Runs, cells: Cells, env: str, default: str, out: Path, seed: int, reward: str | None) -> list[str]:
    """Draw the figures and return the Markdown lines that embed them."""
    from agents.report import figures  # matplotlib takes a second to import

    scores = {agent: own for agent in runs.agents if len(own := runs.scores(agent))}
    order = tables.ranked(runs, cells)
    points = "delta of the reward, hundredths" if reward else "delta of F1, points"
    largest = f"{runs.budgets[-1]:,} calls"
    drawn = {
        "budget": (
            "Test delta against budget, with 95 % intervals",
            figures.panels(figures.budget_curves(runs, cells), order, default, "budget, calls", points, dots=True),
        ),
        "iqm": (
            f"Interquartile mean over runs with {largest}, with 95 % bootstrap intervals",
            figures.forest(
                {agent: iqm_interval([own], np.random.default_rng(seed)) for agent, own in scores.items()},
                default,
                f"interquartile mean, {points}",
                scale=100,
            ),
        ),
        "profile": (
            f"Share of runs with {largest} above a delta, with pointwise 95 % bands",
            figures.panels(figures.profiles(scores, seed), order, default, points, "share of runs above", scale=1),
        ),
    }
    curves = figures.learning_curves(runs, seed)
    if curves:
        figure = figures.panels(curves, order, default, "LLM calls", points)
        drawn["learning"] = "Sampled delta on training patients as calls are spent, with 95 % bands over seeds", figure
    wins = {
        agent: probability_of_improvement([scores[default]], [own], np.random.default_rng(seed))
        for agent, own in scores.items()
        if agent != default and default in scores
    }
    if wins:
        figure = figures.forest(wins, default, f"P(a run of {default} is better than one of this agent)", zero=0.5)
        title = f"Probability that {default} is better with {largest}, with 95 % bootstrap intervals"
        drawn["improvement"] = title, figure
    lines = []
    for name, (title, figure) in drawn.items():
        figures.save(figure, out / "figures" / f"{env}-{name}.svg")
        lines.append(f"![{title}](figures/{quote(env)}-{name}.svg)\n\n*{title}.*")
    return lines


def _titled(title: str, table: str) -> list[str]:
    return [title, table] if table else []
