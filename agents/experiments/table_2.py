"""The paper's Table 2: an LLM fine-tuned to write the reply, beside its replies to refined prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from agents import registry
from agents.benchmark.config import RAW, model_identity
from agents.evaluation.controls import CONTROLS
from agents.experiments.on_patients import QUICK_BUDGET, PatientsExperiment
from agents.experiments.rows import TUNED, UNEDITED
from agents.settings import plain
from pmlm_env.core.episodes import EpisodeSet, Split
from pmlm_env.llm.lora.settings import LoraSettings

if TYPE_CHECKING:
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
    quick_patients: ClassVar[Mapping[Split, int]] = {"train": 8, "validation": 2, "test": 4}

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

    def cells(self) -> list[dict[str, Any]]:
        """Return the runs: controls and unedited prompts, then one seed after another.

        Raises:
            ValueError: There is no such agent, or the cohort or the LLM cannot be used.
        """
        from pmlm_env.llm import load_llm

        for name in self.agents:
            registry.entry(name)
        llm = load_llm(self.models, device=self.models.device)
        same = {"patients": self.patients, "models": model_identity(self.models, llm.identity)}
        fixed = [{"row": name, "seed": 0, **same} for name in (*CONTROLS, RAW, UNEDITED)]
        budget = QUICK_BUDGET if self.quick else self.budget
        learned = [
            {"row": name, "seed": seed, **of_row, **same}
            for seed in range(self.seeds)
            for name, of_row in [
                (TUNED, {"lora": plain(self.lora)}),
                *((agent, {"budget": budget}) for agent in dict.fromkeys(self.agents)),
            ]
        ]
        return [*fixed, *learned]

    def run(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        """Get and judge the replies of one row.

        Raises:
            ValueError: The cohort has too few patients.
        """
        row, seed, patients = cell["row"], cell["seed"], self._judge
        with patients.working():
            if row == TUNED:
                found = self._tuned(seed)
            elif row == RAW:
                found = patients.raw_data()
            elif row in CONTROLS:
                found = patients.control(row)
            else:
                agent = registry.make(row, seed=seed)
                found = patients.inductive(agent, cell.get("budget", 0))
        return {"patients": found["patients"], "metrics": found["metrics"]}

    def table(self, runs: Sequence[Mapping[str, Any]]) -> str:
        """Return a table for each set of patients and models; see ``agents.experiments.reply_table``."""
        from agents.experiments.reply_table import reply_tables

        return reply_tables(runs)

    @cached_property
    def _judge(self) -> RealPatients:
        """The patients with both kinds of prompts, which are made unless an earlier run has made them."""
        from agents.benchmark.patients import RealPatients

        prepared, raw = self.prepared, self.work / "raw"
        if not raw.exists():
            self._prepare_raw(EpisodeSet.load(prepared), raw)
        return RealPatients("test", prepared, self.work / "run", self.models, self.calls, raw)

    def _prepare_raw(self, episodes: EpisodeSet, raw: Path) -> None:
        """Write raw-data prompts of the patients of some episodes."""
        from pmlm_env.io.files import replacing_folder
        from pmlm_env.prompting import InitialPrompt

        template = InitialPrompt("raw", self.pipeline.peers, self.everybody.schema)
        by_id = {patient.patient_id: patient for patient in self.everybody}
        prompts = [template.fill(e.predicted, e.peers, {}, by_id[e.patient_id]) for e in episodes]
        filled = [
            replace(e, words=prompt.texts, roles=prompt.roles, spaces=prompt.spaces)
            for e, prompt in zip(episodes, prompts, strict=True)
        ]
        with replacing_folder(raw) as folder:
            episodes.part(filled).save(folder)

    def _tuned(self, seed: int) -> dict[str, Any]:
        """Fine-tune the LLM, and judge its replies to the test patients' raw-data prompts."""
        from pmlm_env.llm import Request, load_llm
        from pmlm_env.llm.base import all_or_error
        from pmlm_env.llm.lora.training import fine_tune
        from pmlm_env.llm.lora.tunable import tunable_lm

        everybody = EpisodeSet.load(self.work / "raw")
        examples, validation = (
            [(episode.prompt, episode.reference) for episode in everybody.of(split)]
            for split in ("train", "validation")
        )
        models = self.models
        lm = tunable_lm(models.llm.removeprefix("local:"), models.device, rank=self.lora.rank, alpha=self.lora.alpha)
        folder = self.work / f"adapter-{seed}"
        fine_tune(lm, examples, validation, self.lora, seed=seed).save(folder)
        cache = self.work / "run" / "replies.sqlite"
        llm = load_llm(models, device=models.device, cache=cache, adapter=folder)
        by_id = {episode.patient_id: episode.prompt for episode in everybody.of("test")}
        ids = [episode.patient_id for episode in self._judge.held_out]
        prompts = [by_id[patient] for patient in ids]
        replies = all_or_error(llm.ask([Request(prompt) for prompt in prompts]))
        cut = [reply.finish_reason == "length" for reply in replies]
        return {"patients": ids, **self._judge.measured([reply.text for reply in replies], prompts, cut)}
