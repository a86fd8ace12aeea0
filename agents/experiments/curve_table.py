"""The tables and figures of ``deletion-curve``: metrics of replies against the share of words deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from agents import registry
from agents.evaluation.aggregate import crossed_bootstrap
from agents.evaluation.bootstrap import Interval
from agents.evaluation.bounds import bounds_of_change
from agents.experiments.groups import by_settings, sections
from agents.experiments.rows import ECHO
from agents.report.tables import in_points, table
from pmlm_env.io.text import as_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from agents.report.figures import Curve

#: A loss of F1 counts as none if it is shown to be smaller, in points.
NO_LOSS = 1.0

#: Metrics whose changes the tables and figures show, in points, and their names.
_CHANGES = {"bertscore_f1": "F1", "margin": "margin", "diagnosis_named": "right"}

_HEAD = (
    "agent", "deleted, %", "words", "prompt tokens", "F1", *(f"{name}, change" for name in _CHANGES.values()),
    "right, %", "wrong, %", "words of the reply", "seeds",
)  # fmt: skip

_NO_LOSS_HEAD = ("agent", "deleted, %", "prompt tokens saved", "in %", *(f"{n}, change" for n in _CHANGES.values()))


@dataclass(frozen=True)
class _Curve:
    """The results of one agent.

    Attributes:
        shares: The shares of words deleted, of which the first is 0.
        words: Words of the prompts, float64 (shares,), means over patients and seeds.
        tokens: Prompt tokens, likewise.
        values: Each metric, float64 (seeds, shares, patients).
    """

    shares: Sequence[float]
    words: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.float64]
    values: Mapping[str, npt.NDArray[np.float64]]

    def mean(self, metric: str, place: int) -> float:
        """Return the mean of a metric at a share."""
        return float(self.values[metric][:, place].mean())

    def change(self, metric: str, place: int) -> Interval:
        """Return the change of a metric from the untouched prompt to a share, with its 95 % interval.

        Patients without a value are left out; if nobody has one, the mean is NaN.
        """
        changes = self.values[metric][:, place] - self.values[metric][:, 0]
        changes = changes[:, ~np.isnan(changes).any(axis=0)]
        if not changes.size:
            return Interval(float("nan"))
        return crossed_bootstrap(changes, np.random.default_rng(0)).within(*bounds_of_change(metric))

    @property
    def free(self) -> int:
        """The place of the largest share up to which the interval of each loss of F1 is below ``NO_LOSS``."""
        for place in range(1, len(self.shares)):
            low = self.change("bertscore_f1", place).low
            if low is None or 100 * low <= -NO_LOSS:
                return place - 1
        return len(self.shares) - 1


def curve_tables(runs: Sequence[Mapping[str, Any]], price: float | None = None) -> str:
    """Return two tables for each set of patients and models: the curves, and what can be deleted at no loss.

    Args:
        runs: The runs of ``deletion-curve``, each with its ``cell`` and its ``result``.
        price: The price of a million prompt tokens; None = no column with the amount that is saved.
    """
    return sections(runs, lambda group, own: _tables(group, _curves(own), own, price)) + "\n"


def curve_figures(runs: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Return a figure of the change of F1, margin and right conditions, for the last run's patients and models.

    Args:
        runs: As for ``curve_tables``.
    """
    from agents.report.figures import panels  # matplotlib takes a second to import

    curves = _curves(next(own for _, own in by_settings(runs) if runs[-1] in own))
    drawn = {}
    for metric, name in _CHANGES.items():
        of_agents: dict[str, Curve] = {
            agent: (
                [100 * share for share in curve.shares],
                [curve.change(metric, place) for place in range(len(curve.shares))],
            )
            for agent, curve in curves.items()
        }
        label = "right condition named, change, %" if metric == "diagnosis_named" else f"{name}, change, points"
        drawn[name.lower()] = panels(of_agents, list(curves), registry.DEFAULT, "words deleted, %", label)
    return drawn


def _curves(runs: Sequence[Mapping[str, Any]]) -> dict[str, _Curve]:
    """Return the curves by agent, with its calls where there are several budgets."""
    budgets = {run["cell"]["budget"] for run in runs} - {0}
    found: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        if run["cell"]["agent"] == ECHO:
            continue
        agent, budget = run["cell"]["agent"], run["cell"]["budget"]
        name = f"{agent} ({budget:,} calls)" if budget and len(budgets) > 1 else agent
        found.setdefault(name, []).append(run["result"])
    return {name: _curve(results) for name, results in found.items()}


