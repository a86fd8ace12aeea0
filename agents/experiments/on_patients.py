"""The base class of experiments in which agents refine the prompts of a cohort's test patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import cycle, islice
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from agents import registry
from agents.benchmark.config import RAW, model_identity
from agents.evaluation.bootstrap import FEWEST
from agents.evaluation.controls import CONTROLS
from agents.experiments.base import Experiment
from agents.experiments.cost import Load, cost_text
from agents.experiments.digest import cohort_digest, digest
from agents.model_options import CallOptions, CohortFiles, ModelOptions
from agents.run_folder import RunFolder
from agents.settings import check_count, plain, refuse_idle
from agents.training.config import MOST_COMPLETIONS
from pmlm_env.cohort import Cohort
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.cohort.split import PAPER_CUTS, SPLIT_DATE
from pmlm_env.core.episodes import Split
from pmlm_env.core.words import Prompt
from pmlm_env.io.files import locked_file, make_folder, replacing_folder, write
from pmlm_env.llm import load_llm
from pmlm_env.llm.specs import system_prompt_of
from pmlm_env.llm.storage.budget import Account
from pmlm_env.llm.storage.location import is_worker
from pmlm_env.pipeline.config import PipelineConfig
from pmlm_env.prompting import TEMPLATES, InitialPrompt

if TYPE_CHECKING:
    from agents.benchmark.patients import RealPatients

#: With ``quick``: simulated patients, and completions for fitting an agent.
_QUICK_COHORT, QUICK_BUDGET = 150, 16

_MOST = 100_000

#: The fields of a template that stages 1 and 2 fill, by the role of the parts that they belong into.
_OF_STAGE = {"self": {"predicted", "probabilities"}, "peer": {"peers", "k"}}


@dataclass(frozen=True)
class PatientsExperiment(Experiment):
    """An experiment in which agents learn from training patients' prompts and refine those of test patients.

    All experiments with the same output folder share their prompts (OUT/prepared) and replies (OUT/replies.sqlite).

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
    seeds: int = 3
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)
    models: ModelOptions = field(default_factory=ModelOptions)
    calls: CallOptions = field(default_factory=CallOptions)

    #: With ``quick``: the number of patients of each split; ten test patients are the fewest with an interval.
    quick_patients: ClassVar[Mapping[Split, int]] = {"train": 8, "test": FEWEST}

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
    def limits(self) -> Mapping[Split, int]:
        """The number of patients of each split."""
        return {
            split: quick if self.quick else getattr(self, f"{split}_patients")
            for split, quick in self.quick_patients.items()
        }

    @property
    def n_seeds(self) -> int:
        """The number of seeds."""
        return 1 if self.quick else self.seeds

    def budget_of(self, agent: str) -> int:
        """Return how many completions an agent learns from; 0 if it does not learn.

        Raises:
            ValueError: There is no such agent.
        """
        if not registry.class_of(agent).learns:
            return 0
        return QUICK_BUDGET if self.quick else self.budget

    def models_of(self, cell: Mapping[str, Any]) -> ModelOptions:
        """Return the models of a run: those of the options by default."""
        return self.models

    def pipeline_of(self, cell: Mapping[str, Any]) -> PipelineConfig:
        """Return how a run's prompts are made, for the estimate of what it costs: by default as the options say."""
        return self.raw_pipeline if cell.get("row") == RAW else self.pipeline

    def n_calls(self, cell: Mapping[str, Any]) -> int:
        """Return the most calls of the LLM that a run makes.

        By default a run is a row of ``rows_of``: a control needs none, and another row one reply for each test patient
        besides the agent's budget. Replies to the untouched prompts count for the row ``keep-all`` alone.
        """
        if cell["row"] in CONTROLS:
            return 0
        return int(cell.get("budget", 0)) + self.limits["test"] * self.models.n_samples

    def calls_made(self) -> int:
        """Return how many calls of the LLM all runs have made so far."""
        return Account(path=RunFolder(self.work / "run").spending).usage.calls

    def estimate(self, missing: Sequence[Mapping[str, Any]], done: Sequence[Mapping[str, Any]]) -> str:
        """Return what runs cost at most; see ``agents.experiments.cost``."""
        loads, lengths = [], {}
        for cell in missing:
            pipeline = self.pipeline_of(cell)
            if (key := digest(plain(pipeline))) not in lengths:
                lengths[key] = len(self.longest_prompt(pipeline).text.encode())
            models = self.models_of(cell)
            sent = lengths[key] + len(system_prompt_of(models).encode())
            loads.append(Load(models, self.n_calls(cell), sent))
        return cost_text(loads, done)

    @cached_property
    def origin(self) -> dict[str, Any]:
        """What determines the patients and their prompts, as JSON values."""
        source = (
            {"cohort": "simulated-paper", "n": len(self.everybody)}
            if self.cohort is None
            else {"cohort": self.cohort.resolve().name, "sha256": cohort_digest(self.everybody)}
        )
        counts = {str(split): n for split, n in self.limits.items()}
        return {**source, **counts, "pipeline": self._described(self.pipeline)}

    def identity(self, models: ModelOptions, *, raw: bool = False) -> dict[str, Any]:
        """Return the patients and models of a run, for its cell.

        Args:
            models: The models.
            raw: Whether the LLM gets raw-data prompts, which contain laboratory values.

        Raises:
            ValueError: The cohort or the LLM cannot be used, or the values must not be sent to it.
        """
        llm = load_llm(models, device=models.device)
        if raw and llm.is_remote and not (self.calls.send_values or self.calls.replay):
            raise ValueError(
                f"{self.name} sends raw-data prompts, which contain laboratory values, to {models.llm} on another "
                "machine: allow it with --send-values"
            )
        return {"patients": self.origin, "models": model_identity(models, llm.identity)}

    @cached_property
    def everybody(self) -> Cohort:
        """The cohort."""
        if self.cohort is not None:
            return CohortFiles(self.cohort).read()[0]
        return simulate_cohort(_QUICK_COHORT) if self.quick else simulate_cohort()

    @cached_property
    def work(self) -> Path:
        """The folder of the record of spending, and of what was learned from these patients."""
        return self.out / self.name / f"work-{digest(self.origin)}"

    def prepared(self, pipeline: PipelineConfig) -> Path:
        """Return the folder of a pipeline's prompts, which are made unless an earlier run has made them.

        All pipelines have the same patients in the same splits.

        Raises:
            ValueError: A split has no patient with a label and a reply, or another command is making these prompts.
        """
        from pmlm_env.pipeline import build_episodes

        target = self.out / "prepared" / digest({**self.origin, "pipeline": self._described(pipeline)})
        with locked_file(target, wait=is_worker()):  # for the other workers of the command
            if target.exists():
                return target
            limits: dict[Split, int | None] = {split: self.limits.get(split, 0) for split in get_args(Split)}
            episodes, report, fitted = build_episodes(
                self.everybody, pipeline, limits=limits, device=self.models.device
            )
            usable = {episode.split for episode in episodes if episode.label and episode.reference}
            if lacking := [name for name in self.limits if name not in usable]:
                raise ValueError(
                    f"the cohort has no {lacking[0]} patient with a label and a reply (split: {report.split}): move "
                    "the cuts (--train-until, --validation-until), or split otherwise (--split-by)"
                )
            with replacing_folder(target) as folder:
                episodes.save(folder)
                fitted.save(folder / "pipeline")
        return target

    def without(self, role: Literal["self", "peer"]) -> PipelineConfig:
        """Return the pipeline's settings with a template that lacks what stage 1 (``self``) or 2 (``peer``) found.

        Raises:
            ValueError: The template has no part of that role, or what the stage found in a part of another role.
        """
        text = self.template_without(role)
        file = self.out / "prepared" / f"without-{role}-{digest(text)}.txt"
        make_folder(file.parent)
        write(file, text)
        return replace(self.pipeline, template=str(file))

    def template_without(self, role: Literal["self", "peer"]) -> str:
        """Return the text of that template; see ``without``."""
        template = InitialPrompt(self.pipeline.template, self.pipeline.peers, self.everybody.schema)
        rest = [(each, text) for each, text in template.parts if each != role]
        fields = {field for _, text in rest for _, field, _, _ in Formatter().parse(text) if field}
        if found := sorted(fields & _OF_STAGE[role]):
            raise ValueError(
                f"template {template.name}: {{{found[0]}}} is in a part that is not of the role {role}, so it cannot "
                "be left out: use a template with a part of its own for it"
            )
        if len(rest) == len(template.parts):
            raise ValueError(f"template {template.name} has no part of the role {role}, so it cannot be left out")
        return "\n".join(f"{each}:{text}" for each, text in rest)

    def judge(self, pipeline: PipelineConfig, models: ModelOptions, *, raw: bool = False) -> RealPatients:
        """Return the patients with a pipeline's prompts, and the models that judge them.

        The latest one is kept, because it holds the LLM's weights: do runs with the same models one after another.

        Args:
            pipeline: How the prompts are made.
            models: The models.
            raw: Whether raw-data prompts of the same patients are needed, too.
        """
        from agents.benchmark.patients import RealPatients

        key = digest({"pipeline": self._described(pipeline), "models": plain(models), "raw": raw})
        if key not in self._judges:
            self._judges.clear()
            self._judges[key] = RealPatients(
                "test",
                self.prepared(pipeline),
                self.work / "run",
                models,
                self.shared_calls,
                self.prepared(self.raw_pipeline) if raw else None,
            )
        return self._judges[key]

    @property
    def raw_pipeline(self) -> PipelineConfig:
        """The pipeline's settings for raw-data prompts."""
        return replace(self.pipeline, template="raw")

    @property
    def shared_calls(self) -> CallOptions:
        """Limits on the calls of the LLM, with the file of replies that all experiments of the output folder share."""
        return replace(self.calls, cache=self.calls.cache or str(self.out / "replies.sqlite"))

    @cached_property
    def _judges(self) -> dict[str, RealPatients]:
        """The latest of ``judge``, by what it is made of."""
        return {}

    def row(self, cell: Mapping[str, Any], patients: RealPatients) -> dict[str, Any]:
        """Get and judge the replies of a row of a table: the cell's ``row``, with its ``seed`` and ``budget``.

        Args:
            cell: The run. Its row is a zero-call control, ``raw-data`` (unedited raw-data prompts), or an agent, such
                as ``keep-all`` (unedited prompts).
            patients: The patients, with raw-data prompts if the row needs them.

        Returns:
            Their ids, what the replies earn over those to the unedited prompts, and all metrics, as JSON values.
        """
        row = cell["row"]
        with patients.working():
            if row == RAW:
                found = patients.raw_data()
            elif row in CONTROLS:
                found = patients.control(row)
            else:
                found = patients.inductive(registry.make(row, seed=cell["seed"]), cell.get("budget", 0))
        return {name: found[name] for name in ("patients", "deltas", "metrics")}

    def agent_cells(self, *agents: str) -> list[dict[str, Any]]:
        """Return the rows of agents, one seed after another; an agent without randomness has one seed.

        Raises:
            ValueError: There is no such agent.
        """
        kinds = {name: registry.class_of(name) for name in agents}
        return [
            {"row": name, "seed": seed, **({"budget": self.budget_of(name)} if kind.learns else {})}
            for seed in range(self.n_seeds)
            for name, kind in kinds.items()
            if seed == 0 or kind.seeded
        ]

    def _described(self, pipeline: PipelineConfig) -> dict[str, Any]:
        """Return a pipeline's settings as JSON values; of a template that is a file, its name and content.

        Where the split is that of the paper by default, it has the paper's cuts, as in runs of earlier versions.
        """
        settings = plain(pipeline)
        usual = dict(zip(("train_until", "validation_until", "split_by"), (*PAPER_CUTS, SPLIT_DATE), strict=True))
        if pipeline.split_by in (None, SPLIT_DATE):
            settings |= {name: value for name, value in usual.items() if settings[name] is None}
        if pipeline.template in TEMPLATES:
            return settings
        template = InitialPrompt(pipeline.template, pipeline.peers, self.everybody.schema)
        return {**settings, "template": Path(pipeline.template).name, "template_sha256": digest(template.text)}

    def longest_prompt(self, pipeline: PipelineConfig) -> Prompt:
        """Return a prompt that no prompt of a pipeline exceeds in length.

        Raises:
            ValueError: No patient has a label.
        """
        template = InitialPrompt(pipeline.template, pipeline.peers, self.everybody.schema)
        labels = sorted({*self.everybody.y} - {""}, key=len, reverse=True)
        if not labels:
            raise ValueError("no patient of the cohort has a label: add labels to the patients' table")
        peers = list(islice(cycle(labels), pipeline.k))
        probabilities, likeness = dict.fromkeys(labels, 1.0), [1.0] * pipeline.k
        everybody = self.everybody if template.of_records else self.everybody.take([0])
        prompts = (template.fill(labels[0], peers, probabilities, patient, likeness) for patient in everybody)
        return max(prompts, key=lambda prompt: len(prompt.text.encode()))
