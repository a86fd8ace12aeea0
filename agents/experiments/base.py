"""The base class of experiments, and the loop that does an experiment's missing runs."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tqdm import tqdm

from agents.benchmark.config import LLM_IDENTITY
from agents.benchmark.runs_file import complete_runs, put_in_order, versions
from agents.cluster.options import ClusterOptions
from agents.cluster.pool import finished
from agents.report.page.results_page import write_results_page
from pmlm_env.io.files import append, locked, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Experiment(ABC):
    """An experiment: independent runs, and a table of their results. Its fields are its command-line options.

    Attributes:
        out: Output folder: the runs are in OUT/NAME/runs.jsonl, the table is in OUT/NAME/table.md, figures beside it.
        quick: Few patients and small models, to see within minutes whether everything works; not for results.
        dry_run: Print the runs that are missing and the most that they may cost, and do nothing else.
        cluster: Where runs are done.
    """

    out: Path = field(default=Path("results"), kw_only=True)
    quick: bool = field(default=False, kw_only=True)
    dry_run: bool = field(default=False, kw_only=True)
    cluster: ClusterOptions = field(default_factory=ClusterOptions, kw_only=True)

    #: Its name, for the output folder.
    name: ClassVar[str]

    #: Packages whose versions are recorded with each run.
    packages: ClassVar[Sequence[str]]

    @abstractmethod
    def cells(self) -> list[dict[str, Any]]:
        """Return the runs, in the order in which they are done.

        Each is described by all that determines its result, as JSON values: a run that the file has is not repeated.

        Raises:
            ValueError: An option is wrong, or a file cannot be read.
        """

    @abstractmethod
    def run(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        """Do a run, and return its result as JSON values.

        Raises:
            ValueError: It cannot be done.
        """

    @abstractmethod
    def table(self, runs: Sequence[Mapping[str, Any]]) -> str:
        """Return a Markdown table of all complete runs, each with its ``cell`` and its ``result``."""

    def n_calls(self, cell: Mapping[str, Any]) -> int:
        """Return the most calls of the LLM that a run makes; 0 by default."""
        return 0

    def calls_made(self) -> int:
        """Return how many calls of the LLM all runs have made so far, as recorded in the output folder."""
        return 0

    def estimate(self, missing: Sequence[Mapping[str, Any]], done: Sequence[Mapping[str, Any]]) -> str:
        """Return what runs cost at most, for ``dry_run``; "" by default.

        Args:
            missing: The runs.
            done: The complete runs, as lines of the file.
        """
        return ""

    def figures(self, runs: Sequence[Mapping[str, Any]]) -> Mapping[str, Figure]:
        """Return figures of all complete runs, by name, each for a file OUT/NAME/FIGURE.svg; none by default."""
        return {}


def run_experiment(experiment: Experiment) -> None:
    """Do the runs that are not in the file yet, and write the table of all that are.

    Raises:
        ValueError: An option is wrong, a file cannot be read, another command uses the folder, or the file of runs is
            damaged.
    """
    folder, cells = experiment.out / experiment.name, experiment.cells()
    with nullcontext() if experiment.dry_run and not folder.exists() else locked(folder):
        _run_experiment(experiment, cells, folder)


def _run_experiment(experiment: Experiment, cells: list[dict[str, Any]], folder: Path) -> None:
    """Do the missing ones of the runs; the caller holds the lock on the folder."""
    file = folder / "runs.jsonl"
    done = complete_runs(file, _run_key, f"pmlm experiment {experiment.name}")
    missing = [cell for cell in cells if _key(_recorded(cell, done)) not in done]
    if experiment.dry_run:
        if missing:
            print(_listed(missing))
        print(f"missing runs: {len(missing)}, complete ones: {len(done)}")
        if missing and (cost := experiment.estimate(missing, list(done.values()))):
            print(cost)
        return
    here = ExperimentRuns(experiment, cells)
    # A copy holds what the options say, and nothing that this process has read or computed from them.
    recipe = ExperimentRuns, (replace(experiment),)
    try:
        with tqdm(total=len(missing), unit="run", dynamic_ncols=True) as bar:

            def begun(cell: Mapping[str, Any]) -> None:
                bar.set_postfix_str(", ".join(str(value) for value in cell.values() if not isinstance(value, dict)))

            results = finished(deque(missing), here, *recipe, experiment.cluster, begun, [folder])
            with closing(results):
                for cell, line in results:
                    append(file, json.dumps(line, ensure_ascii=False))
                    done[_key(cell)] = line
                    bar.update()
        done = put_in_order(file, done, [_key(_recorded(cell, done)) for cell in cells])
    finally:  # also if the command is stopped
        if done:
            runs = list(done.values())
            write(folder / "table.md", _table(experiment, runs, file))
            for name, figure in experiment.figures(runs).items():
                _save(figure, folder / f"{name}.svg")
            write_results_page(experiment.out, experiment.out)
    where = f"table: {folder / 'table.md'}" if done else "the options leave nothing to run"
    print(f"new runs: {len(missing)}, earlier ones: {len(done) - len(missing)}; {where}")


class ExperimentRuns:
    """Does runs of an experiment, in the command's process or in a worker; see ``agents.cluster.worker.Runs``.

    Args:
        experiment: The experiment.
        cells: All its runs; by default they are found out.

    Attributes:
        identity: A digest of the descriptions of all runs, which include their patients and models.
    """

    def __init__(self, experiment: Experiment, cells: Sequence[Mapping[str, Any]] | None = None) -> None:
        """Find out what the runs are."""
        self._experiment = experiment
        described = [_key(cell) for cell in (experiment.cells() if cells is None else cells)]
        self.identity = {"runs": hashlib.sha256("\n".join(described).encode()).hexdigest()}

    def __call__(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        """Do a run, and return its line of the file.

        With several workers, the calls of its line include those of other runs meanwhile. Hours are estimated from
        seconds and calls, and that makes them those of so many workers.
        """
        started, before = time.perf_counter(), self._experiment.calls_made()
        result = self._experiment.run(cell)
        return {
            "cell": cell,
            "result": result,
            "seconds": round(time.perf_counter() - started, 1),
            "calls": self._experiment.calls_made() - before,
            "versions": versions(self._experiment.packages),
        }


def _table(experiment: Experiment, runs: Sequence[Mapping[str, Any]], file: Path) -> str:
    """Return the experiment's table.

    Raises:
        ValueError: The file has a run of another experiment or version.
    """
    try:
        return experiment.table(runs)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        logger.debug("traceback", exc_info=True)
        raise ValueError(
            f"{file} has a run from which no table can be made ({type(error).__name__}: {error}): remove the lines "
            f"that this version of `pmlm experiment {experiment.name}` did not write"
        ) from error


def _save(figure: Figure, path: Path) -> None:
    from agents.report.figures import save  # matplotlib takes a second to import

    save(figure, path)


def _run_key(line: Mapping[str, Any]) -> str:
    """Return what identifies the run of a line.

    Raises:
        ValueError: The line has no cell or no result.
    """
    if not (isinstance(line["cell"], dict) and isinstance(line["result"], dict)):
        raise ValueError
    return _key(line["cell"])


def _recorded(cell: Mapping[str, Any], done: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a run's description as in the file: an older version left out the LLM's identity."""
    older = _without_identity(cell)
    return older if _key(cell) not in done and _key(older) in done else cell


def _without_identity(cell: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_identity(value) if isinstance(value, dict) else value
        for name, value in cell.items()
        if name != LLM_IDENTITY
    }


def _listed(cells: Sequence[Mapping[str, Any]]) -> str:
    """Return a line for each run with what it does not share with all others, and one with what all share, as JSON."""
    shared = _shared(cells) if len(cells) > 1 else {}
    lines = [_key(_rest(cell, shared)) for cell in cells]
    return "\n".join([*lines, *([f"all of them: {_key(shared)}"] if shared else [])])


def _shared(tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    shared = {}
    for key, value in tables[0].items():
        values: list[Any] = [table.get(key) for table in tables]
        if all(other == value for other in values):
            shared[key] = value
        elif all(isinstance(other, dict) for other in values) and (of_all := _shared(values)):
            shared[key] = of_all
    return shared


def _rest(table: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in table.items() if key not in shared or value != shared[key]}
    return {key: _rest(value, shared[key]) if key in shared else value for key, value in rest.items()}


def _key(cell: Mapping[str, Any]) -> str:
    return json.dumps(cell, sort_keys=True, ensure_ascii=False)
