"""The report's figures, as SVG; deltas are in points of F1 (hundredths).

Figures show many agents, so each agent has its own labeled panel or row, and no information depends on color alone.
Agents are blue and the default agent is orange (Okabe and Ito's palette, which color-blind readers can distinguish).
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agents.evaluation.aggregate import performance_profile
from agents.evaluation.bootstrap import Interval, mean_interval
from agents.report.results import Runs
from agents.report.summary import Cells
from pmlm_env.io.files import make_folder, write

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#999999"
_BINS = 15
_TAUS = 25
_COLUMNS = 4

#: Parts of an SVG file that can be removed: indentation, and, inside tags, digits after the second decimal place.
_INDENTATION, _TAG, _DIGITS = re.compile("^ +", re.MULTILINE), re.compile("<[^>]*>"), re.compile(r"(?<=\d\.\d\d)\d+")
_SVG: dict[Any, Any] = {"svg.hashsalt": "pmlm", "svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"]}

#: A curve with its band: x values, and an interval at each of them.
Curve = tuple[Sequence[float], Sequence[Interval]]


def learning_curves(runs: Runs, seed: int) -> dict[str, Curve]:
    """Return each agent's sampled delta on training patients against calls, for runs with the largest budget.

    Batches are averaged in bins of calls, weighted by their number of episodes; the band is a 95 % interval over seeds.
    """
    edges = np.linspace(0, max(runs.budgets), _BINS + 1)
    curves: dict[str, Curve] = {}
    for agent in runs.agents:
        binned = []
        for run in runs.last(agent).values():
            calls, episodes, deltas = np.array(run.history, dtype=np.float64).reshape(-1, 3).T
            place = np.clip(np.searchsorted(edges, calls) - 1, 0, _BINS - 1)
            weight = np.bincount(place, episodes, _BINS)
            total = np.bincount(place, episodes * deltas, _BINS)
            binned.append(np.divide(total, weight, out=np.full(_BINS, np.nan), where=weight > 0))
        values = np.array(binned)
        have = ~np.isnan(values)
        shown = np.flatnonzero(have.any(axis=0))
        if len(shown):
            rng = np.random.default_rng(seed)  # one per agent, so that its band does not depend on the others
            bands = [mean_interval(values[have[:, i], i], rng, n_resamples=1000) for i in shown]
            curves[agent] = ((edges[shown] + edges[shown + 1]) / 2).tolist(), bands
    return curves


def budget_curves(runs: Runs, cells: Cells) -> dict[str, Curve]:
    """Return the delta on test patients at each budget, with its crossed-bootstrap interval."""
    curves: dict[str, Curve] = {}
    for agent in runs.agents:
        budgets = [budget for budget in runs.budgets if (agent, budget) in cells]
        curves[agent] = (budgets, [cells[agent, budget].delta for budget in budgets])
    return curves


def profiles(scores: Mapping[str, npt.NDArray[np.float64]], seed: int) -> dict[str, Curve]:
    """Return the share of each agent's runs above each delta, with pointwise bands; deltas are in points."""
    every = np.concatenate(list(scores.values()))
    margin = 0.05 * np.ptp(every) or 0.001
    taus = np.linspace(every.min() - margin, every.max() + margin, _TAUS)
    return {
        agent: ((100 * taus).tolist(), performance_profile([own], taus, np.random.default_rng(seed)))
        for agent, own in scores.items()
    }


