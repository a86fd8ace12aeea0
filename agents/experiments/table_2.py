"""The paper's Table 2: an LLM fine-tuned to write the reply, beside its replies to refined prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from agents.benchmark.config import RAW
from agents.evaluation.controls import CONTROLS
from agents.experiments import paper
from agents.experiments.on_patients import PatientsExperiment
from agents.experiments.reply_table import Rows, difference_figures, is_learned, reply_tables, row_name
from agents.experiments.rows import RANDOM, TUNED, UNEDITED
from agents.settings import plain
from pmlm_env.core.episodes import EpisodeSet, Split
from pmlm_env.llm.lora.settings import LoraSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from agents.benchmark.patients import RealPatients


@dataclass(frozen=True)
class Table2(PatientsExperiment):
    """The paper's Table 2: an LLM fine-tuned to write the reply, beside its replies to refined prompts.

    The LLM is fine-tuned with LoRA on pairs of a raw-data prompt and the doctor's reply. Then the fine-tuned LLM gets
    the test patients' raw-data prompts; the original one gets the same, the pipeline's unedited prompts, and the
    prompts that agents refined. All replies are judged by the same metrics, beside controls that need no LLM.

    Attributes:
        validation_patients: Number of validation patients, who decide which epoch's LLM is used.
        lora: How the LLM is fine-tuned, which has to be a ``local:`` one.
    """

    validation_patients: int = 32
    lora: LoraSettings = field(default_factory=LoraSettings)

    name: ClassVar[str] = "table-2"
    packages: ClassVar[Sequence[str]] = ("pmlm-env", "numpy", "torch", "transformers", "peft")
    quick_patients: ClassVar[Mapping[Split, int]] = {"train": 8, "validation": 2, "test": 10}

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: A number is out of range, the LLM cannot be fine-tuned, or an option has no effect.
        """
        super().__post_init__()
        if not self.models.llm.startswith("local:"):
            raise ValueError(
                f"--llm {self.models.llm} cannot be fine-tuned: use a local one, such as local:smollm2-135m"
            )

    @property
    def tuning(self) -> LoraSettings:
        """How the LLM is fine-tuned: with ``quick``, in one epoch."""
        return replace(self.lora, n_epochs=1) if self.quick else self.lora

    def cells(self) -> list[dict[str, Any]]:
        """Return the runs: controls and unedited prompts, then one seed after another.

        Raises:
            ValueError: There is no such agent, or the cohort or the LLM cannot be used.
        """
        fixed = [{"row": row, "seed": 0} for row in (*CONTROLS, RAW, UNEDITED)]
        tuned = [{"row": TUNED, "seed": seed, "lora": plain(self.tuning)} for seed in range(self.n_seeds)]
        learned = sorted([*tuned, *self.agent_cells(*self.agents, RANDOM)], key=lambda cell: cell["seed"])
        same = self.identity(self.models, raw=True)
        return [{**cell, **same} for cell in [*fixed, *learned]]

    def run(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        """Get and judge the replies of one row.

        Raises:
            ValueError: The cohort has too few patients.
        """
        if cell["row"] != TUNED:
            return self.row(cell, self._judge)
        with self._judge.working():
            return self._tuned(cell["seed"])

    def table(self, runs: Sequence[Mapping[str, Any]]) -> str:
        """Return tables for each set of patients and models; see ``agents.experiments.reply_table``."""
        return reply_tables(runs, _ROWS)

    def figures(self, runs: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
        """Return the differences for the last run's patients and models; see ``agents.experiments.reply_table``."""
        return difference_figures(runs, _ROWS)

    @property
    def _judge(self) -> RealPatients:
        """The patients with both kinds of prompts."""
        return self.judge(self.pipeline, self.models, raw=True)

    def _tuned(self, seed: int) -> dict[str, Any]:
        """Fine-tune the LLM, and judge its replies to the test patients' raw-data prompts."""
        from pmlm_env.llm import load_llm
        from pmlm_env.llm.lora.training import fine_tune
        from pmlm_env.llm.lora.tunable import tunable_lm

        everybody = EpisodeSet.load(self.prepared(self.raw_pipeline))
        examples, validation = (
            [(episode.prompt, episode.reference) for episode in everybody.of(split)]
            for split in ("train", "validation")
        )
        models, tuning = self.models, self.tuning
        lm = tunable_lm(models.llm.removeprefix("local:"), models.device, rank=tuning.rank, alpha=tuning.alpha)
        folder = self.work / f"adapter-{seed}"
        fine_tune(lm, examples, validation, tuning, seed=seed).save(folder)
        llm = load_llm(models, device=models.device, cache=self.shared_calls.cache, adapter=folder)
        by_id = {episode.patient_id: episode.prompt for episode in everybody.of("test")}
        ids = [episode.patient_id for episode in self._judge.held_out]
        return {"patients": ids, **self._judge.answered([by_id[patient] for patient in ids], llm)}


def _name(cell: Mapping[str, Any]) -> str:
    """Return the name of a run's row."""
    if cell["row"] != TUNED:
        return row_name(cell)
    usual = plain(LoraSettings())
    changed = [f"{name} {value}" for name, value in cell["lora"].items() if value != usual.get(name)]
    return "**raw-data prompt, fine-tuned LLM**" + (f" ({', '.join(changed)})" if changed else "")


def _part(cell: Mapping[str, Any]) -> str:
    """Return the part of the paper's table 2 that a run's row repeats."""
    return paper.FINE_TUNED if cell["row"] == TUNED else paper.AFTER if is_learned(cell) else ""


_ROWS = Rows(_name, lambda cell: cell["row"] == TUNED, paper.TABLE_2, _part)
