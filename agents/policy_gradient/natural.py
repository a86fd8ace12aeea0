"""NaturalGradient: training of a lexicon's weights by the natural policy gradient."""

from __future__ import annotations

import torch

from agents.policies.rollout import Rollout
from agents.policies.word_policy import WordPolicy
from agents.policy_gradient.config import NaturalConfig


class NaturalGradient:
    """Updates a policy's lexicon weights by a ridge regression of advantages on scores.

    An episode's score is the gradient of its log-probability with respect to the weights: for each word form, how often
    it was deleted minus the expected number. The least-squares solution of advantages on scores is the natural gradient
    (Kakade 2001; Peters and Schaal 2008, episodic natural actor-critic). Unlike a plain gradient, it separates the
    effect of a word from the effects of the words deleted with it. Unlike a step of Adam, it hardly changes the weights
    of words about which little is known, because of the penalty. It is the regression of the pooled surrogate, repeated
    on the prompts that the policy produces as it learns, where a word's effect may differ.

    Args:
        policy: The policy; only its lexicon's weights are updated.
        config: Settings.

    Attributes:
        memory: Scores and advantages of the latest updates, in the form that ``step`` takes.
    """

    def __init__(self, policy: WordPolicy, config: NaturalConfig) -> None:
        """Start with an empty memory.

        Raises:
            ValueError: The policy has no lexicon.
        """
        if policy.table is None:
            raise ValueError("the policy has no lexicon")
        self.table, self.policy, self.config = policy.table, policy, config
        self.table.weight.requires_grad_(False)  # no other optimizer updates it
        self.memory: list[tuple[torch.Tensor, torch.Tensor]] = []

    def step(self, scores: torch.Tensor, advantages: torch.Tensor) -> None:
        """Take one step.

        Args:
            scores: Scores of N episodes, float64 (N, numbers), relative to the same baseline as the rewards.
            advantages: Advantages of the same episodes, float64 (N,), in units of the reward, so that an update whose
                rewards hardly differ has little weight.
        """
        self.memory = [*self.memory, (scores, advantages)][-self.config.memory :]
        self.table.weight += (self.config.step * self._solution()).to(self.table.weight)[:, None]

    def scores(self, rollout: Rollout) -> torch.Tensor:
        """Return the gradient of each episode's log-probability, float64 (R, numbers), on the CPU; 0 for number 0."""
        size = len(rollout.steps[0].slots), self.table.num_embeddings
        total = torch.zeros(size, dtype=torch.float32, device=self.table.weight.device)
        for step in rollout.steps:
            with torch.no_grad():
                logits = self.policy.scores(step.observation)
            logits.requires_grad_(True)
            log_probs = self.policy.distribution(logits, step.observation).log_prob(step.slots)
            (slopes,) = torch.autograd.grad(torch.where(step.live, log_probs, 0.0).sum(), logits)
            words = step.observation["words"]
            total.scatter_add_(1, words.flatten(1), slopes[..., None].expand(words.shape).flatten(1))
        total[:, 0] = 0
        return total.double().cpu()

    def _solution(self) -> torch.Tensor:
        """Solve the regression over the memory, in dual form because there are fewer episodes than words."""
        scores = torch.cat([scores for scores, _ in self.memory])
        advantages = torch.cat([advantages for _, advantages in self.memory])
        ages = torch.cat([torch.full((len(a),), float(age)) for age, (_, a) in enumerate(reversed(self.memory))][::-1])
        gram = scores @ scores.T
        size, spread = gram.diagonal().mean(), advantages.square().mean().sqrt()
        if not len(gram) or not float(size) or not float(spread):
            return torch.zeros(self.table.num_embeddings, dtype=torch.float64)
        noise = self.config.penalty * size * self.config.fade ** -ages.double()
        return scores.T @ torch.linalg.solve(gram + torch.diag(noise), advantages / spread)
