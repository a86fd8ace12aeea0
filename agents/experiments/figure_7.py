"""The paper's Figure 7: scores against the number of peers k and against the edit budget n."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from agents import registry
from agents.experiments.on_patients import PatientsExperiment
from agents.experiments.rows import ECHO, RANDOM, UNEDITED
from agents.model_options import ModelOptions
from agents.settings import refuse_idle
from pmlm_env.pipeline.config import PipelineConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The values of k and of n, and those with ``quick``.
_K, _N = (0, 1, 5, 10, 20), (0, 2, 5, 10, 15, 20)
_QUICK_K, _QUICK_N = (0, 10), (0, 2, 10)


@dataclass(frozen=True)
class Figure7(PatientsExperiment):
    """The paper's Figure 7: scores against the number of peers k and against the edit budget n.

    One of them varies at a time, the other stays at --k or --n-edits (10 and 10, as in the paper). Each agent learns
    anew for each point. The untouched prompts (n = 0) and the echo are beside them for each k.

    Attributes:
        agents: Agents that refine prompts.
        k_values: Numbers of peers; 0 = prompts without the part that speaks of peers, as in ``table-3``.
        n_values: Edit budgets; 0 = the untouched prompts.
        test_patients: Number of test patients, the same at all points.
    """

    agents: tuple[str, ...] = (registry.DEFAULT, RANDOM)
    k_values: tuple[int, ...] = _K
    n_values: tuple[int, ...] = _N
    test_patients: int = 48
    budget: int = 300

    name: ClassVar[str] = "figure-7"
    packages: ClassVar[Sequence[str]] = ("pmlm-env", "numpy", "torch", "transformers")

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: A number is out of range, or an option has no effect.
        """
        super().__post_init__()
        for name in ("k_values", "n_values"):
            if negative := [value for value in getattr(self, name) if value < 0]:
                raise ValueError(f"{name.replace('_', '-')} has {negative[0]}: use whole numbers, 0 or more")
        if self.quick:
            refuse_idle(self, dict.fromkeys(("k_values", "n_values"), "--quick has its own"))

    @property
    def center(self) -> tuple[int, int | float]:
        """The number of peers while the edit budget varies, and the edit budget while the number of peers varies."""
        return self.pipeline.k, self.models.n_edits

    def cells(self) -> list[dict[str, Any]]:
        """Return the runs: untouched prompts and echoes, then one seed after another.

        Raises:
            ValueError: There is no such agent, the peers cannot be left out of the template, or the cohort or the LLM
                cannot be used.
        """
        k0, n0 = self.center
        all_k = sorted({*(_QUICK_K if self.quick else self.k_values), k0})
        if 0 in all_k:
            self.template_without("peer")  # checks that it can be left out
        all_n = sorted({*(_QUICK_N if self.quick else self.n_values), n0} - {0})
        points = [*((k, n0) for k in all_k), *((k0, n) for n in all_n if n != n0)]
        rows: list[dict[str, Any]] = [
            {"k": k, "n": 0, "row": row, "seed": 0} for k in all_k for row in (ECHO, UNEDITED)
        ]
        agents = self.agent_cells(*(name for name in dict.fromkeys(self.agents) if name != UNEDITED))
        for seed in range(self.n_seeds):
            rows += [{"k": k, "n": n, **cell} for k, n in points for cell in agents if cell["seed"] == seed]
        same = self.identity(self.models)
        return [self._located(cell, same) for cell in rows]

    def pipeline_of(self, cell: Mapping[str, Any]) -> PipelineConfig:
        """Return how a run's prompts are made, for the estimate of what it costs: without peers, as with one."""
        return replace(self.pipeline, k=max(cell["k"], 1))

    def models_of(self, cell: Mapping[str, Any]) -> ModelOptions:
        """Return the models of a run."""
        return replace(self.models, n_edits=cell["n"])

    def run(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        """Get and judge the replies of one row at one point.

        Raises:
            ValueError: The cohort has too few patients.
        """
        pipeline = replace(self.pipeline, k=cell["k"]) if cell["k"] else self.without("peer")
        return self.row(cell, self.judge(pipeline, self.models_of(cell)))

    def table(self, runs: Sequence[Mapping[str, Any]]) -> str:
        """Return the tables for each set of patients and models; see ``agents.experiments.point_table``."""
        from agents.experiments.point_table import point_tables

        return point_tables(runs, *self.center)

    def figures(self, runs: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
        """Return the curves of the last run's patients and models; see ``agents.experiments.point_table``."""
        from agents.experiments.point_table import point_figures

        return point_figures(runs, *self.center)

    @staticmethod
    def _located(cell: Mapping[str, Any], same: Mapping[str, Any]) -> dict[str, Any]:
        """Return the cell of a run at its point."""
        patients, models = same["patients"], same["models"]
        return {
            **cell,
            "patients": {**patients, "pipeline": {**patients["pipeline"], "k": cell["k"]}},
            "models": {**models, "n_edits": cell["n"]},
        }
