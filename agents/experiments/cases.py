"""The paper's Figures A1 to A6: replies to single patients, of three systems side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, ClassVar

from agents import registry
from agents.benchmark.config import RAW
from agents.evaluation.variants import AGENT, KEEP_ALL
from agents.experiments.case_table import SYSTEMS, case_tables
from agents.experiments.digest import digest
from agents.experiments.on_patients import PatientsExperiment
from agents.experiments.rows import UNEDITED
from agents.problem import BudgetSpentError, MeteredReward
from agents.run_folder import RunFolder
from agents.settings import refuse_idle
from pmlm_env.cohort.wording import bare, named
from pmlm_env.core.episodes import EpisodeSet, Split
from pmlm_env.core.traces import TraceFile
from pmlm_env.io.files import locked_file
from pmlm_env.prompting import InitialPrompt

#: Conditions of the two patients of the paper's figures.
_LABELS = ("gestational diabetes", "normal")


@dataclass(frozen=True)
class Cases(PatientsExperiment):
    """The paper's Figures A1 to A6: replies to single patients, of three systems side by side.

    For each patient, the LLM's replies to the raw-data prompt, to our unedited prompt, and to the prompt that an agent
    refined, beside the doctor's reply. The table has the texts; they are in OUT/cases/traces.jsonl, not in runs.jsonl.

    Attributes:
        patients: Ids of test patients; by default one with gestational diabetes and one with no finding, as in the
            paper, or two with different conditions.
        raw_values: Show prompts that contain laboratory values, and such values in the replies.
    """

    patients: tuple[str, ...] = ()
    raw_values: bool = False

    name: ClassVar[str] = "cases"
    packages: ClassVar[Sequence[str]] = ("pmlm-env", "numpy", "torch", "transformers")

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: A number is out of range, or an option has no effect.
        """
        super().__post_init__()
        refuse_idle(self, {"seeds": "each agent is fitted once, with seed 0"})
        if self.patients:
            refuse_idle(self, {"test_patients": "--patients names them"})

    @property
    def limits(self) -> Mapping[Split, int]:
        """The number of patients of each split: all test patients if some of them are named."""
        usual = super().limits
        return {**usual, "test": len(self.everybody)} if self.patients else usual

    def cells(self) -> list[dict[str, Any]]:
        """Return a run for each agent.

        Raises:
            ValueError: There is no such agent, or the cohort or the LLM cannot be used.
        """
        same = self.identity(self.models, raw=True)
        shown = list(dict.fromkeys(self.patients))
        return [{**cell, "shown": shown, **same} for cell in self.agent_cells(*self.agents) if cell["seed"] == 0]

    def n_calls(self, cell: Mapping[str, Any]) -> int:
        """Return the most calls of the LLM that a run makes: the agent's, and three for each patient."""
        return int(cell.get("budget", 0)) + 3 * (len(cell["shown"]) or len(_LABELS)) * self.models.n_samples

    def run(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        """Fit the agent, get and judge the replies, and write their traces.

        Raises:
            ValueError: The cohort has too few patients, or a patient is not among its test patients.
        """
        from agents.benchmark.held_out import same_patients
        from agents.evaluation.traces import traces_of  # this loads torch
        from agents.models import RunModels

        everybody, raw = EpisodeSet.load(self.prepared(self.pipeline)), self.prepared(self.raw_pipeline)
        training, shown = everybody.of("train"), _shown(everybody.of("test"), cell["shown"])
        folder = RunFolder(self.work / "run")
        models = RunModels(self.models, self.shared_calls, folder, training)
        models.check_sent(self.prepared(self.pipeline))
        agent, untouched = registry.make(cell["row"], seed=cell["seed"]), registry.make(UNEDITED)
        with folder.locked(), models.booking():
            meter = MeteredReward(models.reward(training), cell.get("budget", 0), self.models.n_samples)
            with suppress(BudgetSpentError):
                agent.fit(models.problem(training, meter, everybody.max_words))
            ours = traces_of(
                {KEEP_ALL: untouched, AGENT: agent}, models, shown, training, max_words=everybody.max_words
            )
            before = traces_of({KEEP_ALL: untouched, AGENT: untouched}, models, same_patients(raw, shown), training)
        traces = [
            *(replace(trace, variant=RAW, agent=agent.name) for trace in before if trace.variant == KEEP_ALL),
            *(trace for trace in ours if trace.variant in SYSTEMS),
        ]
        if failed := [trace for trace in traces if trace.error]:
            raise RuntimeError(f"a reply is missing: {failed[0].error}: run the command again")
        run = digest(dict(cell))
        with locked_file(self.traces.path, wait=True):  # other workers write to it, too
            self.traces.replace([replace(trace, run=run) for trace in traces], lambda trace: trace.run == run)
        template = InitialPrompt(self.pipeline.template, self.pipeline.peers, self.everybody.schema)
        return {
            "run": run,
            "values_in_prompts": bool(template.of_records),
            "patients": [episode.patient_id for episode in shown],
            "metrics": {system: [trace.after for trace in traces if trace.variant == system] for system in SYSTEMS},
        }

    @property
    def traces(self) -> TraceFile:
        """The prompts and replies."""
        return TraceFile(self.out / self.name / "traces.jsonl")

    def table(self, runs: Sequence[Mapping[str, Any]]) -> str:
        """Return the systems side by side for each run and patient; see ``agents.experiments.case_table``."""
        return case_tables(runs, self.traces.read(), raw_values=self.raw_values)


def _shown(test: EpisodeSet, ids: Sequence[str]) -> EpisodeSet:
    """Return the test patients with some ids; without ids, one of each of ``_LABELS``, or two with other conditions.

    Raises:
        ValueError: A patient is not among the test patients who have a label and a reply.
    """
    by_id = {episode.patient_id: episode for episode in test}
    if unknown := [each for each in ids if each not in by_id]:
        close = get_close_matches(unknown[0], by_id, 3) or list(by_id)[:3]
        raise ValueError(
            f"--patients: there is no test patient {bare(unknown[0])} with a label and a reply; there are, for "
            f"instance, {named(close)}"
        )
    if not ids:
        first = {episode.label: episode.patient_id for episode in reversed(test)}
        labels = [label for label in dict.fromkeys((*_LABELS, *(e.label for e in test))) if label in first]
        ids = [first[label] for label in labels[: len(_LABELS)]]
    return test.part(by_id[each] for each in ids)
