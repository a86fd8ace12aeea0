"""The paper's Figure 6: how often each position of the prompts is deleted at each step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from agents import registry
from agents.experiments.judged import common_words, edited, words_of
from agents.experiments.on_patients import PatientsExperiment
from agents.experiments.rows import ECHO, UNEDITED
from pmlm_env.core.episodes import EpisodeSet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Number of positions, as in the paper.
POSITIONS = 100


@dataclass(frozen=True)
class Figure6(PatientsExperiment):
    """The paper's Figure 6: how often each of the first 100 word positions is deleted at each step, on test patients.

    Random deletion is beside the agents, and the tables show which words stand at the positions that each agent
    deletes most often.

    Attributes:
        agents: Agents that refine prompts, a heat map for each.
    """

    agents: tuple[str, ...] = (registry.DEFAULT, "random-n")

    name: ClassVar[str] = "figure-6"
    packages: ClassVar[Sequence[str]] = ("pmlm-env", "numpy", "torch", "transformers")

    def cells(self) -> list[dict[str, Any]]:
        """Return the runs: the echo and the untouched prompts, then the agents, one seed after another.

        Raises:
            ValueError: There is no such agent, or the cohort or the LLM cannot be used.
        """
        fixed = [{"row": row, "seed": 0} for row in (ECHO, UNEDITED)]
        same = self.identity(self.models)
        agents = [name for name in dict.fromkeys(self.agents) if name != UNEDITED]
        return [{**cell, **same} for cell in [*fixed, *self.agent_cells(*agents)]]

    def run(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        """Let an agent edit the prompts, and judge the replies; the run of the untouched prompts also has their words.

        Raises:
            ValueError: The cohort has too few patients.
        """
        patients = self.judge(self.pipeline, self.models)
        found = edited(cell, patients)
        return {**found, "positions": positions(patients.held_out)} if cell["row"] == UNEDITED else found

    def table(self, runs: Sequence[Mapping[str, Any]]) -> str:
        """Return the tables for each set of patients and models; see ``agents.experiments.position_table``."""
        from agents.experiments.position_table import position_tables

        return position_tables(runs)

    def figures(self, runs: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
        """Return the heat maps of the last run's patients and models; see ``agents.experiments.position_table``."""
        from agents.experiments.position_table import position_figures

        return position_figures(runs)


def positions(episodes: EpisodeSet) -> list[list[Any]]:
    """Return what stands at each of the first positions of some prompts.

    Returns:
        For each position the most common role, the most common word of that role, or None if it occurs in few prompts
        and may be a patient's own, and the number of prompts that have this word there.
    """
    prompts = words_of(episodes)
    common = set(common_words(prompts))
    found: list[list[Any]] = []
    for position in range(min(POSITIONS, episodes.max_words)):
        there = [words[position] for words in prompts if position < len(words)]
        role = Counter(role for _, role in there).most_common(1)[0][0]
        (word, n) = Counter(word for word, of_word in there if of_word == role).most_common(1)[0]
        found.append([role, word if (word, role) in common else None, n])
    return found
