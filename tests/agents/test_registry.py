from __future__ import annotations

import pytest

from agents.registry import AGENTS
from tests.problems import make_problem

OURS = {"leave-one-out", "actor-critic", "reinforce", "sparsemax", "q-dqn", "q-soft"}
NETWORKS = OURS | {"maskable-ppo", "ppo", "a2c", "dqn", "qrdqn"}


@pytest.mark.parametrize("env", ["lite", "real"])
def test_every_network_knows_where_a_word_stands_or_none_does(env: str) -> None:
    """Lite's embeddings are those of words alone, BERT's are not; to tell only some agents would be unfair."""
    pytest.importorskip("sb3_contrib")
    configs = {name: make(env, 0).config for name, make in AGENTS.items()}  # type: ignore[arg-type]
    told = {name for name, config in configs.items() if getattr(config, "positions", False)}
    assert told == (NETWORKS if env == "lite" else set())


@pytest.mark.parametrize(("env", "exempt"), [("lite", set()), ("real", {"reinforce"})])
def test_no_network_but_the_published_one_takes_its_inputs_otherwise_than_the_others(
    env: str, exempt: set[str]
) -> None:
    pytest.importorskip("sb3_contrib")
    configs = {name: AGENTS[name](env, 0).config for name in NETWORKS}  # type: ignore[arg-type]
    normalised = {name for name, config in configs.items() if config.normalize}
    assert normalised == (set() if env == "lite" else NETWORKS - exempt)


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_networks_have_a_part_for_each_slot_if_they_are_told(name: str) -> None:
    problem = make_problem(judged=False)
    told, untold = (AGENTS[name](env, 0)._new(problem) for env in ("lite", "real"))  # type: ignore[attr-defined, arg-type]
    assert told.positions.shape[0] == problem.max_words
    assert untold.positions is None
