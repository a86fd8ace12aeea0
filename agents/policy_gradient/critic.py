"""WordCritic: for each remaining word, the expected reward if it is deleted next."""

from __future__ import annotations

from dataclasses import replace

import torch

from agents.policies.rollout import Rollout
from agents.policies.word_policy import WordPolicy
from pmlm_env.processes import ALONE, Processes


class WordCritic:
    """Q(s, e), one number per word, from a network shaped like the policy; V(s) is its mean under the policy.

    The value of a partly edited prompt is thus computed from the words that can still be deleted; it is not a single
    output for the whole prompt.

    Args:
        policy: The policy whose sizes and lexicon are used; weights are not shared.
        learning_rate: Learning rate of Adam.
        epochs: Number of gradient steps on each batch of episodes.
        processes: Processes that learn together.

    Attributes:
        network: The network.
        optimizer: The network's Adam optimizer.
    """

    def __init__(self, policy: WordPolicy, learning_rate: float, epochs: int, processes: Processes = ALONE) -> None:
        """Initialize the critic to values close to 0."""
        device = next(policy.parameters()).device
        # Without dropout, so that the same state always has the same value.
        self.network = WordPolicy(replace(policy.config, dropout=0.0), policy.lexicon).to(device)
        self.epochs, self.processes = epochs, processes
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=learning_rate)

    @torch.no_grad()
    def values(self, rollout: Rollout, policy: WordPolicy) -> torch.Tensor:
        """Return V of every state, float32 (steps, R), computed without the policy's dropout."""
        mode = policy.training
        policy.eval()
        values = []
        for step in rollout.steps:
            probs = policy(step.observation).probs
            values.append((probs * self.network.scores(step.observation)).sum(dim=-1))
        policy.train(mode)
        return torch.stack(values)

    def learn(self, rollout: Rollout) -> float:
        """Fit Q of the deleted words to the rewards; return the mean squared error before the fit."""
        device = next(self.network.parameters()).device
        own = self.processes.share(len(rollout.valid))
        rewards, valid = rollout.rewards[own].to(device), rollout.valid[own].to(device)
        counts = [step.live & valid for step in rollout.steps]
        n = torch.stack(counts).sum()
        self.processes.add([n])
        losses = []
        for _ in range(self.epochs):
            total = torch.zeros((), device=device)
            for step, counted in zip(rollout.steps, counts, strict=True):
                value = self.network.scores(step.observation).gather(-1, step.slots[:, None]).squeeze(-1)
                total = total + torch.where(counted, (value - rewards).square(), 0.0).sum()
            loss = total / max(1, int(n))
            self.optimizer.zero_grad()
            loss.backward()
            self.processes.add_gradients(self.network.parameters())
            self.optimizer.step()
            losses.append(loss.detach())
        self.processes.add(losses[:1])
        return float(losses[0])
