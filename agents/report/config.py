"""Options of ``pmlm report``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from agents.registry import DEFAULT


@dataclass(frozen=True)
class ReportConfig:
    """Write a report of the benchmark's runs with tables and figures: ``report.md`` and ``figures/``.

    Attributes:
        results: Folder with the results; every ``runs.jsonl`` in it and its subfolders is read.
        out: Output folder; the results folder by default.
        default: Agent that the others are compared with.
        seed: Seed of the bootstrap resamples.
    """

    results: tyro.conf.Positional[Path] = Path("results")
    out: Path | None = None
    default: str = DEFAULT
    seed: int = 0
