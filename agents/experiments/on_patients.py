"""The base class of experiments in which agents refine the prompts of a cohort's test patients."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, get_args

from agents import registry
from agents.experiments.base import Experiment
from agents.experiments.digest import cohort_digest
from agents.model_options import CallOptions, CohortFiles, ModelOptions
from agents.settings import plain, refuse_idle
from agents.training.config import MOST_COMPLETIONS, check_count
from pmlm_env.cohort import Cohort
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.core.episodes import Split
from pmlm_env.pipeline.config import PipelineConfig

#: With ``quick``: simulated patients, and completions for fitting an agent.
_QUICK_COHORT, QUICK_BUDGET = 150, 16

_MOST = 100_000


@dataclass(frozen=True)
class PatientsExperiment(Experiment):
    """An experiment in which agents learn from training patients' prompts and refine those of test patients.

    Attributes:
        cohort: A folder with your own patients, used instead of simulated ones (see ``pmlm prepare --help``).
        agents: Agents that refine prompts, as for ``pmlm train``.
        train_patients: Number of training patients.
        test_patients: Number of test patients.
        budget: Completions for fitting an agent.
        seeds: Number of seeds of the agents, and of whatever else is learned; they start at 0.
        pipeline: How the pipeline's prompts are generated.
        models: The models.
        calls: Limits on the calls of the LLM.
    """

    cohort: Path | None = None
    agents: tuple[str, ...] = (registry.DEFAULT,)
    train_patients: int = 200
    test_patients: int = 64
    budget: int = 600
    seeds: int = 1
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)
    models: ModelOptions = field(default_factory=ModelOptions)
    calls: CallOptions = field(default_factory=CallOptions)

    #: With ``quick``: the number of patients of each split.
    quick_patients: ClassVar[Mapping[Split, int]]

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: A number is out of range, or an option has no effect.
        """
        counts = [f"{split}_patients" for split in self.quick_patients]
        for name in (*counts, "seeds"):
            check_count(name.replace("_", "-"), getattr(self, name), _MOST)
        check_count("budget", self.budget, MOST_COMPLETIONS)
        if self.quick:
            refuse_idle(self, dict.fromkeys((*counts, "budget", "seeds"), "--quick has its own"))

    @property
    def limits(self) -> dict[str, int]:
        """The number of patients of each split."""
        return {
            split: quick if self.quick else getattr(self, f"{split}_patients")
            for split, quick in self.quick_patients.items()
        }

    @cached_property
    def patients(self) -> dict[str, Any]:
        """What determines the patients and their prompts, as JSON values."""
        source = (
            {"cohort": "simulated-paper", "n": len(self.everybody)}
            if self.cohort is None
            else {"cohort": self.cohort.resolve().name, "sha256": cohort_digest(self.everybody)}
        )
        return {**source, **self.limits, "pipeline": plain(self.pipeline)}

    @cached_property
    def everybody(self) -> Cohort:
        """The cohort."""
        if self.cohort is not None:
            return CohortFiles(self.cohort).read()[0]
        return simulate_cohort(_QUICK_COHORT) if self.quick else simulate_cohort()

    @cached_property
    def work(self) -> Path:
        """The folder of these patients' prompts, of the LLM's replies, and of what was learned."""
        digest = hashlib.sha256(json.dumps(self.patients, sort_keys=True).encode()).hexdigest()[:12]
        return self.out / self.name / f"work-{digest}"

    @cached_property
    def prepared(self) -> Path:
        """The folder of the pipeline's prompts, which are made unless an earlier run has made them.

        Raises:
            ValueError: A split has no patient with a label and a reply.
        """
        from pmlm_env.io.files import replacing_folder
        from pmlm_env.pipeline import build_episodes

        target = self.work / "prepared"
        if target.exists():
            return target
        limits: dict[Split, int | None] = {split: self.limits.get(split, 0) for split in get_args(Split)}
        episodes, _, pipeline = build_episodes(self.everybody, self.pipeline, limits=limits, device=self.models.device)
        usable = {episode.split for episode in episodes if episode.label and episode.reference}
        if lacking := [name for name in self.limits if name not in usable]:
            cuts = f"--train-until {self.pipeline.train_until} --validation-until {self.pipeline.validation_until}"
            raise ValueError(f"the cohort has no {lacking[0]} patient with a label and a reply ({cuts}): move the cuts")
        with replacing_folder(target) as folder:
            episodes.save(folder)
            pipeline.save(folder / "pipeline")
        return target
