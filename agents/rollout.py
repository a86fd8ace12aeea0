"""Playing episodes with a policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from agents.policy import MaskedCategorical
from pmlm_env.vector_env import PMLMVectorEnv


@dataclass
class Rollout:
    """One episode in each row of a vector env.

    Attributes:
        rewards: Delta of each episode, float32 (N,), on the CPU.
        valid: Whether the reward may be learnt from, bool (N,): not where the LLM's reply could not be had.
        infos: The final info of each episode.
        log_probs: Sum over the steps of the log-probability of what was drawn, (N,), with its graph.
        entropy: Mean over the steps of the policy's entropy, (N,), with its graph.
        invalid_actions: How many steps deleted nothing.
    """

    rewards: torch.Tensor
    valid: torch.Tensor
    infos: list[dict[str, Any]]
    log_probs: torch.Tensor
    entropy: torch.Tensor
    invalid_actions: int


def play(
    env: PMLMVectorEnv,
    policy: torch.nn.Module,
    episodes: Sequence[int],
    generator: torch.Generator | None,
    *,
    masked: bool = True,
) -> Rollout:
    """Play the episodes at ``episodes``, one a row, to their ends.

    The policy stays in the mode (train or eval) it is in: the log-probabilities returned are those of the very
    distributions that were drawn from, dropout included, not recomputed ones.

    Args:
        env: A vector env with ``array_type="torch"`` and autoreset ``DISABLED``, as many rows as episodes.
        policy: Who plays: a ``WordPolicy``, or anything that turns an observation into a ``MaskedCategorical``.
        episodes: Indices into the env's episodes.
        generator: Draws the actions; None plays the most probable ones.
        masked: Whether illegal slots are barred; unmasked play is for ablations.
    """
    observation, _ = env.reset(options={"episode": np.asarray(episodes)})
    rows = len(episodes)
    infos: list[dict[str, Any]] = [{} for _ in range(rows)]
    rewards, valid = torch.zeros(rows), torch.zeros(rows, dtype=torch.bool)
    running = torch.ones(rows, dtype=torch.bool)
    log_probs, entropies, steps, invalid = [], [], [], 0
    while bool(running.any()):
        live = running.to(observation["action_mask"].device)
        # Rows that have ended early take part with a dummy slot, and count for nothing.
        allowed = (observation["action_mask"] != 0) if masked else torch.ones_like(observation["action_mask"]).bool()
        allowed = allowed | ~live[:, None]
        distribution: MaskedCategorical = policy({**observation, "action_mask": allowed})
        slots = distribution.mode() if generator is None else distribution.sample(generator)
        log_probs.append(torch.where(live, distribution.log_prob(slots), 0.0))
        entropies.append(torch.where(live, distribution.entropy(), 0.0))
        steps.append(live)
        observation, reward, terminated, truncated, step_infos = env.step(slots)
        ended = (terminated | truncated).cpu() & running
        invalid += int(step_infos["invalid_action"].sum())
        for row in ended.nonzero().flatten().tolist():
            infos[row] = {k: v[row] for k, v in step_infos.items() if k[0] != "_" and step_infos[f"_{k}"][row]}
            rewards[row], valid[row] = float(reward[row]), bool(terminated[row])
        running = running & ~ended
    n_steps = torch.stack(steps).sum(dim=0).clamp(min=1)
    return Rollout(
        rewards, valid, infos, torch.stack(log_probs).sum(dim=0), torch.stack(entropies).sum(dim=0) / n_steps, invalid
    )
