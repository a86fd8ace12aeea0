"""PolicyAgent: an agent that chooses edit after edit, from what it observes alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from agents.base import Agent, Edits
from agents.policies.distributions import MaskedCategorical
from agents.policies.greedy import greedy_edits
from agents.problem import Problem, Shape


class PolicyAgent(Agent):
    """An agent that is a policy: it plays the env's own observations, one edit a step."""

    @abstractmethod
    def player(self, shape: Shape, device: torch.device | str) -> torch.nn.Module:
        """Return what turns a batch of observations into a ``MaskedCategorical``; an untrained one before ``fit``."""

    def refine(self, problem: Problem) -> Edits:
        """Make the most probable edit at each step; see ``Agent.refine``."""
        return greedy_edits(problem, self.player(problem.shape, problem.encoder.device))

    def act(self, observation: Mapping[str, Any]) -> int | npt.NDArray[np.int64]:
        """Choose the most probable edit.

        Args:
            observation: Of ``PMLM-v0`` (an int is returned), or of its vector env (int64 (N,)); arrays or tensors.

        Raises:
            ValueError: The agent has not been fitted, or the observation has other sizes than in training.
        """
        if self.shape is None:
            raise ValueError(f"the agent {self.name} has learned nothing yet: call fit first, or load a saved one")
        player = self.player(self.shape, "cpu")
        device = next((weight.device for weight in player.parameters()), torch.device("cpu"))
        batch = {key: torch.as_tensor(value, device=device) for key, value in observation.items()}
        single = batch["action_mask"].ndim == 1
        if single:
            batch = {key: value[None] for key, value in batch.items()}
        player.eval()
        with torch.no_grad():
            distribution: MaskedCategorical = player(batch)
        slots = distribution.mode().cpu().numpy()
        return int(slots[0]) if single else slots
