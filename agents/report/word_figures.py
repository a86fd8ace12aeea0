"""Figures of prompts' words, as SVG: where they are deleted, and what they are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from agents.report.figures import BLUE, GREY, ORANGE

#: Number of words that are named at either end of each axis of a scatter plot.
_NAMED = 3


def heat_maps(shares: Mapping[str, npt.NDArray[np.float64]], roles: Sequence[str]) -> Figure:
    """Draw how often each position of the prompts is edited at each step, a panel for each agent, one scale for all.

    Args:
        shares: By agent, the share of prompts in which a position is edited at a step, float64 (steps, positions).
        roles: The most common role of the words at each position, which divide the panels.
    """
    height = 1.1 + 0.13 * max(len(share) for share in shares.values())
    figure = Figure(figsize=(8, height * len(shares) + 0.4), layout="constrained")
    axes = figure.subplots(len(shares), 1, sharex=True, squeeze=False).ravel()
    most = 100 * max(float(share.max(initial=0)) for share in shares.values()) or 1
    for ax, (agent, share) in zip(axes, shares.items(), strict=True):
        steps, positions = share.shape
        extent = (0.5, positions + 0.5, steps + 0.5, 0.5)
        image = ax.imshow(
            100 * share, cmap="cividis", vmin=0, vmax=most, aspect="auto", interpolation="nearest", extent=extent
        )
        ax.set_yticks(range(1, steps + 1))
        ax.tick_params(labelsize=7)
        ax.set_ylabel("step", fontsize=8)
        ax.set_title(agent, fontsize=8, pad=14, parse_math=False)
        for start, end, role in _stretches(roles[:positions]):
            if start:
                ax.axvline(start + 0.5, color="white", linewidth=0.8, linestyle=":")
            ax.text((start + end + 1) / 2, 0.3, role, fontsize=6, ha="center", va="bottom", color=GREY)
    axes[-1].set_xlabel("position in the prompt", fontsize=8)
    bar = figure.colorbar(image, ax=list(axes), fraction=0.03)
    bar.set_label("prompts in which it is deleted, %", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    return figure


def word_scatter(
    words: Sequence[str], effects: Sequence[float], deleted: Mapping[str, Sequence[float]], default: str
) -> Figure:
    """Draw each word's effect against how often it is deleted, a panel for each agent; the outermost words are named.

    Args:
        words: The words.
        effects: The change of F1, in points, when the word is left out.
        deleted: By agent, the share of the prompts that have the word in which it is deleted, in percent.
        default: The agent whose panel is orange.
    """
    figure = Figure(figsize=(3.6 * len(deleted) + 0.4, 3.2), layout="constrained")
    axes = figure.subplots(1, len(deleted), sharex=True, sharey=True, squeeze=False).ravel()
    for ax, (agent, shares) in zip(axes, deleted.items(), strict=True):
        color = ORANGE if agent.startswith(default) else BLUE
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=7)
        ax.axvline(0, color=GREY, linewidth=0.6)
        ax.scatter(effects, shares, s=12, color=color, alpha=0.7, linewidths=0)
        by_effect, by_share = np.argsort(effects, kind="stable"), np.argsort(shares, kind="stable")
        named: dict[tuple[float, float], list[str]] = {}
        for place in sorted({*by_effect[:_NAMED], *by_effect[-_NAMED:], *by_share[-_NAMED:]}):
            named.setdefault((effects[place], shares[place]), []).append(words[place])
        for at, here in named.items():
            text = ", ".join(here)
            ax.annotate(text, at, (2, 3), textcoords="offset points", fontsize=6, color="black", parse_math=False)
        ax.set_title(agent, fontsize=8, color=color, parse_math=False)
    figure.supxlabel("change of F1 when the word is left out, points", fontsize=8)
    figure.supylabel("prompts in which it is deleted, %", fontsize=8)
    return figure


def _stretches(roles: Sequence[str]) -> list[tuple[int, int, str]]:
    """Return the first and last place of each run of equal roles, with the role."""
    starts = [i for i, role in enumerate(roles) if not i or role != roles[i - 1]]
    return [(start, end - 1, roles[start]) for start, end in zip(starts, [*starts[1:], len(roles)], strict=True)]
