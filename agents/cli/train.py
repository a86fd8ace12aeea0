"""Train an agent: ``pmlm train``."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from agents.run_folder import RunFolder
from agents.training.config import TrainConfig
from agents.training.destination import given_again
from pmlm_env.llm.storage.location import is_url
from pmlm_env.processes import current
from pmlm_env.rewards.registry import REWARDS

Config = TrainConfig


def saved(run: Path, allow_import: bool) -> TrainConfig:
    """Return the settings of a run to resume; see ``agents.training.train.trained``.

    Where prompts go, a server for replies, and whether prompts may contain values are left out: they have to be given
    again, because a run folder may come from somebody else.
    """
    from agents.training.train import trained

    config = trained(RunFolder(run), allow_import)
    models, calls = replace(config.models, base_url=None, providers=None), replace(config.calls, send_values=False)
    if is_url(calls.cache):
        calls = replace(calls, cache=None)
    return replace(config, models=models, calls=calls)


def run(config: TrainConfig) -> int:
    """Train an agent, or print an estimate of the cost.

    Raises:
        ValueError: The settings are incompatible; see ``agents.training.train.train`` for other exceptions.
    """
    if config.allow_import and not config.resume:
        raise ValueError("--allow-import has no effect without --resume: leave it out")
    if config.dry_run:
        if config.resume:
            raise ValueError(
                "--resume has no effect with --dry-run, which estimates the cost of a whole run: leave one of them out"
            )
        from agents.training.estimate import estimate

        if current().leads:
            print(estimate(config))
        return 0
    from agents.report.training import training_summary
    from agents.training.train import train

    run = train(config)
    if not current().leads:
        return 0
    print(training_summary(run.metrics(), config.models.reward in REWARDS.builtin))
    path = shlex.quote(str(run.path))
    if run.patient_encoder.is_dir():
        print(f"The patient encoder is in {run.patient_encoder}; for `pmlm prepare`: --patient-encoder {path}")
    print(f"The checkpoint is in {run.checkpoint}. Next: pmlm evaluate --run {path}{given_again(run.settings())}")
    return 0
