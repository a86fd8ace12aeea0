"""The paper's Table 3: what each stage is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from agents.evaluation.controls import CONTROLS
from agents.experiments import paper
from agents.experiments.on_patients import PatientsExperiment
from agents.experiments.reply_table import Rows, difference_figures, is_learned, reply_tables, row_name
from agents.experiments.rows import RANDOM, UNEDITED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The prompts from which nothing is left out; for the others, the role of the words that are.
_ALL = "all stages"
_LEFT_OUT: Mapping[str, Literal["self", "peer"]] = {paper.NO_PREDICTION: "self", paper.NO_PEERS: "peer"}


@dataclass(frozen=True)
class Table3(PatientsExperiment):
    """The paper's Table 3: what each stage is worth.

    Prompts without the prediction of stage 1, without the peers of stage 2, and with both, each with agents that
    learned from them, and unedited. A stage is left out by a template that lacks its part. Beside the prompts with both
    are random deletion and controls that need no LLM.
    """

    name: ClassVar[str] = "table-3"
    packages: ClassVar[Sequence[str]] = ("pmlm-env", "numpy", "torch", "transformers")

    def cells(self) -> list[dict[str, Any]]:
        """Return the runs, first those of the prompts with all stages.

        Raises:
            ValueError: There is no such agent, the template cannot be taken apart, or the cohort or the LLM cannot be
                used.
        """
        for role in _LEFT_OUT.values():
            self.template_without(role)
        same = self.identity(self.models)
        every = self.agent_cells(UNEDITED, *self.agents)
        of_all = [
            *({"row": control, "seed": 0} for control in CONTROLS),
            *self.agent_cells(UNEDITED, RANDOM, *self.agents),
        ]
        return [
            {"prompt": prompt, **row, **same}
            for prompt, rows in ((_ALL, of_all), *((name, every) for name in _LEFT_OUT))
            for row in rows
        ]

    def run(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        """Get and judge the replies of one row.

        Raises:
            ValueError: The cohort has too few patients.
        """
        role = _LEFT_OUT.get(cell["prompt"])
        pipeline = self.pipeline if role is None else self.without(role)
        return self.row(cell, self.judge(pipeline, self.models))

    def table(self, runs: Sequence[Mapping[str, Any]]) -> str:
        """Return tables for each set of patients and models; see ``agents.experiments.reply_table``."""
        return reply_tables(runs, _ROWS)

    def figures(self, runs: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
        """Return the differences for the last run's patients and models; see ``agents.experiments.reply_table``."""
        return difference_figures(runs, _ROWS)


def _name(cell: Mapping[str, Any]) -> str:
    """Return the name of a run's row."""
    if cell["row"] in CONTROLS:
        return row_name(cell)
    how = row_name(cell).removeprefix("our prompt, ")
    if cell["prompt"] == _ALL and cell["row"] == UNEDITED:
        return f"{paper.NO_REFINEMENT}: all stages, {how}"
    return f"{cell['prompt']}, {how}"


def _part(cell: Mapping[str, Any]) -> str:
    """Return the part of the paper's table 3 that a run's row repeats."""
    if cell["prompt"] == _ALL:
        return paper.AFTER if is_learned(cell) else paper.NO_REFINEMENT if cell["row"] == UNEDITED else ""
    return str(cell["prompt"]) if is_learned(cell) else ""


_ROWS = Rows(_name, lambda cell: cell["prompt"] == _ALL and is_learned(cell), paper.TABLE_3, _part)
