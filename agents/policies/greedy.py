"""Greedy refinement of prompts: a policy's most probable legal edit at each step."""

from __future__ import annotations

from dataclasses import replace

import torch

from agents.base import Edits
from agents.policies.rollout import play
from agents.problem import Problem


def greedy_edits(problem: Problem, policy: torch.nn.Module, rows: int = 64) -> Edits:
    """Play every episode of a problem greedily, to its end.

    Args:
        problem: The prompts. Use a problem without a reward: a reward would be computed at the end of each episode.
        policy: Maps observations to a ``MaskedCategorical``; on the encoder's device. It is left in eval mode. Its
            ``observation`` and ``patient_form`` attributes, if present, are the forms of observation and patient that
            it needs.
        rows: Number of prompts played in parallel.

    Returns:
        The edits of each prompt, each with its probability under the policy.
    """
    policy.eval()
    forms = {
        "observation": getattr(policy, "observation", "embeddings"),
        "patient": getattr(policy, "patient_form", "vector"),
    }
    edits: Edits = []
    everyone = range(len(problem.episodes))
    for start in everyone[::rows]:
        some = everyone[start : start + rows]
        rollout = play(problem.env(len(some), **forms), policy, some, generator=None)
        probabilities = torch.stack([step.log_probs for step in rollout.steps], dim=1).exp().tolist()
        for info, row in zip(rollout.infos, probabilities, strict=True):
            edits.append(tuple(replace(edit, probability=p) for edit, p in zip(info["edits"], row, strict=False)))
    return edits
