"""An agent of one's own, as a user would write it, in a module and in an installed package."""

from __future__ import annotations

from pathlib import Path

#: A module that leaves a trace where it is imported: an empty file beside it.
MODULE = '''
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agents.base import Agent
from agents.settings import Integers
from pmlm_env.core.edits import deletions

Path(__file__).with_suffix(".imported").touch()


@dataclass(frozen=True)
class FirstWordsConfig:
    """Settings.

    Attributes:
        skip: Number of words at the beginning that are not deleted.
    """

    skip: int = 2


class FirstWords(Agent):
    """Deletes the first words of each prompt."""

    Config = FirstWordsConfig
    space = {"skip": Integers(0, 4)}
    lite = {"skip": 1}
    learns = False
    seeded = False
    needs_embeddings = False

    def fit(self, problem):
        self.shape = problem.shape

    def refine(self, problem):
        legal = problem.batch(range(len(problem.episodes))).legal
        slots = [np.flatnonzero(row)[self.config.skip :][: problem.n_edits].tolist() for row in legal]
        return [deletions(episode, each) for episode, each in zip(problem.episodes, slots)]
'''


def write_module(folder: Path, name: str = "stranger", text: str = MODULE) -> Path:
    """Write the module, and return the file that is there once it was imported."""
    (folder / f"{name}.py").write_text(text)
    return folder / f"{name}.imported"


def install(folder: Path, name: str, path: str) -> None:
    """Let an installed package have an agent: ``name`` stands for the class at ``path``."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[pmlm.agents]\n{name} = {path}\n")
