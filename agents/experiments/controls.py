"""What replies that need no LLM earn from each reward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from agents import registry
from agents.evaluation.bootstrap import Interval
from agents.evaluation.controls import CONTROLS
from agents.experiments.groups import by_settings, sections
from agents.experiments.on_patients import PatientsExperiment
from agents.experiments.reply_table import interval_of, level, row_name
from agents.experiments.rows import RANDOM, UNEDITED
from agents.model_options import ModelOptions
from agents.report.tables import in_points, table
from agents.settings import refuse_idle
from pmlm_env.io.text import as_text
from pmlm_env.kwargs import NO_KWARGS
from pmlm_env.rewards.base import BERTSCORE, REWARD
from pmlm_env.rewards.registry import REWARDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Controls(PatientsExperiment):
    """What replies that need no LLM earn from each reward.

    The score of each zero-call control's replies under each reward, and what they earn over the LLM's replies to the
    unedited prompts, beside random deletion and, if you name some, agents that learn from that reward. A reward is no
    measure of an agent that stays below a control.

    Attributes:
        rewards: The rewards, each as for ``pmlm train --reward``.
        agents: Agents to show beside the controls, each fitted to each reward.
    """

    rewards: tuple[str, ...] = tuple(REWARDS.builtin)
    agents: tuple[str, ...] = ()

    name: ClassVar[str] = "controls"
    packages: ClassVar[Sequence[str]] = ("pmlm-env", "numpy", "torch", "transformers")

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: A number is out of range, there is no such reward, or an option has no effect.
        """
        super().__post_init__()
        idle = dict.fromkeys(("models.reward", "models.reward_kwargs"), "--rewards names the rewards")
        refuse_idle(self, {**idle, **({} if self.agents else {"budget": "--agents names no agent that learns"})})
        for name in self.rewards:
            REWARDS.find(name)

    def cells(self) -> list[dict[str, Any]]:
        """Return the runs, one reward after another.

        Raises:
            ValueError: There is no such agent, or the cohort or the LLM cannot be used.
        """
        fixed = [{"row": row, "seed": 0} for row in CONTROLS]
        rows = [*fixed, *self.agent_cells(UNEDITED, RANDOM, *self.agents)]
        same = self.identity(self.models)
        return [{"reward": reward, **row, **same} for reward in dict.fromkeys(self.rewards) for row in rows]

    def models_of(self, cell: Mapping[str, Any]) -> ModelOptions:
        """Return the models, with the run's reward."""
        return replace(self.models, reward=cell["reward"], reward_kwargs=NO_KWARGS)

    def run(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        """Get and judge the replies of one row.

        Raises:
            ValueError: The cohort has too few patients.
        """
        found = self.row(cell, self.judge(self.pipeline, self.models_of(cell)))
        score = found["metrics"]["bertscore_f1" if cell["reward"] == BERTSCORE else REWARD]
        return {"patients": found["patients"], "deltas": found["deltas"], "scores": score}

    def table(self, runs: Sequence[Mapping[str, Any]]) -> str:
        """Return a table for each set of patients and models: a row for each control, two columns for each reward."""
        return sections(runs, lambda _, own: _table(own)) + "\n"

    def figures(self, runs: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
        """Return what each row earns from each reward, for the last run's patients and models."""
        from agents.report.figures import forest  # matplotlib takes a second to import

        earned = _intervals(next(own for _, own in by_settings(runs) if runs[-1] in own), "deltas")
        drawn = {}
        for reward in dict.fromkeys(reward for reward, _ in earned):
            rows = {name.strip("*"): i for (each, name), i in earned.items() if each == reward and i is not None}
            label = f"{reward}: minus the LLM's reply to the unedited prompt{', points' * _is_in_points(reward)}"
            drawn[reward.replace(":", ".")] = forest(rows, registry.DEFAULT, label, scale=_scale(reward))
        return drawn


def _table(runs: Sequence[Mapping[str, Any]]) -> str:
    cell, n_test = runs[0]["cell"], len(runs[0]["result"]["patients"])
    scores, earned = (_intervals(runs, what) for what in ("scores", "deltas"))
    rewards = list(dict.fromkeys(reward for reward, _ in scores))
    rows = []
    for name in dict.fromkeys(name for _, name in scores):
        shown = [name]
        for reward in rewards:
            score, delta = scores.get((reward, name)), earned.get((reward, name))
            shown += ["-" if score is None else _level(score, reward), "-" if delta is None else _change(delta, reward)]
        rows.append(shown)
    heads = [head for reward in rewards for head in (as_text(reward), f"{as_text(reward)}, earned")]
    patients, llm = cell["patients"], cell["models"]["llm"]
    return "\n\n".join(
        [
            f"{as_text(patients['cohort'])}, {as_text(llm)}: {n_test} test patients; the controls use letters of at "
            f"most {patients['train']} training patients. Scores of replies, and what they earn over the LLM's replies "
            "to the unedited prompts, with 95 % intervals over patients and seeds; of built-in rewards "
            f"({', '.join(REWARDS.builtin)}) in points.",
            table(["reply", *heads], rows),
        ]
    )


def _intervals(runs: Sequence[Mapping[str, Any]], what: str) -> dict[tuple[str, str], Interval | None]:
    """Return the means of ``scores`` or ``deltas`` by reward and row; agents are before zero-call controls."""
    found: dict[tuple[str, str], list[Any]] = {}
    for run in sorted(runs, key=lambda run: run["cell"]["row"] in CONTROLS):
        found.setdefault((run["cell"]["reward"], row_name(run["cell"])), []).append(run["result"][what])
    return {key: interval_of(np.array(values, dtype=np.float64)) for key, values in found.items()}


def _is_in_points(reward: str) -> bool:
    """Whether a reward's numbers are fractions, as those of this package are; nobody knows the unit of others."""
    return reward in REWARDS.builtin


def _scale(reward: str) -> float:
    return 100 if _is_in_points(reward) else 1


def _level(score: Interval, reward: str) -> str:
    return level(score.within(0, 1) if reward == BERTSCORE else score, _scale(reward))


def _change(delta: Interval, reward: str) -> str:
    return in_points(delta) if _is_in_points(reward) else level(delta, 1)
