"""The report's pictures, as SVG; deltas in points of F1 (a hundredth).

Many agents share a picture, so each has a panel or a row of its own with its name, and nothing hangs on colour alone:
agents are blue, the default agent is orange (Okabe and Ito's palette, told apart by colour-blind readers).
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

_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#999999"
_BINS = 15
_TAUS = 25
_COLUMNS = 4

#: What takes room in SVG and shows nothing: indentation, and digits beyond a hundredth of a unit.
_IDLE = re.compile(r"^ +|(?<=\d\.\d\d)\d+", re.MULTILINE)
_SVG: dict[Any, Any] = {"svg.hashsalt": "pmlm", "svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"]}

#: A line with its band: x, and intervals at x.
Curve = tuple[Sequence[float], Sequence[Interval]]


def learning_curves(runs: Runs, seed: int) -> dict[str, Curve]:
    """Return the sampled delta on training patients against calls, of each agent at its largest budget.

    Batches are put into bins of calls, weighted by their episodes; the band is a 95 % interval over seeds.
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
            rng = np.random.default_rng(seed)  # for each agent anew: its band stays as it is when others come
            bands = [mean_interval(values[have[:, i], i], rng, n_resamples=1000) for i in shown]
            curves[agent] = ((edges[shown] + edges[shown + 1]) / 2).tolist(), bands
    return curves


def budget_curves(runs: Runs, cells: Cells) -> dict[str, Curve]:
    """Return the delta on test patients against the budget, with its crossed interval."""
    curves: dict[str, Curve] = {}
    for agent in runs.agents:
        budgets = [budget for budget in runs.budgets if (agent, budget) in cells]
        curves[agent] = (budgets, [cells[agent, budget].delta for budget in budgets])
    return curves


def profiles(scores: Mapping[str, npt.NDArray[np.float64]], seed: int) -> dict[str, Curve]:
    """Return the share of an agent's runs above each delta, with pointwise bands; the deltas are in points."""
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
    """Draw a panel an agent, with the default agent's mean dashed in each.

    Args:
        curves: By agent; agents without one have no panel.
        agents: In which order.
        default: Whom the others are seen against.
        x: What is to the right.
        y: What is upward.
        scale: What the intervals are multiplied with.
        dots: Whether every x stands for itself, so that it is marked and labelled, at a logarithmic distance.
    """
    shown = [agent for agent in agents if agent in curves]
    columns = min(_COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(2.4 * columns + 0.6, 1.75 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for ax in axes:
        _style(ax)
        if dots:
            _budget_axis(ax, sorted({value for at, _ in curves.values() for value in at}))
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    for ax in axes[max(0, len(shown) - columns) : len(shown)]:
        ax.tick_params(labelbottom=True)
    for ax, agent in zip(axes, shown, strict=False):
        at, intervals = curves[agent]
        low, mean, high = scale * np.array([_bounds(interval) for interval in intervals]).T
        colour = _ORANGE if agent == default else _BLUE
        ax.axhline(0, color=_GREY, linewidth=0.6)
        if dots:
            ax.vlines(at, low, high, color=colour, linewidth=1.2)
        else:
            ax.fill_between(at, low, high, color=colour, alpha=0.25, linewidth=0)
        ax.plot(at, mean, color=colour, linewidth=1.5, marker="o" if dots else None, markersize=3.5)
        if default in curves and agent != default:
            there, theirs = curves[default]
            ax.plot(there, [scale * i.mean for i in theirs], color=_ORANGE, linewidth=1, linestyle="--")
        ax.set_title(agent, fontsize=8, color=colour, weight="bold" if agent == default else "normal")
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
    """Draw a row an agent: a dot with its interval, the largest on top.

    Args:
        rows: By agent.
        default: Whose row stands out.
        x: What is to the right.
        zero: Where "no difference" is.
        scale: What the intervals are multiplied with.
    """
    agents = sorted(rows, key=lambda agent: (rows[agent].mean, agent))
    figure = Figure(figsize=(5.6, 0.24 * len(agents) + 0.8), layout="constrained")
    ax = figure.subplots()
    _style(ax)
    ax.axvline(zero, color=_GREY, linewidth=0.8)
    for height, agent in enumerate(agents):
        interval, colour = rows[agent], _ORANGE if agent == default else _BLUE
        low, _, high = _bounds(interval)
        ax.plot([scale * low, scale * high], [height, height], color=colour, linewidth=1.5)
        ax.plot([scale * interval.mean], [height], color=colour, marker="o", markersize=4.5)
    ax.set_yticks(range(len(agents)), labels=agents)
    ax.set_ylim(-0.6, len(agents) - 0.4)
    ax.set_xlabel(x, fontsize=8)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a picture as SVG, the same bytes for the same picture."""
    content = io.BytesIO()
    with matplotlib.rc_context(_SVG):
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    make_folder(path.parent)
    write(path, _IDLE.sub("", content.getvalue().decode()))


def _bounds(interval: Interval) -> tuple[float, float, float]:
    """Return low, mean and high: the mean thrice, which draws nothing, where there is no interval."""
    if interval.low is None or interval.high is None:
        return (interval.mean,) * 3
    return interval.low, interval.mean, interval.high


def _style(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=7)
    ax.locator_params(nbins=6)


def _budget_axis(ax: Axes, budgets: list[float]) -> None:
    """Mark the budgets, at logarithmic distances; the limits are set by hand as a single budget has no span."""
    if budgets[0] > 0:
        ax.set_xscale("log")
        ax.set_xlim(budgets[0] / 1.5, budgets[-1] * 1.5)
    ax.set_xticks(budgets, labels=[f"{budget:,.0f}" for budget in budgets])
    ax.set_xticks([], minor=True)
