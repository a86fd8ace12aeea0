"""Run the whole method with one command: ``pmlm demo``."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from agents.cli import prepare, simulate
from agents.cli.evaluate import page_of
from agents.model_options import CallOptions, CohortFiles, ModelOptions
from agents.registry import DEFAULT
from agents.run_folder import RunFolder
from agents.settings import refuse_idle
from agents.training.config import TrainConfig, fill_in
from pmlm_env.cohort.simulator import Language, schema_in
from pmlm_env.pipeline.config import PipelineConfig
from pmlm_env.prompting import InitialPrompt
from pmlm_env.rewards.registry import REWARDS
from pmlm_env.weights import BUNDLED, CHINESE_MODEL, fetch

logger = logging.getLogger(__name__)

#: At most 224 calls in training, 224 for the single rule, and 4 x 32 = 128 in evaluation.
MAX_LLM_CALLS = 576

#: The folder of the prompts, in the run folder.
PREPARED = "prepared"


@dataclass(frozen=True)
class OwnPatients(CohortFiles):
    """Your own patients, used instead of simulated ones; see ``CohortFiles``."""

    cohort: Path | None = None  # type: ignore[assignment]


@dataclass(frozen=True)
class DemoConfig:
    """Simulate a cohort, fit stages 1 and 2, train on 32 patients, and evaluate on 32 others: at most 576 LLM calls.

    Missing LLM weights are downloaded: 491 MB for the default LLM.

    Attributes:
        files: Your own patients, used instead of simulated ones.
        language: Language of the simulated patients: ``en``, or ``zh`` for Chinese. In Chinese, the default encoder and
            scorer are the bundled LLM qwen2.5-coder-0.5b, because minilm knows English only; see docs/chinese.md.
        run: The run folder. Files of an earlier demo are replaced, except for its LLM replies, which are reused.
        train_patients: Number of patients to train on.
        test_patients: Number of patients to evaluate on.
        agent: The agent, as for ``pmlm train``; `pmlm demo --agent NAME --help` shows its settings.
        settings: The agent's own settings.
        budget: Maximum number of completions for the agent, including those for the initial prompts. The search for the
            best single rule has the same limit.
        models: The models.
        calls: How the LLM is called, and limits on spending.
        pipeline: How prompts are generated.
        seed: Seed of all random numbers.
    """

    files: OwnPatients = field(default_factory=OwnPatients)
    language: Language = "en"
    run: Path = Path("runs/demo")
    train_patients: int = 32
    test_patients: int = 32
    agent: str = DEFAULT
    settings: Any = None
    budget: int = 224
    models: ModelOptions = field(default_factory=ModelOptions)
    calls: CallOptions = field(default_factory=lambda: CallOptions(max_llm_calls=MAX_LLM_CALLS))
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        """Fill in the agent's default settings, and check the budget.

        Raises:
            ValueError: The agent is unknown, the settings belong to another agent, the budget is out of range, or an
                option has no effect.
        """
        if self.files.cohort is None:
            why = "it is for your own patients: name their folder with --cohort, or leave it out"
            refuse_idle(self, dict.fromkeys((f"files.{each.name}" for each in fields(OwnPatients)), why))
        if self.language == "zh":
            if self.files.cohort is not None:
                raise ValueError("--language is the language of simulated patients: leave it out with --cohort")
            models, english = self.models, ModelOptions()
            encoder = CHINESE_MODEL if models.encoder == english.encoder else models.encoder
            scorer = CHINESE_MODEL if models.scorer == english.scorer else models.scorer
            object.__setattr__(self, "models", replace(models, encoder=encoder, scorer=scorer))
        fill_in(self)


Config = DemoConfig


def run(config: DemoConfig) -> int:
    """Run the method, from patient records to the before / after table."""
    from pmlm_env.llm.local.model_files import find_model

    models = config.models
    wanted = {models.encoder, models.scorer, models.llm.removeprefix("local:")}
    # These raise before anything is downloaded or removed.
    InitialPrompt(config.pipeline.template, config.pipeline.peers, schema_in(config.language))
    _check_replaceable(RunFolder(config.run))
    fetch(*(name for name in BUNDLED if name in wanted))
    if models.llm.startswith("local:"):
        find_model(models.llm.removeprefix("local:"))  # raises before patients are simulated and stage 1 is fitted
    with RunFolder(config.run).locked():
        _demo(config)
    return 0


def _check_replaceable(folder: RunFolder) -> None:
    """Check that a run in the demo's folder is an earlier demo.

    Raises:
        ValueError: It is another run, or not readable, or another command uses it.
    """
    if folder.begun:
        with folder.locked():
            if folder.prepared().resolve() != (folder.path / PREPARED).resolve():
                raise ValueError(f"{folder.path} contains a run that is no demo: choose another folder with --run")


def _demo(config: DemoConfig) -> None:
    """Run the demo; the caller holds the lock on the run folder."""
    from agents.evaluation.cases import first_cases
    from agents.evaluation.config import EvaluateConfig
    from agents.evaluation.evaluate import evaluate
    from agents.models import RunModels
    from agents.report.training import training_summary
    from agents.training.train import train
    from pmlm_env.core.episodes import EpisodeSet

    started = time.perf_counter()
    folder = RunFolder(config.run)
    old_replies = folder.replies.exists()
    prepared = config.run / PREPARED
    files: CohortFiles = config.files
    if files.cohort is None:
        files = CohortFiles(config.run / "cohort")
        simulate.run(simulate.Config(files.cohort, seed=config.seed, language=config.language))
    prepare.run(
        prepare.Config(
            files,
            prepared,
            config.pipeline,
            max_train=config.train_patients,
            max_validation=0,
            max_test=config.test_patients,
            seed=config.seed,
            device=config.models.device,
        )
    )
    folder.clear()  # not before: the patients' tables may have an error
    logger.info("Stage 4: training %s on %s with %s", config.agent, config.models.encoder, config.models.llm)
    shared = RunModels(config.models, config.calls, folder, EpisodeSet.load(prepared).of("train"))
    run = train(
        TrainConfig(
            prepared,
            config.run,
            config.agent,
            config.settings,
            config.budget,
            config.models,
            config.calls,
            config.seed,
        ),
        shared,
    )
    # The run's settings are those of this command, so the classes that they name may be imported.
    evaluate(EvaluateConfig(config.run, rule_calls=config.budget, seed=config.seed, allow_import=True), shared)
    print("\n" + first_cases(run.traces.read(), 3) + "\n")
    print(page_of(config.run))
    print(training_summary(run.metrics(), config.models.reward in REWARDS.builtin))
    minutes = (time.perf_counter() - started) / 60
    again = " (replies of an earlier demo in this folder are used again)" if old_replies else ""
    print(f"{shared.budget.usage.calls} LLM calls{again}, {minutes:.1f} minutes. Everything is in {config.run}/")
