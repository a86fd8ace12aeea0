"""The report's tables, as Markdown; all deltas are in points of F1, or of another reward (hundredths)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from agents.evaluation.aggregate import crossed_bootstrap
from agents.evaluation.bootstrap import FEWEST, Interval
from agents.evaluation.bounds import interval_of_level
from agents.report.results import Run, Runs
from agents.report.summary import Cell, Cells, aligned
from pmlm_env.io.text import as_code, as_text
from pmlm_env.rewards.base import REWARD

#: Metrics that have no column in other tables, with their column heads.
METRICS = {
    "bleu4": "BLEU-4",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "bertscore_precision": "BERTScore P",
    "bertscore_recall": "BERTScore R",
}

#: Minimum number of shared seeds for a verdict on two agents; with fewer, the interval hardly reflects seed variance.
FEWEST_SEEDS = 3

#: Agents that spent a smaller share of the largest budget are marked, because their rank reflects fewer calls.
MOST_SPENT = 0.9

#: Maximum number of words shown for each role.
_WORDS = 10


def main_table(runs: Runs, cells: Cells, default: str) -> str:
    """Return a row for each agent or control: delta at each budget, differences to other agents, seeds and calls.

    Rows are sorted by the mean at the largest budget. The best agent at each budget is bold; controls are in italics.
    """
    best = {
        budget: max(
            (c.delta.mean for (agent, b), c in cells.items() if b == budget and agent not in runs.controls),
            default=np.nan,
        )
        for budget in runs.budgets
    }
    rows = []
    for agent in ranked(runs, cells):
        own = {budget: cells[agent, budget] for budget in runs.budgets if (agent, budget) in cells}
        row = [_name(agent, runs, cells, default, runs.budgets[-1])]
        for budget in runs.budgets:
            if budget not in own:
                row.append("-")
                continue
            cell = own[budget]
            text = in_points(cell.delta)
            row.append(
                (f"**{text}**" if cell.delta.mean == best[budget] and agent not in runs.controls else text)
                + _mark(cell)
            )
        row.append(_over_default(own, runs.budgets[-1]))
        personal = next((cell.personal for cell in reversed(own.values()) if cell.personal is not None), None)
        row.append("-" if personal is None else in_points(personal))
        learns = runs.learns(agent)
        row.append(_each([str(len(cell.seeds)) for cell in own.values()]))
        row.append(_each([f"{cell.calls:,.0f}" for cell in own.values()]) if learns else "none to learn")
        rows.append(row)
    heads = [_budget(budget) for budget in runs.budgets]
    return table(["agent", *heads, f"over {shown(default)}", "personal", "seeds", "calls spent"], rows)


def shown(agent: str) -> str:
    """Return an agent's name for Markdown: as code if it could contain markup, such as ``package.my_module:Class``."""
    return as_code(agent) if {":", "_"} & set(agent) else agent


def oracle_table(cells: Cells) -> str:
    """Return a row for each oracle and budget: the gain found during its search, and the gain on new replies."""
    order = sorted(cells, key=lambda key: (-cells[key].delta.mean, key))
    rows = []
    for n, (agent, budget) in enumerate(order):
        cell = cells[agent, budget]
        text = in_points(cell.delta)
        claimed = "-" if cell.claimed is None else points(cell.claimed)
        calls = f"{cell.calls:,.0f}"
        rows.append([agent, _budget(budget), claimed, f"**{text}**" if n == 0 else text, str(len(cell.seeds)), calls])
    return table(["oracle", "budget", "claimed", "re-scored", "seeds", "calls spent"], rows)


def reached(inductive: Runs, oracle: Runs, default: str) -> str:
    """Return a sentence: the default agent's share of the best oracle's re-scored gain, on the shared patients."""
    ours = inductive.last(default)
    searched = [(agent, budget) for agent in oracle.agents for budget in oracle.budgets if oracle.of(agent, budget)]
    if not ours or not searched:
        return f"There is no run of {shown(default)} to compare with."
    agent, budget = max(searched, key=lambda key: float(aligned(oracle.of(*key)).mean()))
    theirs = oracle.of(agent, budget)
    gain, best = float(aligned(ours, theirs).mean()), float(aligned(theirs, ours).mean())
    if best <= 0:
        return f"The best oracle, {agent}, gains nothing ({points(best)}), so that there is no share to give."
    return (
        f"{shown(default)} at its largest budget gains {points(gain)} of the {points(best)} points of the best oracle "
        f"({agent}, {_budget(budget)}), re-scored: {100 * gain / best:.0f} %."
    )


