"""The paper's Table 2: an LLM fine-tuned to write the reply, beside its replies to refined prompts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from agents import registry
from agents.benchmark.config import RAW, model_identity
from agents.evaluation.controls import CONTROLS
from agents.experiments.base import Experiment
from agents.experiments.digest import cohort_digest
from agents.experiments.rows import TUNED, UNEDITED
from agents.model_options import CallOptions, CohortFiles, ModelOptions
from agents.settings import plain, refuse_idle
from agents.training.config import MOST_COMPLETIONS, check_count
from pmlm_env.cohort import Cohort
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.episodes import Split as SplitName
from pmlm_env.llm.lora.settings import LoraSettings
from pmlm_env.pipeline.config import PipelineConfig

if TYPE_CHECKING:
    from agents.benchmark.patients import RealPatients

_SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")

#: With ``quick``: simulated patients; patients to learn from, to validate and to test on; completions.
_QUICK_COHORT, _QUICK, _QUICK_BUDGET = 150, {"train": 8, "validation": 2, "test": 4}, 16

_MOST = 100_000


@dataclass(frozen=True)
class Table2(Experiment):
    """The paper's Table 2: an LLM fine-tuned to write the reply, beside its replies to refined prompts.

    The LLM is fine-tuned with LoRA on pairs of a raw-data prompt and the doctor's reply. Then the fine-tuned LLM gets
    the test patients' raw-data prompts; the original one gets the same, the pipeline's unedited prompts, and the
    prompts that agents refined. All replies are judged by the same metrics, beside controls that need no LLM.

    Attributes:
        cohort: A folder with your own patients, used instead of simulated ones (see ``pmlm prepare --help``).
        agents: Agents that refine prompts, as for ``pmlm train``.
        train_patients: Number of training patients, for the LLM and the agents.
        validation_patients: Number of validation patients, who decide which epoch's LLM is used.
        test_patients: Number of test patients.
        budget: Completions for fitting an agent.
        seeds: Number of seeds of the LLM's fine-tuning and of the agents, starting at 0.
        pipeline: How the pipeline's prompts are generated.
        lora: How the LLM is fine-tuned.
        models: The models; the LLM has to be a ``local:`` one.
        calls: Limits on the calls of the LLM.
    """

    cohort: Path | None = None
    agents: tuple[str, ...] = (registry.DEFAULT,)
    train_patients: int = 200
    validation_patients: int = 32
    test_patients: int = 64
    budget: int = 600
    seeds: int = 1
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)
    lora: LoraSettings = field(default_factory=LoraSettings)
    models: ModelOptions = field(default_factory=ModelOptions)
    calls: CallOptions = field(default_factory=CallOptions)

    name: ClassVar[str] = "table-2"
    packages: ClassVar[Sequence[str]] = ("pmlm-env", "numpy", "torch", "transformers", "peft")

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: A number is out of range, the LLM cannot be fine-tuned, or an option has no effect.
        """
        for name in ("train_patients", "validation_patients", "test_patients", "seeds"):
            check_count(name.replace("_", "-"), getattr(self, name), _MOST)
        check_count("budget", self.budget, MOST_COMPLETIONS)
        if not self.models.llm.startswith("local:"):
            raise ValueError(
                f"--llm {self.models.llm} cannot be fine-tuned: use a local one, such as local:smollm2-135m"
            )
        if self.quick:
            fixed = ("train_patients", "validation_patients", "test_patients", "budget", "seeds")
            refuse_idle(self, dict.fromkeys(fixed, "--quick has its own"))

    def cells(self) -> list[dict[str, Any]]:
        """Return the runs: controls and unedited prompts, then one seed after another.

        Raises:
            ValueError: There is no such agent, or the cohort or the LLM cannot be used.
        """
        from pmlm_env.llm import load_llm

        for name in self.agents:
            registry.entry(name)
        llm = load_llm(self.models, device=self.models.device)
        same = {"patients": self._patients, "models": model_identity(self.models, llm.identity)}
        fixed = [{"row": name, "seed": 0, **same} for name in (*CONTROLS, RAW, UNEDITED)]
        budget = _QUICK_BUDGET if self.quick else self.budget
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
    def _patients(self) -> dict[str, Any]:
        """What determines the patients and their prompts, as JSON values."""
        given = {"train": self.train_patients, "validation": self.validation_patients, "test": self.test_patients}
        source = (
            {"cohort": "simulated-paper", "n": len(self._cohort)}
            if self.cohort is None
            else {"cohort": self.cohort.resolve().name, "sha256": cohort_digest(self._cohort)}
        )
        return {**source, **(_QUICK if self.quick else given), "pipeline": plain(self.pipeline)}

    @cached_property
    def _cohort(self) -> Cohort:
        if self.cohort is not None:
            return CohortFiles(self.cohort).read()[0]
        return simulate_cohort(_QUICK_COHORT) if self.quick else simulate_cohort()

    @cached_property
    def _work(self) -> Path:
        """The folder of these patients' prompts, of the LLM's replies, and of what it learned."""
        digest = hashlib.sha256(json.dumps(self._patients, sort_keys=True).encode()).hexdigest()[:12]
        return self.out / self.name / f"work-{digest}"

    @cached_property
    def _judge(self) -> RealPatients:
        """The patients with both kinds of prompts, which are made unless an earlier run has made them."""
        from agents.benchmark.patients import RealPatients

        prepared, raw = self._work / "prepared", self._work / "raw"
        if not raw.exists():
            self._prepare(prepared, raw)
        return RealPatients("test", prepared, self._work / "run", self.models, self.calls, raw)

    def _prepare(self, prepared: Path, raw: Path) -> None:
        """Write the pipeline's prompts, and raw-data prompts of the same patients.

        Raises:
            ValueError: There is no patient to learn from, to validate or to test on.
        """
        from pmlm_env.io.files import replacing_folder
        from pmlm_env.pipeline import build_episodes
        from pmlm_env.prompting import InitialPrompt

        limits: dict[SplitName, int | None] = {name: self._patients[name] for name in _SPLITS}
        episodes, _, pipeline = build_episodes(self._cohort, self.pipeline, limits=limits, device=self.models.device)
        usable = {episode.split for episode in episodes if episode.label and episode.reference}
        if lacking := [name for name in _SPLITS if name not in usable]:
            cuts = f"--train-until {self.pipeline.train_until} --validation-until {self.pipeline.validation_until}"
            raise ValueError(f"the cohort has no {lacking[0]} patient with a label and a reply ({cuts}): move the cuts")
        with replacing_folder(prepared) as folder:
            episodes.save(folder)
            pipeline.save(folder / "pipeline")
        template = InitialPrompt("raw", self.pipeline.peers, self._cohort.schema)
        by_id = {patient.patient_id: patient for patient in self._cohort}
        prompts = [template.fill(e.predicted, e.peers, {}, by_id[e.patient_id]) for e in episodes]
        filled = [
            replace(e, words=prompt.texts, roles=prompt.roles, spaces=prompt.spaces)
            for e, prompt in zip(episodes, prompts, strict=True)
        ]
        with replacing_folder(raw) as folder:
            EpisodeSet(filled, episodes.known_labels).save(folder)

    def _tuned(self, seed: int) -> dict[str, Any]:
        """Fine-tune the LLM, and judge its replies to the test patients' raw-data prompts."""
        from pmlm_env.llm import Request, load_llm
        from pmlm_env.llm.base import all_or_error
        from pmlm_env.llm.lora.training import fine_tune
        from pmlm_env.llm.lora.tunable import tunable_lm

        everybody = EpisodeSet.load(self._work / "raw")
        examples, validation = (
            [(episode.prompt, episode.reference) for episode in everybody.of(split)]
            for split in ("train", "validation")
        )
        models = self.models
        lm = tunable_lm(models.llm.removeprefix("local:"), models.device, rank=self.lora.rank, alpha=self.lora.alpha)
        folder = self._work / f"adapter-{seed}"
        fine_tune(lm, examples, validation, self.lora, seed=seed).save(folder)
        cache = self._work / "run" / "replies.sqlite"
        llm = load_llm(models, device=models.device, cache=cache, adapter=folder)
        by_id = {episode.patient_id: episode.prompt for episode in everybody.of("test")}
        ids = [episode.patient_id for episode in self._judge.held_out]
        prompts = [by_id[patient] for patient in ids]
        replies = all_or_error(llm.ask([Request(prompt) for prompt in prompts]))
        cut = [reply.finish_reason == "length" for reply in replies]
        return {"patients": ids, **self._judge.measured([reply.text for reply in replies], prompts, cut)}
