"""QAgent: learning what each deletion is worth, with the mask wherever a value is taken.

Two kinds share the replay and the network, which is ``WordPolicy``'s: double DQN (van Hasselt et al. 2016), and soft
Q-learning by path consistency as in RLPrompt (Deng et al. 2022; Guo et al. 2022).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from agents.base import Agent, Deletions
from agents.policies.distributions import MaskedCategorical
from agents.policies.greedy import greedy_deletions
from agents.policies.rollout import play
from agents.policies.word_policy import PolicyConfig, WordPolicy
from agents.problem import Problem
from agents.q_learning.config import QConfig
from agents.q_learning.replay import Replay
from pmlm_env.device import seeded


class QAgent(Agent):
    """Learns values from a replay of all its episodes.

    A reward counts in standard deviations from the mean of those that the same patient's prompts got before, for some
    patients are easier than others.
    """

    Config = QConfig
    config: QConfig
    _network: WordPolicy | None = None

    def fit(self, problem: Problem) -> None:
        """Learn until the budget is spent; see ``Agent.fit``."""
        config, meter = self.config, problem.reward
        # Prompts asked about before are free, and greedy play repeats itself: there must be an end to that.
        total = config.episodes if meter.limit is None else 2 * int(meter.left) // meter.per_prompt
        network = self._network = self._new(problem)
        learner = _Learner(network, config)
        env = problem.env(config.rows)
        replay = Replay(env.task)
        patients, draws = np.random.default_rng(self.seed), torch.Generator(env.task.encoder.device)
        draws.manual_seed(self.seed)
        n_patients, whole = config.rows // config.rollouts, meter.left
        for played in range(0, total, config.rows):
            spent = played / total if meter.limit is None else max(played / total, 1 - meter.left / whole)
            chosen = patients.choice(len(problem.episodes), n_patients, replace=n_patients > len(problem.episodes))
            episodes = np.repeat(chosen, config.rollouts).tolist()
            rollout = play(env, _Player(network, config, spent), episodes, draws, masked=config.masked)
            for episode, info, reward, valid in zip(
                episodes, rollout.infos, rollout.rewards, rollout.valid, strict=True
            ):
                if valid:
                    replay.add(episode, tuple(edit.slot for edit in info["edits"]), float(reward))
            if len(replay):
                for _ in range(config.gradient_steps):
                    learner.step(replay, patients)

    def refine(self, problem: Problem) -> Deletions:
        """Delete the most valued words in turn; see ``Agent.refine``."""
        network = self._new(problem) if self._network is None else self._network
        return greedy_deletions(problem, _Player(network, self.config, 1.0))

    def _new(self, problem: Problem) -> WordPolicy:
        """Make a network that knows nothing."""
        shape = PolicyConfig(
            problem.encoder.hidden_size,
            problem.episodes.vectors.shape[1],
            self.config.hidden,
            normalize=self.config.normalize,
            positions=problem.max_words if self.config.positions else 0,
        )
        with seeded(self.seed):
            return WordPolicy(shape).to(problem.encoder.device)


class _Player(nn.Module):
    """A network as ``play`` takes it: what is drawn while it learns; the most probable word is the most valued one.

    Args:
        network: Values words.
        config: Settings.
        spent: Which part of the budget is.
    """

    def __init__(self, network: WordPolicy, config: QConfig, spent: float) -> None:
        super().__init__()
        self.network, self.config = network, config
        falls = 1.0 if config.exploration == 0 else min(1.0, spent / config.exploration)
        self.epsilon = config.epsilon + (config.final_epsilon - config.epsilon) * falls

    def forward(self, observation: Mapping[str, torch.Tensor]) -> MaskedCategorical:
        scores, legal = self.network.scores(observation), observation["action_mask"] != 0
        if self.config.kind == "soft":
            return MaskedCategorical(scores / self.config.temperature, legal)
        best = MaskedCategorical(scores, legal).mode()
        uniform = legal / legal.sum(dim=-1, keepdim=True)
        mixed = (1 - self.epsilon) * nn.functional.one_hot(best, legal.shape[1]) + self.epsilon * uniform
        return MaskedCategorical(mixed.log(), legal)


class _Learner:
    """A network, its slow copy, and the losses of both kinds."""

    def __init__(self, network: WordPolicy, config: QConfig) -> None:
        self.network, self.config = network, config
        self.target = copy.deepcopy(network).requires_grad_(False)
        self.optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)

    def step(self, replay: Replay, rng: np.random.Generator) -> None:
        """Take one gradient step on episodes drawn from the replay."""
        drawn = rng.integers(len(replay), size=self.config.batch_size)
        loss = self.soft_loss(replay, drawn) if self.config.kind == "soft" else self.dqn_loss(replay, drawn, rng)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        self.optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(self.target.parameters(), self.network.parameters(), strict=True):
                slow.lerp_(fast, self.config.target_rate)

    def dqn_loss(self, replay: Replay, drawn: np.ndarray[Any, Any], rng: np.random.Generator) -> torch.Tensor:
        """Squared error of Q(s_t, a_t) for one t of each episode.

        The target is the return, or, if the episode goes on after ``n_step`` steps,
        Q_target(s_{t+n}, argmax over legal a of Q(s_{t+n}, a)).
        """
        lengths = replay.lengths(drawn)
        at = rng.integers(lengths)
        observation = replay.observe(drawn, at)
        slots = torch.as_tensor(replay.slots(drawn, at), device=observation["action_mask"].device)
        values = self.network.scores(observation).gather(-1, slots[:, None]).squeeze(-1)
        targets = torch.as_tensor(replay.returns(drawn), dtype=values.dtype, device=values.device)
        later = at + self.config.n_step
        if (goes_on := later < lengths).any():
            ahead = replay.observe(drawn[goes_on], later[goes_on])
            with torch.no_grad():
                best = MaskedCategorical(self.network.scores(ahead), self._legal(ahead)).mode()
                ahead_values = self.target.scores(ahead).gather(-1, best[:, None]).squeeze(-1)
            targets[torch.as_tensor(goes_on, device=values.device)] = ahead_values
        return nn.functional.mse_loss(values, targets)

    def soft_loss(self, replay: Replay, drawn: np.ndarray[Any, Any]) -> torch.Tensor:
        """Multi-step path consistency (Guo et al. 2022), which holds of the best soft policy from any step on.

            V(s_t) + temperature * sum over l >= t of log pi(a_l | s_l) = return

        Squared error of it with V from the slow copy, and again with pi from the slow copy.
        """
        lengths = replay.lengths(drawn)
        rows = np.repeat(np.arange(len(drawn)), lengths)
        at = np.concatenate([np.arange(length) for length in lengths])
        observation = replay.observe(drawn[rows], at)
        slots = torch.as_tensor(replay.slots(drawn[rows], at), device=observation["action_mask"].device)
        value, path = self._path(self.network, observation, slots, rows, at)
        with torch.no_grad():
            slow_value, slow_path = self._path(self.target, observation, slots, rows, at)
        returns = torch.as_tensor(replay.returns(drawn)[rows], dtype=value.dtype, device=value.device)
        return ((returns - slow_value - path) ** 2 + (returns - value - slow_path) ** 2).mean()

    def _path(
        self, network: WordPolicy, observation: dict[str, torch.Tensor], slots: torch.Tensor, rows: Any, at: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return V(s_t), and temperature times the log-probability of all that follows, for each step."""
        temperature, legal = self.config.temperature, self._legal(observation)
        scores = network.scores(observation) / temperature
        value = temperature * scores.masked_fill(~legal, torch.finfo(scores.dtype).min).logsumexp(dim=-1)
        log_probs = scores.new_zeros(int(rows.max()) + 1, int(at.max()) + 1)
        log_probs[rows, at] = MaskedCategorical(scores, legal).log_prob(slots)
        path = log_probs.flip(1).cumsum(1).flip(1)
        return value, temperature * path[rows, at]

    def _legal(self, observation: dict[str, torch.Tensor]) -> torch.Tensor:
        mask = observation["action_mask"] != 0
        return mask if self.config.masked else torch.ones_like(mask)
