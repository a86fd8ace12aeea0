"""Settings of ``pmlm report``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from agents.registry import DEFAULT


@dataclass(frozen=True)
class ReportConfig:
    """Put the benchmark's runs into tables and pictures: ``report.md`` and ``figures/``.

    Attributes:
        results: Where the runs are: every ``runs.jsonl`` in this folder and below is read.
        out: Where the report goes; by default where the runs are.
        default: The agent that the others are compared with.
        seed: Draws the bootstraps' resamples.
    """

    results: tyro.conf.Positional[Path] = Path("results")
    out: Path | None = None
    default: str = DEFAULT
    seed: int = 0
