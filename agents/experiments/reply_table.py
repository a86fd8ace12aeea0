"""Tables of replies: metrics, a row for each way to get them, and differences with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from agents import registry
from agents.benchmark.config import RAW
from agents.evaluation.aggregate import crossed_bootstrap
from agents.evaluation.bootstrap import Interval
from agents.evaluation.bounds import bounds_of_change, interval_of_level
from agents.evaluation.controls import CONTROLS
from agents.experiments import paper
from agents.experiments.groups import Run, by_settings, sections
from agents.experiments.rows import UNEDITED
from agents.report.tables import in_points, table
from pmlm_env.io.text import as_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Columns: metric, header, factor, decimals.
_COLUMNS = (
    ("bleu4", "BLEU-4", 100, 2), ("rougeL", "R-L", 100, 2), ("rouge1", "R-1", 100, 2), ("rouge2", "R-2", 100, 2),
    ("bertscore_precision", "P", 100, 2), ("bertscore_recall", "R", 100, 2), ("bertscore_f1", "F1", 100, 2),
    ("margin", "margin", 100, 2), ("diagnosis_named", "right", 100, 0), ("wrong_diagnosis_named", "wrong", 100, 0),
    ("words", "words", 1, 0), ("cut", "cut", 100, 0),
)  # fmt: skip

#: Metrics by which rows are compared, and whose means have intervals.
COMPARED = {
    "bertscore_f1": "F1", "margin": "margin", "diagnosis_named": "right", "wrong_diagnosis_named": "wrong",
    "rougeL": "R-L",
}  # fmt: skip

#: Characters of a line of a figure's label.
_LABEL = 40

#: The results of a row: an array of seeds by patients for each metric.
Values = Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Rows:
    """How the rows of an experiment are named and compared.

    Attributes:
        name: Returns the name of a run's row, in the table.
        compared: Whether a run's row is compared with all others.
        table: The parts of the paper's table.
        part: Returns the part of the paper's table that a run's row repeats; "" if there is none.
    """

    name: Callable[[Mapping[str, Any]], str]
    compared: Callable[[Mapping[str, Any]], bool]
    table: Mapping[str, paper.Part]
    part: Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        cell: What determines the first of its runs.
        values: Its results.
    """

    cell: Mapping[str, Any]
    values: Values


def row_name(cell: Mapping[str, Any]) -> str:
    """Return the name of a row of ``PatientsExperiment.row``."""
    row = cell["row"]
    if row in CONTROLS:
        return f"*{row}*"
    if row == RAW:
        return "raw-data prompt"
    if row == UNEDITED:
        return "our prompt, unedited"
    calls = f" ({cell['budget']:,} calls)" if "budget" in cell else ""
    return f"our prompt, edited by {as_text(row)}{calls}"


def is_learned(cell: Mapping[str, Any]) -> bool:
    """Whether a row is that of an agent that learns from replies."""
    return "budget" in cell


def rows_of(runs: Sequence[Run], name: Callable[[Mapping[str, Any]], str]) -> dict[str, Row]:
    """Return the rows of the runs of one set of patients and models, by name; zero-call controls are last.

    Raises:
        ValueError: Runs have other patients.
    """
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(name(run["cell"]), []).append(run)
    ordered = sorted(found.items(), key=lambda item: item[1][0]["cell"]["row"] in CONTROLS)
    return {each: Row(own[0]["cell"], values_of(own)) for each, own in ordered}


def level(interval: Interval, factor: float = 100, decimals: int = 2) -> str:
    """Return a mean with its interval, without a sign."""
    numbers = [interval.mean, interval.low, interval.high]
    mean, low, high = ("" if each is None else f"{factor * each:.{decimals}f}" for each in numbers)
    return f"{mean} [{low}, {high}]" if low else mean


def interval_of(values: npt.NDArray[np.float64]) -> Interval | None:
    """Return the mean of an array of seeds by patients with its 95 % interval, without patients who have no value.

    Returns:
        None if no patient has a value.
    """
    known = values[:, ~np.isnan(values).any(axis=0)]
    return crossed_bootstrap(known, np.random.default_rng(0)) if known.size else None


def level_of(values: Values, metric: str) -> Interval | None:
    """Return the mean of a metric with its interval, which ends at the metric's bounds; see ``interval_of``."""
    interval = interval_of(values[metric])
    n = int((~np.isnan(values[metric]).any(axis=0)).sum())
    return None if interval is None else interval_of_level(interval, metric, n)


def minus(ours: Values, theirs: Values, metric: str) -> Interval | None:
    """Return a row's mean of a metric minus another's, with its interval over patients and seeds.

    A row with one seed is compared with each seed of the other; if both have several and differ in their number, the
    other's are averaged.
    """
    own, others = ours[metric], theirs[metric]
    if len(own) != len(others) and min(len(own), len(others)) > 1:
        others = others.mean(axis=0, keepdims=True)
    interval = interval_of(own - others)
    return None if interval is None else interval.within(*bounds_of_change(metric))


def reply_tables(runs: Sequence[Run], rows: Rows) -> str:
    """Return tables for each set of patients and models, and the paper's.

    Args:
        runs: The runs.
        rows: How their rows are named and compared.
    """
    tables = sections(runs, lambda group, own: _tables(group, rows_of(own, rows.name), rows))
    return "\n\n".join([tables, paper.DIFFERENCES, _of_paper(rows.table)]) + "\n"


