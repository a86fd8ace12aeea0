"""Playing episodes with a policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from agents.policies.distributions import MaskedCategorical
from agents.policies.lexicon import Lexicon
from pmlm_env.envs.contract import info_of
from pmlm_env.envs.prompt_edit_vector import PMLMVectorEnv
from pmlm_env.envs.wrappers import VectorWordNumbers
from pmlm_env.processes import ALONE, Processes


@dataclass(frozen=True)
class Step:
    """One step of parallel episodes, R of N: all of them, or this process's share (``pmlm_env.processes``).

    Attributes:
        observation: The policy's input; in rows whose episode is over, ``action_mask`` allows everything.
        slots: The actions, int64 (R,).
        log_probs: Their log-probabilities when they were drawn, float32 (R,), without a graph.
        live: Rows whose episode was not over, bool (R,); ignore the others.
    """

    observation: dict[str, torch.Tensor]
    slots: torch.Tensor
    log_probs: torch.Tensor
    live: torch.Tensor


@dataclass(frozen=True)
class Rollout:
    """One episode in each of the N rows of a vector env.

    Attributes:
        rewards: Delta of each episode, float32 (N,), on the CPU.
        valid: Whether each episode has a reward, bool (N,); False if there was no reply from the LLM.
        infos: The final info of each episode.
        steps: All steps, in order.
        invalid_actions: Number of steps that edited nothing.
    """

    rewards: torch.Tensor
    valid: torch.Tensor
    infos: list[dict[str, Any]]
    steps: list[Step]
    invalid_actions: int


@torch.no_grad()
def play(
    env: PMLMVectorEnv,
    policy: torch.nn.Module,
    episodes: Sequence[int],
    generator: torch.Generator | None,
    *,
    masked: bool = True,
    processes: Processes = ALONE,
) -> Rollout:
    """Play some episodes to the end, one in each row.

    The mode of the policy (train or eval) does not change.

    Args:
        env: A vector env with ``array_type="torch"``, autoreset ``DISABLED``, and as many rows as episodes.
        policy: A ``WordPolicy``, or another module that maps an observation to a ``MaskedCategorical``. If it has a
            ``lexicon``, the env is wrapped in ``VectorWordNumbers``.
        episodes: Indices into the env's episodes.
        generator: Draws the actions; None = use the most probable actions.
        masked: Whether illegal edits are masked; False only for ablations.
        processes: Processes that play the same episodes together: each chooses the actions in its share of the rows,
            which its env's task observes (``EditTask.observed``).

    Raises:
        LostProcessError: Another process has ended.
    """
    lexicon: Lexicon | None = getattr(policy, "lexicon", None)
    played = env if lexicon is None else VectorWordNumbers(env, lexicon)
    observation, _ = played.reset(options={"episode": np.asarray(episodes)})
    rows, own = len(episodes), processes.share(len(episodes))
    infos: list[dict[str, Any]] = [{} for _ in range(rows)]
    rewards, valid = torch.zeros(rows, dtype=torch.float32), torch.zeros(rows, dtype=torch.bool)
    running = torch.ones(rows, dtype=torch.bool)
    steps, invalid = [], 0
    while bool(running.any()):
        live = running[own].to(observation["action_mask"].device)
        # Rows whose episode is over may take any action; ``live`` excludes them.
        allowed = (observation["action_mask"] != 0) if masked else torch.ones_like(observation["action_mask"]).bool()
        seen = {**observation, "action_mask": allowed | ~live[:, None]}
        distribution: MaskedCategorical = policy(seen)
        slots = distribution.mode() if generator is None else distribution.sample(generator, rows, own)
        steps.append(Step(seen, slots, distribution.log_prob(slots), live))
        observation, reward, terminated, truncated, step_infos = played.step(processes.rows(slots, rows))
        ended = (terminated | truncated).cpu() & running
        invalid += int(step_infos["invalid_action"].sum())
        for row in ended.nonzero().flatten().tolist():
            infos[row] = info_of(step_infos, row)
            rewards[row], valid[row] = float(reward[row]), bool(terminated[row])
        running = running & ~ended
    return Rollout(rewards, valid, infos, steps, invalid)
