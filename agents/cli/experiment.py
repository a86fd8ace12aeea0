"""Repeat one of the paper's experiments, or an ablation: ``pmlm experiment NAME``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass

from agents.experiments import EXPERIMENTS
from agents.experiments.base import Experiment, run_experiment


class _ByName(Mapping[str, type[Experiment]]):
    """The classes of experiments, each imported when it is asked for."""

    def __getitem__(self, name: str) -> type[Experiment]:
        found = EXPERIMENTS.find(name)
        if not (isinstance(found, type) and issubclass(found, Experiment) and is_dataclass(found)):
            raise ValueError(
                f"the experiment {name} is not a dataclass and subclass of agents.experiments.base.Experiment"
            )
        return found

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and EXPERIMENTS.knows(name)

    def __iter__(self) -> Iterator[str]:
        return iter(EXPERIMENTS.names())

    def __len__(self) -> int:
        return len(EXPERIMENTS.names())


#: Experiments, whose fields are their options.
Config = _ByName()


def run(config: Experiment) -> int:
    """Run an experiment; see ``agents.experiments.base.run_experiment``."""
    run_experiment(config)
    return 0
