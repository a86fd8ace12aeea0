"""Options of ``pmlm report``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from agents.registry import DEFAULT
from agents.settings import refuse_idle


@dataclass(frozen=True)
class ReportConfig:
    """Write a page for the browser, ``report.html``: of a run, of a benchmark, or of experiments.

    Of a benchmark it also writes and prints ``report.md``, with its figures in ``figures/``. A page is one file, which
    opens from disk and loads nothing from the network. Pages of a run, and of experiments if ``cases`` is one of
    them, have patients' texts.

    Attributes:
        results: Folder with the results of `pmlm benchmark`, of which every ``runs.jsonl`` in it and its subfolders is
            read, or of `pmlm experiment`.
        out: Output folder; the results folder by default.
        default: Agent that the others are compared with.
        seed: Seed of the bootstrap resamples.
        run: A run folder, instead of results: write its page again, from what `pmlm evaluate` found.
    """

    results: tyro.conf.Positional[Path] = Path("results")
    out: Path | None = None
    default: str = DEFAULT
    seed: int = 0
    run: Path | None = None

    def __post_init__(self) -> None:
        """Check that every option has an effect.

        Raises:
            ValueError: An option has no effect.
        """
        if self.run is not None:
            if self.results != Path("results"):
                raise ValueError(f"the folder {self.results} has no effect beside --run: give one of them")
            refuse_idle(self, dict.fromkeys(("out", "default", "seed"), "the page of --run needs none: leave it out"))
