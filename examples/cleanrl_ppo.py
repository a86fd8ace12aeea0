"""PPO with action masks in one file, after CleanRL's ppo.py: no agent library, only torch.

    python examples/cleanrl_ppo.py --total-steps 100000 --learning-rate 1e-3

The network scores each word from its embedding, the mean embedding of all words, and the patient vector; the word's
slot makes no difference.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from torch import nn
from torch.distributions import Categorical

import pmlm_env  # noqa: F401  (registers PMLMLite-v0)


@dataclass
class Args:
    """All options."""

    env_id: str = "PMLMLite-v0"  # or PMLM-v0, which uses a language model
    n_edits: int = 10  # deletions per episode
    seed: int = 0  # for weights, actions and patients
    device: str = "cpu"  # device of the network
    total_steps: int = 30_000  # total number of env steps
    num_envs: int = 32  # number of parallel envs
    num_steps: int = 20  # steps of each env per update
    learning_rate: float = 3e-3  # of Adam
    gamma: float = 1.0  # only the last step is rewarded, so no discount
    gae_lambda: float = 0.9  # 1: the episode's return; 0: the critic's estimate one step later
    num_minibatches: int = 4  # per epoch
    update_epochs: int = 4  # passes over each batch
    clip_coef: float = 0.2  # clipping range of the probability ratio around 1
    ent_coef: float = 0.0  # weight of the entropy bonus
    vf_coef: float = 0.5  # weight of the critic's loss
    max_grad_norm: float = 0.5  # clipping norm of gradients
    hidden: int = 64  # width of the two hidden layers


class Agent(nn.Module):
    """Logits, one per word, shape (B, W), and values, shape (B,)."""

    def __init__(self, embedding_size: int, patient_size: int, hidden: int) -> None:  # noqa: D107
        super().__init__()
        self.word = nn.Linear(embedding_size, hidden)
        self.context = nn.Linear(embedding_size + patient_size, hidden)
        self.body = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.actor, self.critic = nn.Linear(hidden, 1), nn.Linear(hidden, 1)
        nn.init.orthogonal_(self.actor.weight, 0.01)

    def forward(self, obs: dict[str, torch.Tensor]) -> tuple[Categorical, torch.Tensor]:  # noqa: D102
        present = obs["embeddings"].any(dim=-1, keepdim=True)
        mean = obs["embeddings"].sum(dim=1) / present.sum(dim=1)
        words, mean, patient = (
            nn.functional.layer_norm(x, x.shape[-1:]) for x in (obs["embeddings"], mean, obs["patient"])
        )
        features = self.body(self.word(words) + self.context(torch.cat([mean, patient], dim=-1))[:, None]) * present
        logits = self.actor(features).squeeze(-1)
        # Masked words have probability 0 and do not contribute to the entropy or gradients.
        logits = logits.masked_fill(obs["action_mask"] == 0, torch.finfo(logits.dtype).min)
        return Categorical(logits=logits), self.critic(features.sum(dim=1) / present.sum(dim=1)).squeeze(-1)


def train(args: Args) -> list[float]:
    """Train an agent; return the mean reward of the episodes that ended in each iteration."""
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    envs = gym.make_vec(args.env_id, num_envs=args.num_envs, n_edits=args.n_edits)
    space: Any = envs.single_observation_space
    agent = Agent(space["embeddings"].shape[1], space["patient"].shape[0], args.hidden).to(device)
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)
    shape = (args.num_steps, args.num_envs)
    obs_of = {key: torch.zeros(shape + space[key].shape, device=device) for key in space}
    actions = torch.zeros(shape, dtype=torch.long, device=device)
    log_probs, rewards, dones, values = (torch.zeros(shape, device=device) for _ in range(4))

    def tensors(observation: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
        return {key: torch.as_tensor(value, dtype=torch.float32, device=device) for key, value in observation.items()}

    obs = tensors(envs.reset(seed=args.seed)[0])
    means = []
    for iteration in range(args.total_steps // (args.num_steps * args.num_envs)):
        started, returns = time.perf_counter(), []
        for step in range(args.num_steps):
            for key in obs:
                obs_of[key][step] = obs[key]
            with torch.no_grad():
                policy, values[step] = agent(obs)
                actions[step] = policy.sample()
                log_probs[step] = policy.log_prob(actions[step])
            observation, reward, terminated, truncated, _ = envs.step(actions[step].cpu().numpy())
            obs = tensors(observation)  # an env whose episode ended has already reset, so this is its new episode
            rewards[step] = torch.as_tensor(reward)
            dones[step] = torch.as_tensor(terminated | truncated)
            # Without a reply from the LLM there is no score: use the critic's value, so that nothing is learned.
            rewards[step] = torch.where(torch.as_tensor(truncated, device=device), values[step], rewards[step])
            returns += reward[terminated].tolist()

        # Generalized advantage estimation, from the last step to the first.
        advantages = torch.zeros(shape, device=device)
        with torch.no_grad():
            next_value, following = agent(obs)[1], torch.zeros(args.num_envs, device=device)
        for step in reversed(range(args.num_steps)):
            live = 1 - dones[step]
            delta = rewards[step] + args.gamma * next_value * live - values[step]
            following = advantages[step] = delta + args.gamma * args.gae_lambda * live * following
            next_value = values[step]

        flat = {key: value.flatten(0, 1) for key, value in obs_of.items()}
        old, taken, advantage = log_probs.flatten(), actions.flatten(), advantages.flatten()
        target = advantage + values.flatten()
        for _ in range(args.update_epochs):
            for rows in torch.randperm(len(old), device=device).chunk(args.num_minibatches):
                policy, value = agent({key: observation[rows] for key, observation in flat.items()})
                ratio = (policy.log_prob(taken[rows]) - old[rows]).exp()
                a = (advantage[rows] - advantage[rows].mean()) / (advantage[rows].std() + 1e-8)
                actor_loss = -torch.min(a * ratio, a * ratio.clamp(1 - args.clip_coef, 1 + args.clip_coef)).mean()
                critic_loss = 0.5 * (value - target[rows]).square().mean()
                loss = actor_loss - args.ent_coef * policy.entropy().mean() + args.vf_coef * critic_loss
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), args.max_grad_norm)
                optimizer.step()
        means.append(float(np.mean(returns)) if returns else float("nan"))
        steps_per_second = args.num_steps * args.num_envs / (time.perf_counter() - started)
        print(f"iteration {iteration + 1}: reward {means[-1]:+.3f}, {steps_per_second:.0f} steps/s", flush=True)
    envs.close()
    return means


if __name__ == "__main__":
    torch.set_num_threads(1)  # more threads do not help with a small network
    train(tyro.cli(Args))
