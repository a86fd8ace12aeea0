"""Agents that learned from one LLM's replies, unchanged, with other LLMs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from agents import registry
from agents.experiments.judged import edited, judged
from agents.experiments.on_patients import PatientsExperiment
from agents.experiments.rows import ECHO, LLM_NAMES, RANDOM, UNEDITED
from agents.model_options import ModelOptions
from agents.settings import refuse_idle
from pmlm_env.weights.bundled import BUNDLED, state

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from agents.base import Edits


@dataclass(frozen=True)
class Transfer(PatientsExperiment):
    """What an agent that learned from one LLM's replies is worth with another LLM, for all pairs of LLMs.

    An agent learns with one LLM and edits the test patients' prompts. Every LLM replies to these prompts, beside its
    replies to the untouched prompts and to those from which random words were deleted.

    Attributes:
        llms: Two LLMs or more, each as for ``--llm``; by default the bundled ones that are downloaded.
    """

    llms: tuple[str, ...] = ()

    name: ClassVar[str] = "transfer"
    packages: ClassVar[Sequence[str]] = ("pmlm-env", "numpy", "torch", "transformers")

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: A number is out of range, or an option has no effect.
        """
        super().__post_init__()
        refuse_idle(self, {"models.llm": "--llms names the LLMs"})

    def cells(self) -> list[dict[str, Any]]:
        """Return the runs: for each LLM its controls, then its agents with all LLMs, its own first.

        Raises:
            ValueError: There are fewer than two LLMs, there is no such agent, or the cohort or an LLM cannot be used.
        """
        llms = list(dict.fromkeys(self.llms or _at_hand()))
        if len(llms) < 2:
            raise ValueError(
                f"transfer needs two LLMs or more, not {len(llms)}: name them (--llms), or download a bundled one "
                "(pmlm models --fetch smollm2-135m)"
            )
        same = {llm: self.identity(replace(self.models, llm=llm)) for llm in llms}
        rows = self.agent_cells(*dict.fromkeys((RANDOM, *self.agents)))
        learned = [row for row in rows if "budget" in row]
        cells = []
        for llm in llms:
            fixed = [{"row": row, "seed": 0} for row in (ECHO, UNEDITED)]
            cells += [{**row, **same[llm]} for row in [*fixed, *(row for row in rows if row not in learned)]]
            others = [other for other in llms if other != llm]
            source = {name: value for name, value in same[llm]["models"].items() if name in LLM_NAMES}
            cells += [{**row, "learned_from": source, **same[other]} for row in learned for other in (llm, *others)]
        return cells

    def models_of(self, cell: Mapping[str, Any]) -> ModelOptions:
        """Return the models, with the LLM that replies to the test patients' prompts."""
        return replace(self.models, llm=cell["models"]["llm"])

    def n_calls(self, cell: Mapping[str, Any]) -> int:
        """Return the most calls of the LLM that a run makes; an agent's calls count where its own LLM replies."""
        calls = super().n_calls(cell)
        source = cell.get("learned_from", cell["models"])["llm"]
        return calls if source == cell["models"]["llm"] else calls - int(cell["budget"])

    def run(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        """Let an agent that learned from one LLM edit the prompts, and judge another's replies.

        Raises:
            ValueError: The cohort has too few patients.
        """
        if "learned_from" not in cell:
            return edited(cell, self.judge(self.pipeline, self.models_of(cell)))
        edits = self._edited(cell["row"], cell["seed"], cell["budget"], cell["learned_from"]["llm"])
        patients = self.judge(self.pipeline, self.models_of(cell))
        with patients.working():
            return judged(patients, edits)

    def table(self, runs: Sequence[Mapping[str, Any]]) -> str:
        """Return the tables for each set of patients and models; see ``agents.experiments.transfer_table``."""
        from agents.experiments.transfer_table import transfer_tables

        return transfer_tables(runs)

    def figures(self, runs: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
        """Return the changes of the last run's patients and models; see ``agents.experiments.transfer_table``."""
        from agents.experiments.transfer_table import transfer_figures

        return transfer_figures(runs)

    def _edited(self, name: str, seed: int, budget: int, llm: str) -> Edits:
        """Return an agent's edits of the test patients' prompts, after it learned from an LLM's replies."""
        key = (name, seed, budget, llm)
        if key not in self._edits:
            patients = self.judge(self.pipeline, replace(self.models, llm=llm))
            with patients.working():
                self._edits[key] = patients.refined(registry.make(name, seed=seed), budget, patients.n_edits)
        return self._edits[key]

    @cached_property
    def _edits(self) -> dict[tuple[str, int, int, str], Edits]:
        """The edits of the agents that have learned in this process."""
        return {}


def _at_hand() -> list[str]:
    """Return the bundled LLMs that are downloaded; the encoder is the only bundled model in a folder."""
    return [f"local:{name}" for name, model in BUNDLED.items() if not model.is_folder and state(name) != "missing"]
