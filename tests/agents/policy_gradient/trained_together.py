"""Trainers of every kind on made-up prompts, by as many processes as there are: ``python -m ... FOLDER``.

Their networks compute in float64: Adam turns a gradient of nearly 0 into a step of full length, so that in float32 some
weights depend on the order in which gradients are summed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import save_file

from agents import registry
from agents.policies.word_policy import WordPolicy
from agents.policy_gradient.agent import PolicyGradient
from agents.policy_gradient.progress import trainer_progress
from pmlm_env.processes import current, finish, start
from tests.problems import make_problem
from tests.standins import FORM

N_UPDATES = 4

#: The agents, with settings. The processes have different numbers of rows, and one group of rollouts is divided.
AGENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "leave-one-out": ("leave-one-out", {"patients": 5, "rollouts": 3}),
    "reinforce, whose dropout is 0.4": ("reinforce", {"patients": None, "rollouts": 1}),
    "actor-critic": ("actor-critic", {"patients": 5, "rollouts": 3}),
    "sparsemax": ("sparsemax", {"patients": 5, "rollouts": 3}),
    "lexicon": ("lexicon", {"patients": 5, "rollouts": 3}),
    "lexicon and network": ("leave-one-out", {"patients": 5, "rollouts": 3, "lexicon": True}),
    "learned patient encoder": ("reinforce", {"patients": 7, "rollouts": 1, "patient_vector": "learned"}),
}


class _Exact(WordPolicy):
    """Computes in float64, apart from what it returns."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.double()

    def scores(self, observation: Mapping[str, torch.Tensor]) -> torch.Tensor:
        exact = {name: x.double() if x.is_floating_point() else x for name, x in observation.items()}
        return super().scores(exact).float()


@patch("agents.policies.agent.WordPolicy", _Exact)
@patch("agents.policy_gradient.critic.WordPolicy", _Exact)
def trained(name: str) -> tuple[dict[str, torch.Tensor], list[list[float]]]:
    """Train an agent; return its state, with those of optimizers and generators, and the figures of each update."""
    agent_name, changes = AGENTS[name]
    agent = registry.make(agent_name, registry.settings_of(agent_name, changes=changes), seed=3)
    assert isinstance(agent, PolicyGradient)
    agent.begin(make_problem(limit=10_000, n=7, form=FORM if "patient_vector" in changes else None))
    figures = []
    for _ in range(N_UPDATES):
        found = agent.update()
        assert found is not None
        figures.append(list(found.values()))
    return trainer_progress(agent._trainer)[1], figures


if __name__ == "__main__":
    start()
    for name in AGENTS:
        tensors, figures = trained(name)
        save_file({**tensors, "figures": torch.tensor(figures)}, Path(sys.argv[1], f"{name} {current().rank}"))
    finish()
