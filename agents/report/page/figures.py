"""The figures of a run's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agents.evaluation.bootstrap import FEWEST, Interval, t_interval
from agents.evaluation.controls import CONTROLS
from agents.evaluation.variants import AGENT
from agents.report.figures import BLUE, GREY, ORANGE, bounds, style
from agents.report.page.variants import VARIANTS

_WIDTH = 5.6
_INK = "#000000"  # the page makes it the color of its text


def changes(rows: Mapping[str, Interval], x: str) -> Figure:
    """Draw the change of each variant and control: a dot with its interval, the largest on top.

    Args:
        rows: Intervals by variant.
        x: Label of the horizontal axis.
    """
    order = sorted(rows, key=lambda name: (rows[name].mean, name))
    figure, ax = _axes(0.27 * len(order) + 0.7)
    ax.axvline(0, color=GREY, linewidth=0.8)
    for height, name in enumerate(order):
        low, mean, high = bounds(rows[name])
        if low < high:
            ax.plot([low, high], [height, height], color=_color(name), linewidth=2.2 if name == AGENT else 1.4)
        ax.plot([mean], [height], color=_color(name), markersize=6, **_marker(name))
    _rows(ax, order)
    ax.set_xlabel(x, fontsize=8)
    return figure


def training(metrics: Sequence[Mapping[str, Any]], scale: float, y: str) -> Figure:
    """Draw the change of the sampled episodes of each update against the completions spent so far.

    Args:
        metrics: The lines of ``metrics.jsonl``.
        scale: Factor by which changes are multiplied.
        y: Label of the vertical axis.
    """
    figure, ax = _axes(2.6)
    calls = [line["budget_spent"] for line in metrics]
    deltas = [scale * np.array(line["deltas"], dtype=np.float64) for line in metrics]
    ax.axhline(0, color=GREY, linewidth=0.8)
    low, mean, high = np.array([bounds(_interval(each)) for each in deltas]).T
    ax.fill_between(calls, low, high, color=BLUE, alpha=0.2, linewidth=0)
    ax.plot(calls, mean, color=BLUE, linewidth=1.6, marker="o", markersize=2.5)
    ax.set_xlim(left=0)
    ax.set_xlabel("completions spent", fontsize=8)
    ax.set_ylabel(y, fontsize=8)
    return figure


def wrong_conditions(points: Mapping[str, tuple[float, float]]) -> Figure:
    """Draw BERTScore F1 against the share of replies that name a wrong condition.

    Args:
        points: For each variant the share, in percent, and F1, in points.
    """
    figure, ax = _axes(3.2)
    order = sorted(points, key=lambda name: points[name][1])
    for rank, name in enumerate(order):
        ax.plot([points[name][0]], [points[name][1]], color=_color(name), markersize=7, **_marker(name))
        ax.annotate(  # beside the axes, one below the other, because points of similar systems overlap
            _title(name),
            points[name],
            xytext=(1.06, (rank + 0.5) / len(order)),
            textcoords="axes fraction",
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkB": 4, "relpos": (0, 0.5)},
            fontsize=8,
            weight="bold" if name == AGENT else "normal",
            color=_color(name),
            va="center",
        )
    ax.margins(0.12)
    ax.set_xlabel("replies that name a wrong condition, %", fontsize=8)
    ax.set_ylabel("BERTScore F1, points", fontsize=8)
    return figure


def lengths(words: Mapping[str, Sequence[float]]) -> Figure:
    """Draw how many words replies have: median, quartiles, and whiskers from the 5th to the 95th percentile.

    Args:
        words: Numbers of words by variant, and of the doctors' replies.
    """
    order = list(words)[::-1]
    figure, ax = _axes(0.3 * len(order) + 0.6)
    ax.boxplot(
        [list(words[name]) for name in order],
        orientation="horizontal",
        positions=range(len(order)),
        whis=(5, 95),
        widths=0.55,
        showfliers=False,
        medianprops={"color": ORANGE, "linewidth": 2},
        boxprops={"color": BLUE},
        whiskerprops={"color": BLUE},
        capprops={"color": BLUE},
    )
    _rows(ax, order)
    ax.set_xlim(left=0)
    ax.set_xlabel("words of the reply", fontsize=8)
    return figure


def roles(shares: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw the share of each role's words that is deleted.

    Args:
        shares: For each variant, the share by role, in percent.
    """
    names = list(next(iter(shares.values())))
    figure, ax = _axes(0.34 * len(names) * max(1, len(shares) / 2) + 0.9)
    height = 0.8 / len(shares)
    for number, (variant, by_role) in enumerate(shares.items()):
        at = np.arange(len(names))[::-1] + 0.4 - height * (number + 0.5)
        color, alpha = _color(variant), 1 if variant == AGENT else 0.45
        ax.barh(at, [by_role[name] for name in names], height=0.9 * height, color=color, alpha=alpha)
        for place, name in zip(at, names, strict=True):
            text = f"{by_role[name]:.0f} % {_title(variant)}"
            ax.annotate(
                text, (by_role[name], place), xytext=(3, 0), textcoords="offset points", fontsize=7, va="center"
            )
    ax.set_yticks(np.arange(len(names))[::-1], labels=names)
    ax.set_xlim(0, 1.45 * max(1.0, *(value for by_role in shares.values() for value in by_role.values())))
    ax.set_xlabel("share of the role's words that is deleted, %", fontsize=8)
    return figure


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    figure.patch.set_alpha(0)
    ax = figure.subplots()
    ax.patch.set_alpha(0)
    style(ax)
    return figure, ax


def _rows(ax: Axes, order: Sequence[str]) -> None:
    """Label the rows, the agent's in bold."""
    ax.set_yticks(range(len(order)), labels=[_title(name) for name in order])
    ax.set_ylim(-0.6, len(order) - 0.4)
    for name, label in zip(order, ax.get_yticklabels(), strict=True):
        label.set_fontsize(8)
        if name == AGENT:
            label.set_fontweight("bold")


def _title(name: str) -> str:
    return VARIANTS.get(name, name)


def _color(name: str) -> str:
    return BLUE if name == AGENT else GREY if name in CONTROLS else _INK


def _marker(name: str) -> dict[str, Any]:
    """Return how a variant is marked, so that no information depends on color alone."""
    if name in CONTROLS:
        return {"marker": "D", "markerfacecolor": "none", "linestyle": "none"}
    return {"marker": "o", "linestyle": "none"}


def _interval(values: np.ndarray) -> Interval:
    """Return the interval of a batch's mean; the mean alone if there are too few episodes."""
    mean = float(values.mean())
    if len(values) < FEWEST:
        return Interval(mean)
    return t_interval(mean, float(values.std(ddof=1)) / len(values) ** 0.5, len(values), 0.95)