def replies_table(runs: Runs, cells: Cells, default: str, seed: int) -> str:
    """Return a row for each agent and budget, and for each control: metrics of its replies, and number of edits.

    If there are several budgets, the rows say which. Margins are in points. "right / wrong" are the
    shares of replies that name the patient's condition and a wrong one. Rows are sorted by F1. If the agents were
    trained with another reward, its score comes first, in hundredths, "change" is that of this score, and rows are
    sorted by it. Returns "" if no run has metrics of replies.

    Args:
        runs: Runs of agents and controls.
        cells: Summary of the runs.
        default: The agent whose name is bold.
        seed: Seed of the resamples.
    """
    rows, other = [], any(REWARD in run.metrics for agent in runs.agents for run in runs.last(agent).values())
    each_budget = [(name, budget) for name in runs.agents for budget in runs.budgets_of(name) or [0]]
    several = len({budget for _, budget in each_budget if budget}) > 1
    for agent, budget in each_budget:
        own = {s: run for s, run in runs.of(agent, budget).items() if run.metrics}
        if not own:
            continue
        # The runs of an agent that does not learn are those of every budget.
        same = [cells[agent, each] for each in ([budget] if budget else runs.budgets) if (agent, each) in cells]
        personal = next((cell.personal for cell in reversed(same) if cell.personal is not None), None)
        cell = same[-1]
        reward, f1, margin = (_crossed(own, name, seed) for name in (REWARD, "bertscore_f1", "margin"))
        score = reward if other else f1
        right, wrong, copy, cut = (
            100 * _mean(own, name) for name in ("diagnosis_named", "wrong_diagnosis_named", "copy", "cut")
        )
        edits = [run.edits for run in own.values() if run.edits is not None]
        row = [
            _name(agent, runs, cells, default, budget) + (f", {_budget(budget)}" if budget and several else ""),
            _absolute(score),
            in_points(cell.delta),
            "-" if personal is None else in_points(personal),
            *([_absolute(f1)] if other else []),
            "-" if margin is None else _absolute(margin),
            f"{_number(right)} / {_number(wrong)}",
            _number(copy, 1),
            _number(_mean(own, "words")),
            "-" if agent in runs.controls and not cell.calls else _number(cut),
            f"{np.mean(edits):.0f}" if edits else "-",
            str(len(own)),
        ]
        rows.append((-score.mean if score is not None else 0.0, row))
    scores = ["reward", "change", "personal", "F1"] if other else ["F1", "change", "personal"]
    heads = ["reply of", *scores, "margin", "right / wrong, %", "copy", "words", "cut, %", "edits", "seeds"]
    return table(heads, [row for _, row in sorted(rows)]) if rows else ""


def metrics_table(runs: Runs) -> str:
    """Return each agent's other metrics, in percent, at its largest budget; "" if no run has any.

    Where agents have different largest budgets, the rows say which.
    """
    rows = []
    for agent in runs.agents:
        last = {seed: run for seed, run in runs.last(agent).items() if run.metrics}
        if last:
            name = shown(agent) + _calls(agent, runs)
            rows.append([name, *(_number(100 * _mean(last, name), 1) for name in METRICS), str(len(last))])
    return table(["agent", *METRICS.values(), "seeds"], rows) if rows else ""


def _mean(runs: dict[int, Run], metric: str) -> float:
    """Return the mean of a metric over seeds and patients; NaN if no run has it."""
    values = [value for run in runs.values() for value in run.metrics.get(metric, ()) if np.isfinite(value)]
    return float(np.mean(values)) if values else float("nan")


def _number(value: float, digits: int = 0) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


def _crossed(runs: dict[int, Run], metric: str, seed: int) -> Interval | None:
    """Return a metric's mean with its crossed-bootstrap interval; None if a run lacks the metric or a value."""
    if not all(np.isfinite(run.metrics.get(metric, np.nan)).all() for run in runs.values()):
        return None
    values = aligned(runs, metric=metric)
    return interval_of_level(crossed_bootstrap(values, np.random.default_rng(seed)), metric, values.shape[1])


def _absolute(interval: Interval | None) -> str:
    """Return a fraction's mean and interval in hundredths, without a plus sign."""
    if interval is None:
        return "-"
    mean = f"{100 * interval.mean:.2f}"
    if interval.low is None or interval.high is None:
        return mean
    return f"{mean} [{100 * interval.low:.2f}, {100 * interval.high:.2f}]"


def _name(agent: str, runs: Runs, cells: Cells, default: str, budget: int) -> str:
    """Return an agent's name: bold for the default agent, italic for a control; † if it did not spend the budget."""
    name = shown(agent)
    name = f"**{name}**" if agent == default else f"*{name}*" if agent in runs.controls else name
    cell = cells.get((agent, budget))
    unspent = runs.learns(agent) and cell is not None and cell.calls < MOST_SPENT * budget
    return f"{name} †" if unspent else name


