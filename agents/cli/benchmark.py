"""Compare agents with equal budgets: ``pmlm benchmark``."""

from __future__ import annotations

from agents.benchmark.config import BenchmarkConfig

Config = BenchmarkConfig


def run(config: BenchmarkConfig) -> int:
    """Run the benchmark; see ``agents.benchmark.runner.benchmark``."""
    from agents.benchmark.runner import benchmark

    benchmark(config)
    return 0
