"""Agents that choose one edit at a time, from observations alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from agents.base import Agent, Edits, ReadTensors
from agents.policies.distributions import MaskedCategorical
from agents.policies.greedy import greedy_edits
from agents.policies.lexicon import Lexicon
from agents.policies.word_policy import PolicyConfig, WordPolicy
from agents.problem import Problem, Shape
from pmlm_env.device import seeded


class PolicyAgent(Agent):
    """An agent that acts by a policy on the env's own observations, one edit per step."""

    @abstractmethod
    def player(self, shape: Shape, device: torch.device | str) -> torch.nn.Module:
        """Return the module that maps a batch of observations to a ``MaskedCategorical``; untrained before ``fit``."""

    def refine(self, problem: Problem) -> Edits:
        """Apply the most probable edit at each step; see ``Agent.refine``."""
        return greedy_edits(problem, self.player(problem.shape, problem.encoder.device))

    def act(self, observation: Mapping[str, Any]) -> int | npt.NDArray[np.int64]:
        """Choose the most probable edit.

        Args:
            observation: An observation of ``PMLM-v0`` (returns an int) or of its vector env (returns int64 (N,)), as
                arrays or tensors. An agent with a lexicon also needs ``words``, from
                ``pmlm_env.envs.wrappers.WordNumbers``. A prompt without a legal edit, whose episode is over, gets an
                arbitrary action.

        Raises:
            ValueError: The agent has not been fitted, or the observation lacks a key, or its sizes differ from those
                in training.
        """
        if self.shape is None:
            raise ValueError(f"the agent {self.name} has learned nothing yet: call fit first, or load a saved one")
        player = self.player(self.shape, "cpu")
        _check_keys(self.name, player, observation)
        device = next((weight.device for weight in player.parameters()), torch.device("cpu"))
        batch = {key: torch.as_tensor(value, device=device) for key, value in observation.items()}
        single = batch["action_mask"].ndim == 1
        if single:
            batch = {key: value[None] for key, value in batch.items()}
        legal = batch["action_mask"] != 0
        batch["action_mask"] = legal | ~legal.any(dim=-1, keepdim=True)
        player.eval()
        with torch.no_grad():
            distribution: MaskedCategorical = player(batch)
        slots = distribution.mode().cpu().numpy()
        return int(slots[0]) if single else slots


class WordPolicyAgent(PolicyAgent):
    """An agent whose policy or value network is a ``WordPolicy``.

    Attributes:
        policy: The network that is trained; None before ``fit``.
    """

    policy: WordPolicy | None = None

    @abstractmethod
    def _policy_config(self, shape: Shape) -> PolicyConfig:
        """Return the sizes and kind of the policy for problems of this shape."""

    @property
    def _has_lexicon(self) -> bool:
        return False

    @property
    def _learned_names(self) -> set[str]:
        """The names of the JSON values that ``learned`` returns."""
        return {"lexicon"} if self._has_lexicon else set()

    def player(self, shape: Shape, device: torch.device | str) -> torch.nn.Module:
        """Return the policy; see ``PolicyAgent.player``."""
        return self._policy(shape, device)

    def learned(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Return the lexicon's forms, if there is a lexicon, and the weights; see ``Agent.learned``."""
        assert self.policy is not None
        values = {} if self.policy.lexicon is None else {"lexicon": self.policy.lexicon.forms}
        return values, dict(self.policy.state_dict())

    def words(self) -> tuple[str, ...]:
        """Return the words in the lexicon; see ``Agent.words``."""
        return () if self.policy is None or self.policy.lexicon is None else self.policy.lexicon.words

    def restore(self, values: Mapping[str, Any], tensors: ReadTensors, device: str) -> None:
        """Restore the policy; see ``Agent.restore``."""
        assert self.shape is not None
        self._check_names(values, self._learned_names)
        lexicon = Lexicon.from_forms(values["lexicon"]) if self._has_lexicon else None
        with torch.device("meta"):  # names and shapes only
            policy = self._new(self.shape, lexicon, "meta")
        shapes = {name: tuple(value.shape) for name, value in policy.state_dict().items()}
        policy.load_state_dict(tensors(shapes), assign=True)
        self.policy = policy.to(device).eval()

    def _policy(self, shape: Shape, device: torch.device | str) -> WordPolicy:
        """Return the policy; untrained before ``fit``."""
        return self._new(shape, Lexicon(()), device) if self.policy is None else self.policy

    def _new(self, shape: Shape, lexicon: Lexicon | None, device: torch.device | str) -> WordPolicy:
        """Make an untrained policy, with the lexicon if the settings ask for one."""
        with seeded(self.seed):
            return WordPolicy(self._policy_config(shape), lexicon if self._has_lexicon else None).to(device)


def _check_keys(name: str, player: torch.nn.Module, observation: Mapping[str, Any]) -> None:
    """Check that an observation has all keys that a policy needs, and check-ups if it needs them.

    Raises:
        ValueError: It has not.
    """
    if getattr(player, "lexicon", None) is not None and "words" not in observation:
        raise ValueError(
            f"the agent {name} has a lexicon, and the observation no numbers of its words ('words'): wrap the env, "
            "pmlm_env.envs.wrappers.WordNumbers(env, agent.policy.lexicon)"
        )
    needed = ["action_mask"]
    if getattr(player, "observation", "embeddings") == "embeddings":
        needed += ["embeddings", "patient"]
    if missing := [key for key in needed if key not in observation]:
        raise ValueError(
            f"the observation lacks {', '.join(missing)}, which the agent {name} looks at: make the env with "
            'observation="embeddings", as it is by default'
        )
    size = player.config.checkup_size if isinstance(player, WordPolicy) else 0
    if size and observation["patient"].shape[-1] != size:
        raise ValueError(
            f"the agent {name} learned from check-ups of {size} numbers, and the observation has "
            f'{observation["patient"].shape[-1]} of the patient: make the env with patient="checkups"'
        )