def panels(
    curves: dict[str, Curve],
    agents: Sequence[str],
    default: str,
    x: str,
    y: str,
    scale: float = 100,
    dots: bool = False,
) -> Figure:
    """Draw a panel for each agent; the default agent's mean is a dashed line in the other panels.

    Args:
        curves: Curves by agent; agents without a curve have no panel.
        agents: The order of the panels.
        default: The agent that the others are compared with.
        x: Label of the horizontal axis.
        y: Label of the vertical axis.
        scale: Factor by which intervals are multiplied.
        dots: Whether to mark and label each x value, on a logarithmic axis.
    """
    shown = [agent for agent in agents if agent in curves]
    columns = min(_COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(2.4 * columns + 0.6, 1.75 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for ax in axes:
        style(ax)
        if dots:
            _budget_axis(ax, sorted({value for at, _ in curves.values() for value in at}))
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    for ax in axes[max(0, len(shown) - columns) : len(shown)]:
        ax.tick_params(labelbottom=True)
    for ax, agent in zip(axes, shown, strict=False):
        at, intervals = curves[agent]
        low, mean, high = scale * np.array([bounds(interval) for interval in intervals]).T
        color = ORANGE if agent == default else BLUE
        ax.axhline(0, color=GREY, linewidth=0.6)
        if dots:
            ax.vlines(at, low, high, color=color, linewidth=1.2)
        else:
            ax.fill_between(at, low, high, color=color, alpha=0.25, linewidth=0)
        ax.plot(at, mean, color=color, linewidth=1.5, marker="o" if dots else None, markersize=3.5)
        if default in curves and agent != default:
            there, theirs = curves[default]
            ax.plot(there, [scale * i.mean for i in theirs], color=ORANGE, linewidth=1, linestyle="--")
        ax.set_title(_label(agent), fontsize=8, color=color, weight="bold" if agent == default else "normal")
    figure.supxlabel(
        x if default not in shown else f"{x} (orange: {default}, dashed in the others' panels)", fontsize=8
    )
    figure.supylabel(y, fontsize=8)
    return figure


def forest(
    rows: dict[str, Interval],
    default: str,
    x: str,
    zero: float = 0,
    scale: float = 1,
) -> Figure:
    """Draw a row for each agent: a dot for the mean with its interval, the largest mean on top.

    Args:
        rows: Intervals by agent.
        default: The agent whose row is orange.
        x: Label of the horizontal axis.
        zero: The value of "no difference".
        scale: Factor by which intervals are multiplied.
    """
    agents = sorted(rows, key=lambda agent: (rows[agent].mean, agent))
    figure = Figure(figsize=(5.6, 0.24 * len(agents) + 0.8), layout="constrained")
    ax = figure.subplots()
    style(ax)
    ax.axvline(zero, color=GREY, linewidth=0.8)
    for height, agent in enumerate(agents):
        interval, color = rows[agent], ORANGE if agent == default else BLUE
        low, _, high = bounds(interval)
        ax.plot([scale * low, scale * high], [height, height], color=color, linewidth=1.5)
        ax.plot([scale * interval.mean], [height], color=color, marker="o", markersize=4.5)
    ax.set_yticks(range(len(agents)), labels=[_label(agent) for agent in agents])
    ax.set_ylim(-0.6, len(agents) - 0.4)
    ax.set_xlabel(x, fontsize=8)
    return figure


def svg(figure: Figure) -> str:
    """Return a figure as SVG; the same figure gives the same text."""
    content = io.BytesIO()
    with matplotlib.rc_context(_SVG):
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    text = _INDENTATION.sub("", content.getvalue().decode())
    return _TAG.sub(lambda tag: _DIGITS.sub("", tag.group()), text)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as SVG; the same figure gives the same bytes."""
    make_folder(path.parent)
    write(path, svg(figure))


def _label(agent: str) -> str:
    """Return an agent's name with ``package.module:Class`` on two lines, because panels are narrow."""
    return agent.replace(":", ":\n")


def bounds(interval: Interval) -> tuple[float, float, float]:
    """Return (low, mean, high). Without an interval all three are the mean, so that no line is drawn."""
    if interval.low is None or interval.high is None:
        return (interval.mean,) * 3
    return interval.low, interval.mean, interval.high


def style(ax: Axes) -> None:
    """Give axes the look of all figures."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=7)
    ax.locator_params(nbins=6)


def _budget_axis(ax: Axes, budgets: list[float]) -> None:
    """Mark the budgets on a logarithmic axis, with limits that also work for a single budget."""
    if budgets[0] > 0:
        ax.set_xscale("log")
        ax.set_xlim(budgets[0] / 1.5, budgets[-1] * 1.5)
    ax.set_xticks(budgets, labels=[f"{budget:,.0f}" for budget in budgets])
    ax.set_xticks([], minor=True)