def _echo(runs: Sequence[Mapping[str, Any]], curves: Mapping[str, _Curve]) -> list[_Curve]:
    """Return the replies to the untouched prompts and, at the second place, the echo; none if it is missing.

    Raises:
        ValueError: The echo is of other patients.
    """
    results = [run["result"] for run in runs if run["cell"]["agent"] == ECHO]
    if not results or not curves:
        return []
    some, echo = next(iter(curves.values())), results[0]["metrics"]
    values = {
        name: np.stack([some.values[name][:1, 0], np.array(echo[name], dtype=np.float64)], axis=1) for name in echo
    }
    return [_Curve([0, 0], some.words[[0, 0]], some.tokens[[0, 0]], values)]


def _curve(results: Sequence[Mapping[str, Any]]) -> _Curve:
    first = results[0]
    if any((result["patients"], result["shares"]) != (first["patients"], first["shares"]) for result in results):
        raise ValueError("runs have other patients or shares, though the same settings")
    words, tokens = (
        np.array([result[name] for result in results], dtype=np.float64).mean(axis=(0, 2))
        for name in ("prompt_words", "prompt_tokens")
    )
    values = {
        name: np.array([result["metrics"][name] for result in results], dtype=np.float64) for name in first["metrics"]
    }
    return _Curve(first["shares"], words, tokens, values)


def _tables(
    group: Mapping[str, Any], curves: Mapping[str, _Curve], runs: Sequence[Mapping[str, Any]], price: float | None
) -> str:
    patients, models = group["patients"], group["models"]
    budgets = " or ".join(f"{n:,}" for n in sorted({run["cell"]["budget"] for run in runs} - {0})) or "no"
    n_test = len(runs[0]["result"]["patients"])
    rows = [
        _row(as_text(agent), curve, place) for agent, curve in curves.items() for place in range(1, len(curve.shares))
    ]
    some = next(iter(curves.values()))
    saved = [] if price is None else ["saved in 1,000 prompts"]
    return "\n".join(
        [
            f"{as_text(patients['cohort'])}, {as_text(models['llm'])}, template "
            f"{as_text(patients['pipeline']['template'])}: {n_test} test patients; {budgets} calls for at most "
            f"{patients['train']} training patients, with an edit budget of {models['n_edits']}. F1, margin and their "
            "changes in points; changes are those from the untouched prompt, with 95 % intervals over patients and "
            "seeds.",
            "",
            table(_HEAD, [_row("", some, 0), *rows, *(_row(f"*{ECHO}*", echo, 1) for echo in _echo(runs, curves))]),
            "",
            f"The largest share up to which a loss of {NO_LOSS:g} point of F1 or more can be ruled out, and what is "
            "saved there:",
            "",
            table([*_NO_LOSS_HEAD, *saved], [_free_row(agent, curve, price) for agent, curve in curves.items()]),
        ]
    )


def _row(agent: str, curve: _Curve, place: int) -> list[str]:
    changes = _changes(curve, place)
    return [
        agent,
        f"{100 * curve.shares[place]:.0f}",
        f"{curve.words[place]:.1f}",
        f"{curve.tokens[place]:.1f}",
        f"{100 * curve.mean('bertscore_f1', place):.2f}",
        *changes,
        f"{100 * curve.mean('diagnosis_named', place):.0f}",
        f"{100 * curve.mean('wrong_diagnosis_named', place):.0f}",
        f"{curve.mean('words', place):.0f}",
        str(len(curve.values["words"])) if place else "",
    ]


def _changes(curve: _Curve, place: int) -> list[str]:
    """Return the changes from the untouched prompt to a share; a dash where nobody has a value."""
    found = [curve.change(metric, place) for metric in _CHANGES] if place else []
    return ["-" if np.isnan(each.mean) else in_points(each) for each in found] or [""] * len(_CHANGES)


def _free_row(agent: str, curve: _Curve, price: float | None) -> list[str]:
    place = curve.free
    tokens = float(curve.tokens[0] - curve.tokens[place])
    return [
        as_text(agent),
        f"{100 * curve.shares[place]:.0f}",
        f"{tokens:.1f}",
        f"{100 * tokens / curve.tokens[0]:.0f}" if curve.tokens[0] else "-",
        *_changes(curve, place),
        *([] if price is None else [f"{1_000 * tokens * price / 1e6:.4g}"]),
    ]
