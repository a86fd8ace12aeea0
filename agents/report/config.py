"""Settings of ``pmlm report``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from agents.registry import DEFAULT


@dataclass(frozen=True)
class ReportConfig:
    """Make a report of the benchmark's runs, with tables and figures: ``report.md`` and ``figures/``.

    Attributes:
        results: The folder of the runs: every ``runs.jsonl`` in it and below is read.
        out: The folder of the report; by default that of the runs.
        default: The agent that the others are compared with.
        seed: Seeds the bootstraps' resamples.
    """

    results: tyro.conf.Positional[Path] = Path("results")
    out: Path | None = None
    default: str = DEFAULT
    seed: int = 0
