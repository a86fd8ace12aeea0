"""Tune agents with equal numbers of trials: ``pmlm tune``."""

from __future__ import annotations

from agents.benchmark.config import TuneConfig

Config = TuneConfig


def run(config: TuneConfig) -> int:
    """Tune; see ``agents.benchmark.tuning.tune``."""
    from agents.benchmark.tuning import tune

    tune(config)
    return 0