def _calls(agent: str, runs: Runs) -> str:
    """Return the largest budget of an agent that learns, to follow its name; "" if all such agents have the same."""
    learners = [each for each in runs.agents if runs.learns(each)]
    differ = len({runs.largest(each) for each in learners}) > 1
    return f", {_budget(runs.largest(agent))}" if differ and agent in learners else ""


def deleted_table(runs: dict[int, Run]) -> str:
    """Return the most often deleted words by role, with counts over all seeds; "" if no run has any."""
    counts: dict[str, Counter[str]] = {}
    for run in runs.values():
        for word, role, times in run.deleted:
            counts.setdefault(role, Counter())[word] += times
    rows = []
    for role, words in sorted(counts.items(), key=lambda item: (-item[1].total(), item[0])):
        top = sorted(words.items(), key=lambda item: (-item[1], item[0]))[:_WORDS]
        rows.append([role, ", ".join(f"{as_code(word)} {n}" for word, n in top)])
    return table(["role", "words and times"], rows) if rows else ""


def versions_lines(runs: Iterable[Run]) -> str:
    """Return a line for each machine and set of versions, the most frequent first."""
    seen = Counter(", ".join(f"{name} {version}" for name, version in sorted(run.versions.items())) for run in runs)
    return "\n".join(
        f"- {n} runs: {as_text(text) or 'versions not known'}"
        for text, n in sorted(seen.items(), key=lambda i: (-i[1], i))
    )


def ranked(runs: Runs, cells: Cells) -> list[str]:
    """Return agents sorted by mean at the largest budget; agents without it come last, sorted by the next budget."""

    def key(agent: str) -> tuple[tuple[float, ...], str]:
        have = (cells.get((agent, budget)) for budget in reversed(runs.budgets))
        return tuple(np.inf if cell is None else -cell.delta.mean for cell in have), agent

    return sorted(runs.agents, key=key)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is left-aligned text, the others are right-aligned."""
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def points(delta: float) -> str:
    """Return a delta in points, with its sign."""
    return f"{round(100 * delta, 2) + 0.0:+.2f}"


def in_points(interval: Interval) -> str:
    """Return a mean in points, with its interval if there are enough patients for one."""
    if interval.low is None or interval.high is None:
        return points(interval.mean)
    return f"{points(interval.mean)} [{points(interval.low)}, {points(interval.high)}]"


def _mark(cell: Cell) -> str:
    """Return ▲ if the agent is shown to be better than the default agent, ▼ if worse."""
    return {"better": " ▲", "worse": " ▼"}.get(_verdict(cell), "")


def _over_default(own: dict[int, Cell], largest: int) -> str:
    """Return the difference to the default agent at the largest budget that both have."""
    for budget, cell in reversed(own.items()):
        if cell.over_default is not None:
            where = "" if budget == largest else f" at {_budget(budget)}"
            return f"{in_points(cell.over_default)}, {_verdict(cell)}{where}"
    return "-"


def _verdict(cell: Cell) -> str:
    difference = cell.over_default
    if difference is None:
        return ""
    if difference.low is None:
        return "too few patients"
    if cell.n_paired < FEWEST_SEEDS:
        return f"{cell.n_paired} seed{'s' if cell.n_paired > 1 else ''} in common"
    return {"no difference shown": "not shown"}.get(difference.verdict, difference.verdict)


def failures_line(runs: Iterable[Run]) -> str:
    """Return a sentence with the runs that left out episodes because they got no reply; "" if none did."""
    left_out = [f"{shown(r.agent)}, {_budget(r.budget)}, seed {r.seed}: {r.failed}" for r in runs if r.failed]
    if not left_out:
        return ""
    return (
        f"Runs that left out episodes because the LLM did not reply ({'; '.join(left_out)}) learned or searched with "
        "fewer than their calls; to repeat one, remove its line from `runs.jsonl` and run `pmlm benchmark` again."
    )


def _budget(budget: int) -> str:
    return f"{budget:,} calls" if budget else "no calls"


def _each(values: list[str]) -> str:
    """Return the common value if all are equal, else all values separated by slashes."""
    return values[0] if len(set(values)) == 1 else " / ".join(values)


def patients_line(cells: Cells) -> str:
    """Return a sentence with the number of test patients and the agents that have fewer."""
    counts: dict[str, int] = {}
    for (agent, _), cell in cells.items():
        counts[agent] = min(cell.n_patients, counts.get(agent, cell.n_patients))
    most = max(counts.values())
    fewer = ", ".join(f"{shown(agent)} {n}" for agent, n in sorted(counts.items()) if n < most)
    line = f"{most} test patient{'s' if most > 1 else ''}" + (f" ({fewer})." if fewer else ".")
    if most >= FEWEST:
        return line
    return f"{line} Too few patients ({most}) for an interval: {FEWEST} are needed for a verdict on any agent."
