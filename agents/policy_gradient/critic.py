"""WordCritic: what the reward will be if a word goes now, for each word that is left."""

from __future__ import annotations

from dataclasses import replace

import torch

from agents.policies.rollout import Rollout
from agents.policies.word_policy import WordPolicy


class WordCritic:
    """Q(s, e) by a network of the policy's own shape, one number a word; V(s) is its mean under the policy.

    The value of a prompt half edited is thus judged by the words that are left to delete, not by one number for the
    whole prompt, and a good word that is still there counts for something.

    Args:
        policy: Whose shape and lexicon; its weights are not shared.
        learning_rate: Adam's.
        epochs: Gradient steps on each batch of episodes.

    Attributes:
        network: What learns.
        optimizer: Its Adam.
    """

    def __init__(self, policy: WordPolicy, learning_rate: float, epochs: int) -> None:
        """Make a critic that expects next to nothing of any word."""
        device = next(policy.parameters()).device
        # Without dropout: the same state is always worth the same.
        self.network = WordPolicy(replace(policy.config, dropout=0.0), policy.lexicon).to(device)
        self.epochs = epochs
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=learning_rate)

    @torch.no_grad()
    def values(self, rollout: Rollout, policy: WordPolicy) -> torch.Tensor:
        """Return V of every state, float32 (steps, N); the policy's own dropout is left out."""
        mode = policy.training
        policy.eval()
        values = []
        for step in rollout.steps:
            probs = policy(step.observation).probs
            values.append((probs * self.network.scores(step.observation)).sum(dim=-1))
        policy.train(mode)
        return torch.stack(values)

    def learn(self, rollout: Rollout) -> float:
        """Move Q of what was deleted towards what came of it; return the mean squared error before."""
        device = next(self.network.parameters()).device
        rewards, valid = rollout.rewards.to(device), rollout.valid.to(device)
        errors = []
        for _ in range(self.epochs):
            total, n = torch.zeros((), device=device), 0
            for step in rollout.steps:
                said = self.network.scores(step.observation).gather(-1, step.slots[:, None]).squeeze(-1)
                counts = step.live & valid
                total = total + torch.where(counts, (said - rewards).square(), 0.0).sum()
                n += int(counts.sum())
            loss = total / max(1, n)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            errors.append(float(loss.detach()))
        return errors[0]
