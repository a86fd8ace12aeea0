"""The paper's Table 1: LLMs with the raw-data prompt, and with our prompts, unedited and refined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from agents import registry
from agents.benchmark.config import RAW
from agents.evaluation.bootstrap import Interval
from agents.evaluation.controls import CONTROLS
from agents.experiments import paper
from agents.experiments.groups import by_settings, sections, without_llm
from agents.experiments.on_patients import PatientsExperiment
from agents.experiments.reply_table import (
    COMPARED,
    Rows,
    is_learned,
    minus,
    paper_changes,
    reply_tables,
    row_name,
    rows_of,
)
from agents.experiments.rows import RANDOM, UNEDITED
from agents.model_options import ModelOptions
from agents.report.tables import in_points, table
from agents.settings import refuse_idle
from pmlm_env.io.text import as_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Table1(PatientsExperiment):
    """The paper's Table 1: LLMs with the raw-data prompt, and with our prompts, unedited and refined.

    For each LLM, its replies to raw-data prompts, to our unedited prompts, and to those that agents refined after
    learning from its replies, beside random deletion and controls that need no LLM.

    Attributes:
        llms: The LLMs, each as for ``--llm``; by default the one of ``--llm``.
    """

    llms: tuple[str, ...] = ()

    name: ClassVar[str] = "table-1"
    packages: ClassVar[Sequence[str]] = ("pmlm-env", "numpy", "torch", "transformers")

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: A number is out of range, or an option has no effect.
        """
        super().__post_init__()
        if self.llms:
            refuse_idle(self, {"models.llm": "--llms names the LLMs"})

    def cells(self) -> list[dict[str, Any]]:
        """Return the runs, one LLM after another.

        Raises:
            ValueError: There is no such agent, or the cohort or an LLM cannot be used.
        """
        fixed = [{"row": row, "seed": 0} for row in (RAW, *CONTROLS)]
        rows = [*fixed, *self.agent_cells(UNEDITED, RANDOM, *self.agents)]
        llms = dict.fromkeys(self.llms or (self.models.llm,))
        same = [self.identity(replace(self.models, llm=llm), raw=True) for llm in llms]
        return [{**row, **of_llm} for of_llm in same for row in rows]

    def models_of(self, cell: Mapping[str, Any]) -> ModelOptions:
        """Return the models, with the run's LLM."""
        return replace(self.models, llm=cell["models"]["llm"])

    def run(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        """Get and judge the replies of one row.

        Raises:
            ValueError: The cohort has too few patients.
        """
        return self.row(cell, self.judge(self.pipeline, self.models_of(cell), raw=True))

    def table(self, runs: Sequence[Mapping[str, Any]]) -> str:
        """Return what replaces the raw-data prompt, for all LLMs with the same patients, and the tables of each LLM."""
        changes = sections(runs, lambda _, own: _change_table(own), without_llm)
        return f"{changes}\n\n{reply_tables(runs, _ROWS)}"

    def figures(self, runs: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
        """Return the changes of F1 and margin from the raw-data prompt, for the last run's patients, with all LLMs."""
        from agents.report.figures import forest  # matplotlib takes a second to import

        drawn = {}
        changes = _changes(next(own for _, own in by_settings(runs, without_llm) if runs[-1] in own))
        for metric in ("bertscore_f1", "margin"):
            rows = {
                f"{llm.removeprefix('local:')}, {prompt.removeprefix('our prompt, ')}": each[metric]
                for llm, prompt, each, _ in changes
            }
            shown = {name: interval for name, interval in rows.items() if interval is not None}
            if shown:
                label = f"{COMPARED[metric]}, change from the raw-data prompt, points"
                drawn[COMPARED[metric].lower()] = forest(shown, registry.DEFAULT, label, scale=100)
        return drawn


def _part(cell: Mapping[str, Any]) -> str:
    """Return the part of the paper's table 1 that a run's row repeats."""
    return paper.BEFORE if cell["row"] == RAW else paper.AFTER if is_learned(cell) else ""


#: The head of the column of the paper's numbers.
_OF_PAPER = "the paper's F1"

_ROWS = Rows(row_name, lambda cell: cell["row"] == UNEDITED or is_learned(cell), paper.TABLE_1, _part)


def _change_table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of the changes from the raw-data prompt, for runs with the same patients."""
    head = "The change from the raw-data prompt, in points, with 95 % intervals over patients and seeds"
    rows = [
        [llm, prompt, *("-" if i is None else in_points(i) for i in intervals.values()), of_paper]
        for llm, prompt, intervals, of_paper in _changes(runs)
    ]
    return f"{head}\n\n{table(['LLM', 'prompt', *COMPARED.values(), _OF_PAPER], rows)}"


def _changes(runs: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, dict[str, Interval | None], str]]:
    """Return the LLM, the row's name, the changes of its metrics from the raw-data prompt, and the paper's change."""
    found = []
    for group, own in by_settings(runs):
        rows = rows_of(own, row_name)
        raw = next((row for row in rows.values() if row.cell["row"] == RAW), None)
        for name, row in rows.items():
            if raw is not None and row is not raw and row.cell["row"] not in CONTROLS:
                intervals = {metric: minus(row.values, raw.values, metric) for metric in COMPARED}
                changes = paper_changes(_ROWS, row.cell, raw.cell)
                found.append((as_text(group["models"]["llm"]), name, intervals, changes))
    return found
