"""The paper's Table A1: predictors of the label on the same patients, with the costs of each."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from agents.experiments.base import Experiment
from agents.experiments.digest import values_digest
from agents.experiments.fresh_process import in_fresh_process, peak_memory
from agents.experiments.rows import LLM, MAJORITY, ROWS
from agents.settings import check_count, refuse_idle
from pmlm_env.cohort import Cohort, Split, read_cohort, split_by_date
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.kwargs import Kwargs, read_kwargs

logger = logging.getLogger(__name__)

Data = Literal["simulated-paper", "simulated-literature"]

#: Simulated patients, as in the paper; and with ``quick``, where ROCKET has few kernels and the LLM learns little.
_ALL, _FEW = 2373, 300
_FEW_KWARGS = {"rocket": {"n_kernels": 100}, LLM: {"max_patients": 24, "max_tokens": 300, "n_epochs": 1}}

_LORA_KWARGS = Kwargs({"max_patients": 600})

_MOST_SEEDS = 1_000

#: What a cohort of one's own is split by: arguments of ``split_by_date``.
_CUTS = ("train_until", "validation_until", "by")


@dataclass(frozen=True)
class TableA1(Experiment):
    """The paper's Table A1: predictors of the label on the same patients, with calibration, time and memory.

    Predictors are fitted to the training patients, calibrated by a temperature on the validation patients, and judged
    on the test patients. Each run is a process of its own.

    Attributes:
        rows: The predictors: rows of the table, or a predictor's name as in ``pmlm prepare --predictor``.
        data: Simulated cohorts, with --quick only the first; a seed draws the patients and the models.
        cohort: A cohort's folder, as for ``pmlm prepare``, besides the simulated ones; a seed draws the models. The
            table has its name, and the file of runs has its test patients' labels without their ids.
        labs_file: Name of the cohort's long table of check-ups, if it differs from the default.
        keep_later: Use check-ups after a patient's index date, too.
        train_until: Last day of the cohort's training patients.
        validation_until: Last day of its validation patients; later patients are test.
        split_by: ``split_date``, or the name of another date column of its patients' table.
        seeds: Number of seeds, starting at 0.
        lora_seeds: Number of seeds of the row lora-llm, which comes last because it takes hours; 0 = leave it out.
        lora_kwargs: Arguments of the predictor lora-llm, as JSON.
    """

    rows: tuple[str, ...] = (*ROWS, LLM)
    data: tuple[Data, ...] = ("simulated-paper", "simulated-literature")
    cohort: Path | None = None
    labs_file: str | None = None
    keep_later: bool = False
    train_until: str = "2021-12-31"
    validation_until: str = "2022-06-30"
    split_by: str = "split_date"
    seeds: int = 5
    lora_seeds: int = 1
    lora_kwargs: Kwargs = _LORA_KWARGS

    name: ClassVar[str] = "table-a1"
    packages: ClassVar[Sequence[str]] = ("pmlm-env", "numpy", "scikit-learn", "torch", "aeon")

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: A number is out of range, an option has no effect, or arguments are not JSON values.
        """
        read_kwargs(self)
        check_count("seeds", self.seeds, _MOST_SEEDS)
        if self.lora_seeds:
            check_count("lora-seeds", self.lora_seeds, _MOST_SEEDS)
        if self.quick:
            refuse_idle(self, {"seeds": "--quick uses one seed", "lora_seeds": "--quick uses one seed"})
        if LLM not in self.rows:
            refuse_idle(self, dict.fromkeys(("lora_seeds", "lora_kwargs"), f"--rows does not have {LLM}"))
        elif not self.lora_seeds:
            refuse_idle(self, {"lora_kwargs": "--lora-seeds 0 leaves it out"})
        if self.cohort is None:
            of_cohort = ("labs_file", "keep_later", "train_until", "validation_until", "split_by")
            refuse_idle(self, dict.fromkeys(of_cohort, "it is an option of --cohort, which is not given"))

    def cells(self) -> list[dict[str, Any]]:
        """Return the runs, one seed after another, so that an incomplete table still treats predictors equally.

        Raises:
            ValueError: There is no such predictor, or it does not take its arguments, or the cohort cannot be read.
        """
        sources: list[dict[str, Any]] = [
            {"data": name, "patients": _FEW if self.quick else _ALL}
            for name in dict.fromkeys(self.data[:1] if self.quick else self.data)
        ]
        if self.cohort is not None:
            own = _read(self.cohort, self.labs_file, self.keep_later)
            cuts = {"train_until": self.train_until, "validation_until": self.validation_until, "by": self.split_by}
            _check(split_by_date(own, **cuts), self.cohort)
            sources.append({"data": self.cohort.resolve().name, "sha256": values_digest(own), **cuts})
        light = [_row(name) for name in dict.fromkeys(self.rows) if name != LLM]
        heavy = [_llm(self.lora_kwargs)] if LLM in self.rows and self.lora_seeds and _has_peft() else []
        cells = []
        for rows, n_seeds in ((light, 1 if self.quick else self.seeds), (heavy, self.lora_seeds)):
            for seed in range(n_seeds):
                for source in sources:
                    for predictor, kwargs in rows:
                        few = _FEW_KWARGS.get(predictor, {}) if self.quick else {}
                        cells.append({**source, "predictor": predictor, "kwargs": {**kwargs, **few}, "seed": seed})
        return cells

    def run(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        """Fit and judge a predictor in a process of its own.

        Raises:
            ValueError: The predictor cannot be made or fitted.
        """
        return in_fresh_process(_fit_and_judge, dict(cell), self.cohort, self.labs_file, self.keep_later)

    def table(self, runs: Sequence[Mapping[str, Any]]) -> str:
        """Return a table for each cohort; see ``agents.experiments.predictor_table``."""
        from agents.experiments.predictor_table import predictor_tables

        return predictor_tables(runs)


class Majority:
    """Predicts the frequencies of the labels among the training patients for everybody."""

    def fit(self, cohort: Cohort) -> Majority:
        """Count the labels."""
        labels, counts = np.unique(cohort.y, return_counts=True)
        self.labels, self._frequencies = tuple(map(str, labels)), counts / counts.sum()
        return self

    def predict_proba(self, cohort: Cohort) -> npt.NDArray[np.float64]:
        """Return the frequencies for each patient, shape (N, n_labels)."""
        return self._frequencies[None].repeat(len(cohort), axis=0)


def _row(name: str) -> tuple[str, Mapping[str, Any]]:
    """Return a row's predictor and its arguments.

    Raises:
        ValueError: There is no such row, and no such predictor.
    """
    from pmlm_env.predictors import PREDICTORS

    if name in ROWS:
        return ROWS[name]
    if not PREDICTORS.knows(name):
        raise ValueError(
            f"there is no row {name!r}: use {', '.join((*ROWS, LLM))}, or a predictor as package.module:Class"
        )
    PREDICTORS.find(name)  # raises if its class is not complete
    return name, {}


def _llm(kwargs: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the row ``LLM``, whose arguments are checked now, and not after hours of other runs.

    Raises:
        ValueError: The predictor does not take them.
    """
    from pmlm_env.predictors import PREDICTORS

    PREDICTORS.make(LLM, kwargs=kwargs)
    return LLM, kwargs


def _has_peft() -> bool:
    if find_spec("peft") is None:
        logger.warning("The row %s is left out: it needs peft (pip install 'pmlm-env[lora]')", LLM)
        return False
    return True


def _read(folder: Path, labs_file: str | None, keep_later: bool) -> Cohort:
    """Read a cohort without the patients who have no label.

    Raises:
        CohortError: It cannot be read.
    """
    cohort, _ = read_cohort(folder, labs=labs_file, references=False, keep_later=keep_later)
    return cohort.take(np.flatnonzero(cohort.y != ""))


def _check(split: Split, folder: Path) -> None:
    """Check that there is something to learn from and to judge by.

    Raises:
        ValueError: There is not.
    """
    for name, part, which in (("training", split.train, "up to"), ("test", split.test, "after")):
        if not len(part):
            option = "--train-until" if name == "training" else "--validation-until"
            raise ValueError(f"{folder} has no {name} patient with a label ({which} {option}): move the cuts")


def _split(cell: Mapping[str, Any], folder: Path | None, labs_file: str | None, keep_later: bool) -> Split:
    """Return the patients of a run.

    Raises:
        ValueError: The cohort is no longer that of the run.
    """
    if folder is not None and "sha256" in cell:
        own = _read(folder, labs_file, keep_later)
        if values_digest(own) != cell["sha256"]:
            raise ValueError(f"{folder} has changed since the command began: run it again")
        return split_by_date(own, **{name: cell[name] for name in _CUTS})
    signal = cell["data"].removeprefix("simulated-")
    return split_by_date(simulate_cohort(cell["patients"], seed=cell["seed"], signal=signal))


def _fit_and_judge(
    cell: dict[str, Any], folder: Path | None, labs_file: str | None, keep_later: bool
) -> dict[str, Any]:
    """Do a run in this process.

    Time is that of this process on the processor, so that other processes on the machine do not count.
    """
    from pmlm_env.predictors import PREDICTORS, evaluate
    from pmlm_env.predictors.calibration import at_temperature, fit_temperature

    split = _split(cell, folder, labs_file, keep_later)
    name, kwargs, offered = cell["predictor"], cell["kwargs"], {"seed": cell["seed"]}
    predictor = Majority() if name == MAJORITY else PREDICTORS.make(name, kwargs=kwargs, offered=offered)
    started = time.process_time()
    predictor.fit(split.train)
    fitted = time.process_time()
    proba = predictor.predict_proba(split.test)
    predicted = time.process_time()
    temperature = fit_temperature(predictor.predict_proba(split.validation), predictor.labels, split.validation.y)
    proba = at_temperature(proba, temperature)
    report = evaluate(proba, predictor.labels, split.test.y, split.train.y)
    names = sorted({*predictor.labels, *split.test.y.tolist()})
    return {
        "patients": {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)},
        "micro_f1": report.micro_f1,
        "macro_f1": report.macro_f1,
        "calibration_error": report.calibration_error,
        "brier": report.brier,
        "temperature": temperature,
        "fit_seconds": fitted - started,
        "predict_seconds": predicted - fitted,
        "peak_mb": peak_memory(),
        "labels": names,
        "truth": np.searchsorted(names, split.test.y).tolist(),
        "predicted": np.searchsorted(names, np.array(predictor.labels)[proba.argmax(axis=1)]).tolist(),
    }
