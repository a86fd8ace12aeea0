"""Refining prompts with a learnt policy: its most probable legal word at each step."""

from __future__ import annotations

import torch

from agents.base import Deletions
from agents.policies.rollout import play
from agents.problem import Arena


def greedy_deletions(arena: Arena, policy: torch.nn.Module, rows: int = 64) -> Deletions:
    """Play every episode of an arena greedily; all ``n_edits`` deletions, unless no word is left that may go.

    Args:
        arena: Whose prompts; a blind one, for each end of an episode would be judged.
        policy: Turns an observation into a ``MaskedCategorical``; on the encoder's device. Left in eval mode. Its
            ``observation``, if it has one, says which form it needs.
        rows: Prompts side by side.
    """
    policy.eval()
    form = getattr(policy, "observation", "embeddings")
    deletions: Deletions = []
    everyone = range(len(arena.episodes))
    for start in everyone[::rows]:
        some = everyone[start : start + rows]
        rollout = play(arena.env(len(some), observation=form), policy, some, generator=None)
        deletions += [info["deleted"] for info in rollout.infos]
    return deletions