def difference_figures(runs: Sequence[Run], rows: Rows) -> dict[str, Figure]:
    """Return figures of F1 and margin, compared for the last run's patients and models.

    Args:
        runs: As for ``reply_tables``.
        rows: As for ``reply_tables``.
    """
    from agents.report.figures import forest  # matplotlib takes a second to import

    found = rows_of(next(own for _, own in by_settings(runs) if runs[-1] in own), rows.name)
    reference = next((name for name, row in found.items() if rows.compared(row.cell)), None)
    drawn = {}
    for metric in ("bertscore_f1", "margin"):
        if reference is None:
            continue
        intervals = {
            n: minus(found[reference].values, row.values, metric) for n, row in found.items() if n != reference
        }
        shown = {name.strip("*"): interval for name, interval in intervals.items() if interval is not None}
        if shown:
            label = f"{COMPARED[metric]} of {reference.strip('*')} minus the row, points"
            drawn[COMPARED[metric].lower()] = forest(shown, registry.DEFAULT, fill(label, _LABEL), scale=100)
    return drawn


def _tables(group: Mapping[str, Any], found: Mapping[str, Row], rows: Rows) -> str:
    patients, some = group["patients"], next(iter(found.values()))
    n_test = len(some.values["words"][0])
    validation = f" and {patients['validation']} validation patients" if "validation" in patients else ""
    heads = ["reply to", *(head for _, head, _, _ in _COLUMNS), "seeds", "the paper's F1"]
    lines = [
        f"{as_text(patients['cohort'])}, {as_text(group['models']['llm'])}: {n_test} test patients; at most "
        f"{patients['train']} training patients{validation}. All but words in %, with 95 % intervals over patients and "
        "seeds.",
        table(heads, [_row(name, row, rows) for name, row in found.items()]),
    ]
    for name, row in found.items():
        if rows.compared(row.cell):
            lines += [
                f"{name}: minus the other rows, in points, with 95 % intervals over patients and seeds",
                table(
                    ["minus", *COMPARED.values(), "the paper's F1"],
                    [_difference_row(row, other, each, rows) for other, each in found.items() if other != name],
                ),
            ]
    return "\n\n".join(lines)


def values_of(runs: Sequence[Run]) -> dict[str, npt.NDArray[np.float64]]:
    """Return the metrics of a row's runs, shape (seeds, patients) each; NaN where undefined.

    Raises:
        ValueError: The runs have other patients.
    """
    results = [run["result"] for run in runs]
    patients = results[0]["patients"]
    for result in results:
        if result["patients"] != patients:
            raise ValueError("runs have other patients, though the same settings: remove their folder")
    names = results[0]["metrics"]
    return {name: np.array([result["metrics"][name] for result in results], dtype=np.float64) for name in names}


def _row(name: str, row: Row, rows: Rows) -> list[str]:
    cells = []
    for metric, _, factor, decimals in _COLUMNS:
        values = row.values[metric]
        interval = level_of(row.values, metric) if metric in COMPARED else None
        if np.isnan(values).all():
            cells.append("-")
        elif interval is None:
            cells.append(f"{factor * np.nanmean(values):.{decimals}f}")
        else:
            cells.append(level(interval, factor, decimals))
    return [name, *cells, str(len(row.values["words"])), _span(_f1(rows, row.cell).values(), "{:.2f}")]


def _difference_row(row: Row, other: str, theirs: Row, rows: Rows) -> list[str]:
    intervals = [minus(row.values, theirs.values, metric) for metric in COMPARED]
    changes = paper_changes(rows, row.cell, theirs.cell)
    return [other, *("-" if i is None else in_points(i) for i in intervals), changes]


def paper_changes(rows: Rows, cell: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return the paper's F1 of one row minus that of another: the smallest and the largest difference of its LLMs.

    LLMs are compared with themselves where the paper has them in both rows, and otherwise each with each.
    """
    ours, theirs = _f1(rows, cell), _f1(rows, other)
    same = ours.keys() & theirs.keys()
    pairs = [(llm, llm) for llm in same] or [(llm, each) for llm in ours for each in theirs]
    return _span([ours[one] - theirs[another] for one, another in pairs], "{:+.2f}")


def _f1(rows: Rows, cell: Mapping[str, Any]) -> dict[str, float]:
    """Return the paper's F1 of a row for each of its LLMs; {} if the paper does not have that row."""
    part = rows.table.get(rows.part(cell), {})
    return {llm: values[paper.METRICS.index("bertscore_f1")] for llm, values in part.items()}


def _span(numbers: Any, form: str) -> str:
    """Return the smallest and the largest of some numbers; "" if there are none."""
    ends = sorted(numbers)
    if not ends:
        return ""
    low, high = form.format(ends[0]), form.format(ends[-1])
    return low if low == high else f"{low} to {high}"


def _of_paper(parts: Mapping[str, paper.Part]) -> str:
    """Return the paper's table."""
    heads = {metric: head for metric, head, _, _ in _COLUMNS}
    rows = [
        [part, llm, *(f"{value:.2f}" for value in values)]
        for part, llms in parts.items()
        for llm, values in llms.items()
    ]
    return table(["the paper's", "LLM", *(heads[metric] for metric in paper.METRICS)], rows)
