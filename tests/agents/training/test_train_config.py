"""Training settings: those common to all agents, and the agent's own."""

from __future__ import annotations

import pytest

from agents.policy_gradient.config import LexiconConfig
from agents.registry import AGENTS, settings_of
from agents.settings import from_plain, plain
from agents.training.config import TrainConfig, with_agent_settings


@pytest.mark.parametrize("agent", AGENTS)
def test_every_agent_has_its_own_default_settings_and_they_can_be_read_back(agent: str) -> None:
    kind = with_agent_settings(TrainConfig, agent)
    config = kind()
    assert isinstance(config, TrainConfig)
    assert (config.agent, config.settings) == (agent, settings_of(agent))
    assert TrainConfig(agent=agent).settings == config.settings
    assert from_plain(kind, plain(config)) == config


def test_settings_of_another_agent_are_refused() -> None:
    with pytest.raises(ValueError, match="settings are LexiconConfig: leave-one-out has NetworkConfig"):
        TrainConfig(agent="leave-one-out", settings=LexiconConfig())


def test_an_agent_that_does_not_exist_is_refused() -> None:
    for make in (lambda: TrainConfig(agent="lexikon"), lambda: with_agent_settings(TrainConfig, "lexikon")):
        with pytest.raises(
            ValueError, match=r"there is no agent 'lexikon' \(did you mean lexicon\?\): use lexicon, leave"
        ):
            make()


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused_before_anything_loads(seed: int) -> None:
    with pytest.raises(ValueError, match=r"seed is .*: use a whole number from 0 to 4,294,967,295"):
        TrainConfig(seed=seed)
