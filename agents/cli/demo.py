"""The whole method in one command: ``pmlm demo``."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.cli.prepare import CohortFiles, PrepareConfig, SimulateConfig, prepare, simulate
from agents.evaluation.cases import first_cases
from agents.evaluation.evaluate import EvaluateConfig, evaluate
from agents.model_options import CallOptions, ModelOptions
from agents.models import RunModels
from agents.policy_gradient.config import ReinforceConfig
from agents.run_folder import RunFolder
from agents.training.config import TrainConfig
from agents.training.summary import training_summary
from agents.training.train import check_effects, train
from pmlm_env.pipeline import PipelineConfig
from pmlm_env.prompting import InitialPrompt
from pmlm_env.weights import BUNDLED, fetch

logger = logging.getLogger(__name__)

#: Calls: 32 + 6 x 8 x 4 = 224 in training at most, as many for the single rule, 4 x 32 = 128 in evaluation.
MAX_LLM_CALLS = 576


@dataclass(frozen=True)
class DemoConfig:
    """Simulate a cohort, fit stages 1 and 2, train on 32 patients, and judge on 32 others: at most 576 LLM calls.

    The LLM's weights are fetched where they are missing: 491 MB with the default.

    Attributes:
        cohort: A folder with one's own patients instead of simulated ones (see ``pmlm prepare --help``).
        run: The run folder; what is there of an earlier demo is replaced, but for the LLM's replies, which are used.
        train_patients: Patients to train on.
        test_patients: Patients to judge on.
        models: The models.
        calls: How the LLM is asked, and what may be spent.
        learner: How the policy learns.
        pipeline: How prompts are made.
        seed: Draws everything that is drawn.
    """

    cohort: Path | None = None
    run: Path = Path("runs/demo")
    train_patients: int = 32
    test_patients: int = 32
    models: ModelOptions = field(default_factory=ModelOptions)
    calls: CallOptions = field(default_factory=lambda: CallOptions(max_llm_calls=MAX_LLM_CALLS))
    learner: ReinforceConfig = field(default_factory=lambda: ReinforceConfig(updates=6))
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)
    seed: int = 0


def demo(config: DemoConfig) -> dict[str, Any]:
    """Run the method from records to the before / after table."""
    settings = TrainConfig(
        episodes=config.run / "prepared",
        run=config.run,
        models=config.models,
        calls=config.calls,
        learner=config.learner,
        seed=config.seed,
    )
    check_effects(settings)
    models = config.models
    wanted = {models.encoder, models.scorer, models.llm.removeprefix("local:")}
    InitialPrompt(config.pipeline.template, config.pipeline.peers)  # refused before anything is fetched or removed
    fetch(*(name for name in BUNDLED if name in wanted))
    with RunFolder(config.run).locked():
        return _demo(config, settings)


def _demo(config: DemoConfig, settings: TrainConfig) -> dict[str, Any]:
    """Run it in a folder that is this process's own."""
    started = time.perf_counter()
    folder = RunFolder(config.run)
    folder.clear()
    old_replies = folder.replies.exists()
    cohort = config.cohort
    if cohort is None:
        cohort = config.run / "cohort"
        simulate(SimulateConfig(cohort, seed=config.seed))
    prepare(
        PrepareConfig(
            CohortFiles(cohort),
            settings.episodes,
            config.pipeline,
            max_train=config.train_patients,
            max_validation=0,
            max_test=config.test_patients,
            seed=config.seed,
            device=config.models.device,
        )
    )
    logger.info("Stage 4: training on %s with %s", config.models.encoder, config.models.llm)
    bench = RunModels(config.models, config.calls, folder)
    run = train(settings, bench)
    learner = config.learner
    asked = (learner.patients or config.train_patients) * learner.rollouts * learner.updates + config.train_patients
    evaluation = evaluate(EvaluateConfig(config.run, rule_calls=asked, seed=config.seed), bench)
    print("\n" + first_cases(evaluation, 3) + "\n")
    print(training_summary(run.metrics()))
    minutes = (time.perf_counter() - started) / 60
    again = " (replies of an earlier demo in this folder are used again)" if old_replies else ""
    print(f"{bench.budget.usage.calls} LLM calls{again}, {minutes:.1f} minutes. Everything is in {config.run}/")
    return evaluation
