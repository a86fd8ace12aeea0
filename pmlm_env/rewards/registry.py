"""Rewards by name: BERTScore, weighted components with gates, or somebody's own class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.labels import Label
from pmlm_env.registry import Registry
from pmlm_env.rewards.base import BERTSCORE, GUARDED, CheckedReward

if TYPE_CHECKING:  # this loads torch
    from pmlm_env.rewards.bertscore import BertScorer

REWARDS = Registry(
    "reward",
    "pmlm.rewards",
    {
        BERTSCORE: "pmlm_env.rewards.bertscore:BertScoreReward",
        "margin": "pmlm_env.rewards.guarded:MarginReward",
        GUARDED: "pmlm_env.rewards.guarded:GuardedReward",
    },
    ["score"],
)


def load_reward(
    name: str,
    kwargs: Mapping[str, Any] | None = None,
    device: str = "auto",
    scorer: BertScorer | None = None,
    training: EpisodeSet | None = None,
    conditions: Iterable[Label] | None = None,
) -> CheckedReward:
    """Make a reward.

    A built-in reward, or a class with the method ``components``, gets ``training`` and ``conditions`` if it has
    parameters of these names.

    Args:
        name: A built-in name, the name of an installed plugin, or ``package.module:Class``.
        kwargs: Arguments for the class.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; a class gets it if it has a parameter ``device``.
        scorer: BERTScore, for built-in rewards; None = with its default model.
        training: Training patients, with whose letters rewards compare replies; None = there are none.
        conditions: The conditions that replies are searched for; None = those of ``training``.

    Raises:
        ValueError: There is no such reward, or it lacks a method or does not take these arguments.
    """
    if name == BERTSCORE and kwargs:
        raise ValueError(
            "--reward-kwargs has no effect with the reward bertscore: use --scorer, --scorer-layer, "
            "--scorer-idf and --long-texts"
        )
    if name in REWARDS.builtin and (repeated := sorted({*(kwargs or {})} & {"scorer", "training", "conditions"})):
        raise ValueError(f"the reward {name} gets {repeated[0]} from elsewhere: leave it out of its arguments")
    offered: dict[str, Any] = {"device": device}
    if hasattr(REWARDS.find(name), "components"):
        if conditions is None and training is not None:
            conditions = training.conditions
        offered |= {"training": training, "conditions": conditions}
    if name in REWARDS.builtin:
        offered["scorer"] = scorer
    return CheckedReward(name, REWARDS.make(name, kwargs=kwargs, offered=offered))
