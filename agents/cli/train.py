"""Train an agent: ``pmlm train``."""

from __future__ import annotations

import shlex
from pathlib import Path

from agents.training.config import TrainConfig

Config = TrainConfig


def saved(run: Path) -> TrainConfig:
    """Return the settings of a run to resume.

    Raises:
        ValueError: The folder contains no run, or its ``config.json`` is damaged or from another version.
    """
    from agents.run_folder import RunFolder
    from agents.training.train import trained

    return trained(RunFolder(run))


def run(config: TrainConfig) -> int:
    """Train an agent, or print an estimate of the cost.

    Raises:
        ValueError: The settings are incompatible; see ``agents.training.train.train`` for other exceptions.
    """
    if config.dry_run:
        if config.resume:
            raise ValueError("--resume has no effect with --dry-run, which is about whole runs: leave one of them out")
        from agents.training.estimate import estimate

        print(estimate(config))
        return 0
    from agents.report.training import training_summary
    from agents.training.train import train

    run = train(config)
    print(training_summary(run.metrics()))
    print(f"The checkpoint is in {run.checkpoint}. Next: pmlm evaluate --run {shlex.quote(str(run.path))}")
    return 0
