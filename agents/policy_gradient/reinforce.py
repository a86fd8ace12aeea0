"""REINFORCE: as published (Eq. 11), with a leave-one-out baseline over groups of rollouts, or with a critic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from agents.policies.dropout import divide_dropout
from agents.policies.rollout import Rollout, play
from agents.policies.word_policy import WordPolicy
from agents.policy_gradient.config import NaturalConfig, ReinforceConfig
from agents.policy_gradient.critic import WordCritic
from agents.policy_gradient.natural import NaturalGradient
from pmlm_env.device import seeded
from pmlm_env.envs.prompt_edit_vector import PMLMVectorEnv
from pmlm_env.processes import ALONE, Processes


@dataclass(frozen=True)
class Update:
    """Statistics of one update.

    Attributes:
        deltas: The rewards, float32 (rollouts,), without failed episodes.
        failed: Number of episodes without a reply from the LLM; they are excluded from the loss.
        loss: Policy loss in the first epoch.
        entropy: Mean entropy, in nats, of the policy that played the episodes.
        grad_norm: Norm of the network's gradient before clipping, in the first epoch; 0 without a network.
        invalid_actions: Number of steps that edited nothing; 0 if the policy is masked.
    """

    deltas: npt.NDArray[np.float32]
    failed: int
    loss: float
    entropy: float
    grad_norm: float
    invalid_actions: int


class Reinforce:
    """Trains a policy on a vector env, one update at a time.

    Args:
        policy: The policy to train; on the device of the env's encoder.
        env: A vector env with ``array_type="torch"``, autoreset ``DISABLED``, and patients * rollouts rows.
        config: Settings.
        seed: Seeds the draws of patients and actions. The same seed gives the same run on the same machine.
        words: Settings of the training of a lexicon's weights; the defaults if None.
        processes: Processes that train together: each gets the same arguments, but for the env, whose task observes
            its share of the rows (``EditTask.observed``). Their weights stay the same, because they add up gradients
            over all rows before each step.

    Raises:
        ValueError: The env has a different number of rows, or there are more processes than rows.
    """

    def __init__(
        self,
        policy: WordPolicy,
        env: PMLMVectorEnv,
        config: ReinforceConfig,
        seed: int,
        words: NaturalConfig | None = None,
        processes: Processes = ALONE,
    ) -> None:
        """Set up the optimizer (Adam, as in the paper) and the random generators."""
        self.n_patients = config.patients or len(env.task.episodes)
        if env.num_envs != self.n_patients * config.rollouts:
            raise ValueError(f"the env has {env.num_envs} rows for {self.n_patients} x {config.rollouts} rollouts")
        if processes.size > env.num_envs:
            raise ValueError(
                f"an update has {env.num_envs} episodes, too few for {processes.size} processes: start at most "
                f"{env.num_envs} (torchrun --nproc-per-node), or raise --patients or --rollouts"
            )
        self.policy, self.env, self.config = policy, env, config
        self.processes, self._own = processes, processes.share(env.num_envs)
        divide_dropout(policy, env.num_envs, self._own)
        self.words = None if policy.table is None else NaturalGradient(policy, words or NaturalConfig())
        self.network = [parameter for name, parameter in policy.named_parameters() if not name.startswith("table.")]
        self.critic: WordCritic | None = None
        if config.baseline == "critic":
            with seeded(2**31 + seed):  # not the policy's seed, which would give the policy's initial weights
                self.critic = WordCritic(policy, config.learning_rate, config.epochs, processes)
        self.optimizer = torch.optim.Adam([{"params": self.network}], lr=config.learning_rate)
        self.patients_rng = np.random.default_rng(seed)
        device = next(policy.parameters()).device
        self.actions_rng = torch.Generator(device).manual_seed(seed)
        self.queue: list[int] = []  # remaining patients of the current round

    def update(self) -> Update:
        """Play one batch of episodes and learn from it."""
        config, processes, own = self.config, self.processes, self._own
        self.policy.train()
        episodes = np.repeat(self._next_patients(), config.rollouts)
        dropout_seed = int(torch.randint(2**31, (), generator=self.actions_rng, device=self.actions_rng.device))
        with seeded(dropout_seed, self.actions_rng.device):
            rollout = play(
                self.env, self.policy, episodes.tolist(), self.actions_rng, masked=config.masked, processes=processes
            )
        if not bool(rollout.valid.any()):  # even a zero gradient would change the weights, by Adam's momentum
            return Update(np.zeros(0, np.float32), len(rollout.valid), 0.0, 0.0, 0.0, rollout.invalid_actions)
        values = None if self.critic is None else self._of_steps(self.critic.values(rollout, self.policy))
        advantages = self.advantages(rollout, values).to(self.actions_rng.device)
        weight = rollout.valid.to(advantages) / max(1, int(rollout.valid.sum()))
        scores = None
        if self.words is not None:  # before the network's steps: the scores of the policy that played
            with seeded(dropout_seed, self.actions_rng.device):
                scores = self._of_all(self.words.scores(rollout))
        seen = []
        for _ in range(config.epochs if self.network else 1):
            # The same seed gives the same dropout: log-probabilities are those of the distribution that was sampled.
            with seeded(dropout_seed, self.actions_rng.device):
                loss, entropy = self.loss(rollout, advantages[..., own], weight[own])
            norm = self._descend(loss - config.entropy * entropy) if self.network else 0.0
            seen.append((torch.stack([loss, entropy]).detach(), norm))
        processes.add([seen[0][0]])
        if self.words is not None and scores is not None:
            compare = self.comparison(rollout.valid)
            compare = compare[compare.any(dim=1)]
            rewards = rollout.rewards.double() if values is None else (rollout.rewards - values[0].cpu()).double()
            self.words.step(compare @ scores, compare @ rewards)
        if self.critic is not None:
            self.critic.learn(rollout)
        return Update(
            deltas=rollout.rewards[rollout.valid].numpy(),
            failed=int((~rollout.valid).sum()),
            loss=float(seen[0][0][0]),
            entropy=float(seen[0][0][1]),
            grad_norm=seen[0][1],
            invalid_actions=rollout.invalid_actions,
        )

    def loss(
        self, rollout: Rollout, advantages: torch.Tensor, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the policy loss and the mean entropy, each with its graph.

        For the policy that played, the gradient of the loss is that of -sum_t log pi(e_t | s_t) * advantage (Eq. 11).

        Args:
            rollout: Episodes, of which this process has R rows.
            advantages: Their advantages, (R,) or (steps, R).
            weight: Their weights in the mean over all N, (R,). The sums of what the processes return are the loss and
                the entropy of all episodes.
        """
        losses, entropies = [], []
        clip = self.config.clip_ratio
        for step, advantage in zip(rollout.steps, advantages.expand(len(rollout.steps), -1), strict=True):
            distribution = self.policy(step.observation)
            ratio = (distribution.log_prob(step.slots) - step.log_probs).exp()
            gain = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
            losses.append(-torch.where(step.live, gain, 0.0))
            entropies.append(torch.where(step.live, distribution.entropy(), 0.0))
        n_steps = torch.stack([step.live for step in rollout.steps]).sum(dim=0).clamp(min=1)
        return (weight * sum(losses)).sum(), (weight * sum(entropies) / n_steps).sum()

    def advantages(self, rollout: Rollout, values: torch.Tensor | None = None) -> torch.Tensor:
        """Return each episode's advantage, float32 (N,); 0 if it failed or has no other rollout to compare with.

        Args:
            rollout: Episodes.
            values: A critic's values of every state, (steps, N); the advantages then have this shape, too.
        """
        rewards = rollout.rewards.double() - (0.0 if values is None else values.double().cpu())
        advantages = rewards @ self.comparison(rollout.valid).T
        if self.config.scale_advantages and bool(rollout.valid.any()):
            counted = rollout.valid
            if values is not None:  # short prompts have fewer steps
                counted = counted & self._of_steps(torch.stack([step.live for step in rollout.steps])).cpu()
            advantages = advantages / advantages[counted].square().mean().sqrt().clamp(min=1e-8)
        return advantages.float()

    def comparison(self, valid: torch.Tensor) -> torch.Tensor:
        """Return the matrix that subtracts from each reward the mean of the others in its group, float64 (N, N)."""
        if self.config.baseline != "leave-one-out":
            return torch.diag(valid.double())
        size = self.config.rollouts
        same = torch.block_diag(*[torch.ones(size, size, dtype=torch.float64)] * (len(valid) // size))
        pairs = same * valid.outer(valid) * (1 - torch.eye(len(valid), dtype=torch.float64))
        others = pairs.sum(dim=1, keepdim=True)
        return torch.diag((others[:, 0] > 0).double()) - pairs / others.clamp(min=1)

    def _descend(self, loss: torch.Tensor) -> float:
        """Take one gradient step on the network, and return the norm of the gradient before clipping."""
        self.optimizer.zero_grad()
        loss.backward()
        self.processes.add_gradients(self.network)
        norm = torch.nn.utils.clip_grad_norm_(self.network, self.config.clip_norm or float("inf"))
        self.optimizer.step()
        return float(norm)

    def _of_steps(self, own: torch.Tensor) -> torch.Tensor:
        """Return the steps of all processes' rows, (steps, N), given those of this one's, (steps, R)."""
        return self._of_all(own.T).T

    def _of_all(self, own: torch.Tensor) -> torch.Tensor:
        """Return the rows of all processes, (N, ...), given this one's, (R, ...)."""
        return self.processes.rows(own, self.env.num_envs)

    def _next_patients(self) -> npt.NDArray[np.int64]:
        """Return the next patients: every patient once, in random order, before any patient repeats."""
        while len(self.queue) < self.n_patients:
            self.queue += self.patients_rng.permutation(len(self.env.task.episodes)).tolist()
        chosen, self.queue = self.queue[: self.n_patients], self.queue[self.n_patients :]
        return np.array(chosen)
