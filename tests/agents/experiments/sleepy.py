"""An experiment of one's own, whose run takes long, and what runs in processes of their own."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from agents.experiments.base import Experiment
from agents.experiments.fresh_process import in_fresh_process, peak_memory


@dataclass(frozen=True)
class Sleepy(Experiment):
    """Sleeps.

    Attributes:
        nap: Seconds to sleep.
    """

    nap: float = 600.0

    name: ClassVar[str] = "sleepy"
    packages: ClassVar[Sequence[str]] = ("numpy",)

    def cells(self) -> list[dict[str, Any]]:
        return [{"seed": seed} for seed in range(2)]

    def run(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        return in_fresh_process(sleep, self.out / "pid", self.nap if cell["seed"] else 0.0)

    def table(self, runs: Sequence[Mapping[str, Any]]) -> str:
        return f"{len([run['result']['slept'] for run in runs])} naps\n"


def sleep(file: Path, seconds: float) -> dict[str, Any]:
    if seconds:
        file.write_text(str(os.getpid()))
    time.sleep(seconds)
    return {"slept": seconds}


def memory_with(megabytes: int) -> float:
    assert np.ones(megabytes * 125_000).sum() == megabytes * 125_000
    return peak_memory()


def fail(how: str) -> None:
    if how == "exit":
        os._exit(9)
    raise ValueError("it cannot be done")
