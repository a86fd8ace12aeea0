"""The table and the figures of ``figure-7``: scores at each k and n."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from agents import registry
from agents.evaluation.bootstrap import Interval
from agents.experiments.groups import Run, by_settings, sections
from agents.experiments.reply_table import Values, level_of, minus, values_of
from agents.experiments.rows import ECHO, UNEDITED
from agents.experiments.stacks import by_row, change, percent, share
from agents.report.tables import table
from pmlm_env.io.text import as_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from agents.report.figures import Curve

#: A point: k and n.
_Point = tuple[int, int | float]

#: Metrics that have a figure for each axis, and their labels.
_DRAWN = {"bertscore_f1": "F1", "margin": "margin", "diagnosis_named": "right"}

#: The results by row and point.
_Found = Mapping[str, Mapping[_Point, Values]]


def point_tables(runs: Sequence[Run], k: int, n: int | float) -> str:
    """Return a table for k and one for n, for each set of patients and models.

    Args:
        runs: The runs of ``figure-7``, each with its ``cell`` and its ``result``.
        k: The number of peers while n varies.
        n: The edit budget while k varies.
    """
    return sections(runs, lambda group, own: _tables(group, _found(own), k, n), _group) + "\n"


def point_figures(runs: Sequence[Run], k: int, n: int | float) -> dict[str, Figure]:
    """Return figures of F1, margin and right conditions against k and n, for the last run's patients and models.

    Args:
        runs: As for ``point_tables``.
        k: As for ``point_tables``.
        n: As for ``point_tables``.
    """
    from agents.report.figures import panels  # matplotlib takes a second to import

    found = next(_found(own) for _, own in by_settings(runs, _group) if runs[-1] in own)
    untouched = found.get(UNEDITED, {}).get((k, 0))
    if untouched is None:
        return {}
    drawn = {}
    for axis, (name, what) in enumerate({"k": "number of peers, k", "n": "edit budget, n"}.items()):
        for metric, label in _DRAWN.items():
            curves: dict[str, Curve] = {}
            for row, of_row in found.items():
                points = _on_axis(of_row, axis, k, n, row)
                changes = {point[axis]: minus(of_row[point], untouched, metric) for point in points}
                if axis == 1 and points:
                    changes = {0: Interval(0.0), **changes}
                known = {at: value for at, value in changes.items() if value is not None}
                if len(known) > 1 and row != ECHO:
                    curves["nobody" if row == UNEDITED else row] = list(known), list(known.values())
            if curves:
                y = f"{label}, minus untouched at k = {k}"
                drawn[f"{name}-{label.lower()}"] = panels(curves, list(curves), registry.DEFAULT, what, y, dots=True)
    return drawn


def _group(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Return what all points have in common."""
    patients, models = cell["patients"], cell["models"]
    pipeline = {name: value for name, value in patients["pipeline"].items() if name != "k"}
    return {
        "patients": {**patients, "pipeline": pipeline},
        "models": {name: value for name, value in models.items() if name != "n_edits"},
    }


def _found(runs: Sequence[Run]) -> _Found:
    """Return the results by row and point."""
    found: dict[str, dict[_Point, Values]] = {}
    for row, of_row in by_row(runs).items():
        for (k, n), own in by_settings(of_row, lambda cell: [cell["k"], cell["n"]]):
            found.setdefault(row, {})[k, n] = values_of(own)
    return found


def _on_axis(of_row: Mapping[_Point, Values], axis: int, k: int, n: int | float, row: str) -> list[_Point]:
    """Return the points of a row on an axis; untouched prompts and echoes have none on that of n."""
    if axis == 0:
        return sorted(point for point in of_row if row in (ECHO, UNEDITED) or point[1] == n)
    return sorted(point for point in of_row if row not in (ECHO, UNEDITED) and point[0] == k)


def _tables(group: Mapping[str, Any], found: _Found, k: int, n: int | float) -> str:
    patients, models = group["patients"], group["models"]
    n_test = next(iter(next(iter(found.values())).values()))["bertscore_f1"].shape[1]
    parts = [
        f"{as_text(patients['cohort'])}, {as_text(models['llm'])}, template "
        f"{as_text(patients['pipeline']['template'])}: {n_test} test patients, at most {patients['train']} training "
        "patients. F1, margin and their changes in points; 95 % intervals are over patients and seeds. Changes are "
        "those from the untouched prompts with as many peers.",
    ]
    for axis, name in enumerate(("k", "n")):
        fixed = f"n = {n}" if name == "k" else f"k = {k}"
        heads = [
            name, "prompts edited by", "F1", "F1, change", f"F1, minus that at k = {k}, n = {n}", "margin",
            "right, %", "wrong, %", "words of the reply", "seeds",
        ]  # fmt: skip
        rows = _rows(found, axis, k, n)
        parts += ["", f"Against {'the number of peers' if name == 'k' else 'the edit budget'} {name}, with {fixed}:"]
        parts += ["", table(heads, rows)]
    return "\n".join([*parts, "", _summary(found, k, n)])


def _rows(found: _Found, axis: int, k: int, n: int | float) -> list[list[str]]:
    rows: dict[tuple[int | float, int], list[str]] = {}
    order = [UNEDITED, *(row for row in found if row not in (ECHO, UNEDITED)), ECHO]
    for place, row in enumerate(order):
        of_row = found.get(row, {})
        points = _on_axis(of_row, axis, k, n, row)
        if axis == 1 and row in (ECHO, UNEDITED):
            points = [point for point in of_row if point[0] == k]
        usual = of_row.get((k, 0) if row in (ECHO, UNEDITED) else (k, n))
        for point in points:
            stack, untouched = of_row[point], found.get(UNEDITED, {}).get((point[0], 0))
            compared = untouched is not None and row != UNEDITED
            is_usual = usual is None or usual is stack
            rows[point[axis], place] = [
                str(point[axis]),
                {UNEDITED: "nobody", ECHO: f"*{ECHO}*"}.get(row, as_text(row)),
                percent(level_of(stack, "bertscore_f1")),
                change(minus(stack, untouched, "bertscore_f1")) if compared and untouched else "",
                "" if is_usual or usual is None else change(minus(stack, usual, "bertscore_f1")),
                percent(level_of(stack, "margin")),
                *(share(level_of(stack, metric)) for metric in ("diagnosis_named", "wrong_diagnosis_named")),
                f"{stack['words'].mean():.0f}",
                str(len(stack["words"])),
            ]
    return [rows[place] for place in sorted(rows)]


def _summary(found: _Found, k: int, n: int | float) -> str:
    """Return what the paper says, and the same about the agents here."""
    lines = []
    for row, of_row in found.items():
        if row in (ECHO, UNEDITED):
            continue
        said = []
        for axis, name in enumerate(("k", "n")):
            points = _on_axis(of_row, axis, k, n, row)
            means = [float(np.mean(of_row[point]["bertscore_f1"])) for point in points]
            if axis == 1 and (k, 0) in found.get(UNEDITED, {}):
                points = [(k, 0), *points]
                means = [float(np.mean(found[UNEDITED][k, 0]["bertscore_f1"])), *means]
            if len(points) > 1:
                best = points[int(np.argmax(means))][axis]
                said.append(f"at {name} = {best} (means range over {100 * np.ptp(means):.2f} points)")
        if said:
            lines.append(f"For {as_text(row)} the mean is highest {' and '.join(said)}.")
    return (
        "The paper (GPT-4, private data) reports that F1 first rises and then falls with both, that both are best near "
        f"10, and that n matters more than k. {' '.join(lines)}".rstrip()
    )
