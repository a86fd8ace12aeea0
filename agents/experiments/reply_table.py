"""The tables of ``table-2``: metrics of replies, a row for each way to get them, and their differences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from agents.benchmark.config import RAW
from agents.evaluation.aggregate import crossed_bootstrap
from agents.evaluation.controls import CONTROLS
from agents.experiments.rows import TUNED, UNEDITED
from agents.report.tables import in_points
from agents.settings import plain
from pmlm_env.io.text import as_text
from pmlm_env.llm.lora.settings import LoraSettings

#: Columns: metric, header, factor, decimals.
_COLUMNS = (
    ("bleu4", "BLEU-4", 100, 2), ("rougeL", "R-L", 100, 2), ("rouge1", "R-1", 100, 2), ("rouge2", "R-2", 100, 2),
    ("bertscore_precision", "P", 100, 2), ("bertscore_recall", "R", 100, 2), ("bertscore_f1", "F1", 100, 2),
    ("margin", "margin", 100, 2), ("diagnosis_named", "right", 100, 0), ("wrong_diagnosis_named", "wrong", 100, 0),
    ("words", "words", 1, 0), ("cut", "cut", 100, 0),
)  # fmt: skip

#: Metrics by which the fine-tuned LLM is compared with each row.
_COMPARED = (("bertscore_f1", "F1"), ("margin", "margin"), ("diagnosis_named", "right"), ("rougeL", "R-L"))

_NAMES = {
    TUNED: "**fine-tuned LLM, raw-data prompt**",
    RAW: "LLM, raw-data prompt",
    UNEDITED: "LLM, the pipeline's prompt, unedited",
}

#: The results of a row: an array of seeds by patients for each metric.
_Values = dict[str, npt.NDArray[np.float64]]


def reply_tables(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return two tables for each set of patients and models.

    Args:
        runs: The runs of ``table-2``, each with its ``cell`` and its ``result``.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        of_group = {name: run["cell"][name] for name in ("patients", "models")}
        groups.setdefault(json.dumps(of_group, sort_keys=True), []).append(run)
    return "\n\n".join(_tables(json.loads(group), own) for group, own in groups.items()) + "\n"


def _tables(group: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> str:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        found.setdefault(_name(run["cell"]), []).append(run["result"])
    rows = {name: _values(results) for name, results in found.items()}
    patients, n_test = group["patients"], len(runs[0]["result"]["patients"])
    lines = [
        f"{as_text(patients['cohort'])}, {as_text(group['models']['llm'])}: {n_test} test patients; at most "
        f"{patients['train']} training patients and {patients['validation']} validation patients. All but words in %.",
        "",
        f"| reply of | {' | '.join(head for _, head, _, _ in _COLUMNS)} | seeds |",
        "|---|" + "---|" * (len(_COLUMNS) + 1),
        *(_row(name, rows[name]) for name in sorted(rows, key=_place)),
    ]
    tuned = next((name for name in rows if name.startswith(_NAMES[TUNED])), None)
    if tuned is not None:
        lines += [
            "",
            "The fine-tuned LLM's replies minus the others', in points, with 95 % intervals over patients and seeds:",
            "",
            f"| minus | {' | '.join(head for _, head in _COMPARED)} |",
            "|---|" + "---|" * len(_COMPARED),
            *(_difference(name, rows[tuned], rows[name]) for name in sorted(rows, key=_place) if name != tuned),
        ]
    return "\n".join(lines)


def _name(cell: Mapping[str, Any]) -> str:
    """Return the name of a run's row."""
    row = cell["row"]
    if row in CONTROLS:
        return f"*{row}*"
    if row == TUNED:
        usual = plain(LoraSettings())
        changed = [f"{name} {value}" for name, value in cell["lora"].items() if value != usual.get(name)]
        return _NAMES[TUNED] + (f" ({', '.join(changed)})" if changed else "")
    if row in _NAMES:
        return _NAMES[row]
    calls = f" ({cell['budget']:,} calls)" if "budget" in cell else ""
    return f"LLM, prompts refined by {as_text(row)}{calls}"


def _place(name: str) -> tuple[bool, bool, str]:
    """Return what rows are sorted by: the fine-tuned LLM, then the others' replies, then the controls."""
    return (not name.startswith("**"), name.startswith("*") and not name.startswith("**"), name)


def _values(results: Sequence[Mapping[str, Any]]) -> _Values:
    """Return the metrics of a row's runs, shape (seeds, patients) each; NaN where undefined."""
    patients = results[0]["patients"]
    for result in results:
        if result["patients"] != patients:
            raise ValueError("runs of table-2 have other patients, though the same settings: remove their folder")
    names = results[0]["metrics"]
    return {name: np.array([result["metrics"][name] for result in results], dtype=np.float64) for name in names}


def _row(name: str, values: _Values) -> str:
    cells = [_mean(factor * values[metric], decimals) for metric, _, factor, decimals in _COLUMNS]
    return f"| {' | '.join([name, *cells, str(len(values['words']))])} |"


def _mean(values: npt.NDArray[np.float64], decimals: int) -> str:
    return "-" if np.isnan(values).all() else f"{np.nanmean(values):.{decimals}f}"


def _difference(name: str, tuned: _Values, other: _Values) -> str:
    """Return the row of the differences to one row; its seeds are averaged if they are not as many."""
    cells = []
    for metric, _ in _COMPARED:
        theirs = other[metric]
        if len(theirs) != len(tuned[metric]):
            theirs = theirs.mean(axis=0, keepdims=True)
        deltas = tuned[metric] - theirs
        deltas = deltas[:, ~np.isnan(deltas).any(axis=0)]
        cells.append(in_points(crossed_bootstrap(deltas, np.random.default_rng(0))) if deltas.size else "-")
    return f"| {' | '.join([name, *cells])} |"
