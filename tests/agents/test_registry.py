"""Every registered agent can be fitted, saved, loaded in another process, and used on new prompts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents.base import Agent
from agents.policies.agent import PolicyAgent
from agents.problem import BudgetSpentError, MeteredReward, Problem
from agents.registry import AGENTS, class_of, entry, load, make, settings_of
from agents.settings import Choices, Floats, Integers, with_settings
from pmlm_env.envs.lite import HashedEncoder, LiteReward, lite_episodes
from tests import fresh
from tests.agents.saved_agents import edits_of_new_prompts
from tests.problems import N_EDITS, make_problem

OURS = {"leave-one-out", "actor-critic", "reinforce", "sparsemax", "q-dqn", "q-soft"}
SB3 = {"maskable-ppo", "ppo", "a2c", "dqn", "qrdqn"}
NETWORKS = OURS | SB3
_FASTER: dict[str, dict[str, Any]] = {
    "q-dqn": {"gradient_steps": 1},
    "q-soft": {"gradient_steps": 1},
    "dqn": {"learning_starts": 60},
    "qrdqn": {"learning_starts": 60},
    "llm-editor": {"editor": "tests.editors:HashedEditor"},
    "llm-editor-few-shot": {"editor": "tests.editors:HashedEditor"},
}
every_agent = pytest.mark.parametrize("name", AGENTS)


@cache
def _fitted(name: str, seed: int = 0, positions: bool = True) -> Agent:
    """An agent after 100 completions."""
    settings = settings_of(name, "lite", _FASTER.get(name, {}))
    if not positions and hasattr(settings, "positions"):
        settings = with_settings(settings, {"positions": False})
    agent = make(name, settings, seed)
    with suppress(BudgetSpentError):
        agent.fit(make_problem(100, decoys=True, n=16))
    return agent


@pytest.fixture
def float64() -> Iterator[None]:
    """PyTorch makes tensors of float64 if it is not told otherwise."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", sorted({"lexicon", *NETWORKS}))
def test_networks_are_float32_whatever_pytorchs_default_is(name: str) -> None:
    agent = make(name, settings_of(name, "lite", _FASTER.get(name, {})))
    with suppress(BudgetSpentError):
        agent.fit(make_problem(100, decoys=True, n=16))
    _, tensors = agent.learned()
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert all(agent.refine(make_problem(n=2, judged=False)))
    assert torch.get_default_dtype() == torch.float64


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    for name in AGENTS:
        _fitted(name).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def elsewhere(saved: Path) -> dict[str, Any]:
    """The edits of all saved agents, loaded in another process."""
    done = fresh.run("-m", "tests.agents.saved_agents", saved)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@every_agent
def test_an_agent_loaded_in_another_process_makes_the_same_edits(name: str, elsewhere: dict[str, Any]) -> None:
    assert elsewhere[name] == json.loads(json.dumps(edits_of_new_prompts(_fitted(name))))


@every_agent
def test_a_saved_agent_is_json_and_tensors_and_nothing_else(name: str, saved: Path) -> None:
    assert {path.name for path in (saved / name).iterdir()} == {"config.json", "model.safetensors"}
    described = json.loads((saved / name / "config.json").read_text())
    assert described.keys() == {"agent", "settings", "seed", "shape", "learned"}
    assert described["agent"] == name
    header = (saved / name / "model.safetensors").read_bytes()
    size = int.from_bytes(header[:8], "little")
    tensors = json.loads(header[8 : 8 + size])
    assert {value["dtype"] for key, value in tensors.items() if key != "__metadata__"} <= {"F32"}


@every_agent
def test_what_is_saved_again_is_the_same_to_the_byte(name: str, saved: Path, tmp_path: Path) -> None:
    load(saved / name).save(tmp_path)
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / file).read_bytes() == (saved / name / file).read_bytes()


@every_agent
def test_an_agent_edits_only_what_may_be_edited_and_no_more_than_that(name: str) -> None:
    problem = make_problem(judged=False, decoys=True, n=9, seed=7)
    legal = problem.batch(range(9)).legal
    for row, (own, episode) in enumerate(zip(_fitted(name).refine(problem), problem.episodes, strict=True)):
        slots = [edit.slot for edit in own]
        assert len(set(slots)) == len(slots) <= N_EDITS
        assert legal[row, slots].all()
        assert [edit.word for edit in own] == [episode.words[slot] for slot in slots]


@every_agent
def test_an_agent_knows_what_it_was_fitted_for_and_cannot_be_saved_before(name: str, tmp_path: Path) -> None:
    assert _fitted(name).shape == make_problem(decoys=True, n=16).shape
    with pytest.raises(ValueError, match=f"the agent {name} has learned nothing yet: call fit first"):
        make(name, settings_of(name, "lite")).save(tmp_path)


@every_agent
def test_an_agent_that_learns_needs_a_budget_and_one_that_does_not_asks_for_nothing(name: str) -> None:
    agent, problem = make(name, settings_of(name, "lite")), make_problem()
    if class_of(name).learns:
        with pytest.raises(ValueError, match="the agent needs a budget"):
            agent.fit(problem)
    else:
        agent.fit(problem)
    assert problem.reward.calls == 0


@every_agent
def test_the_seed_makes_a_difference_where_the_class_says_so(name: str) -> None:
    if name == "phrase-rule":
        pytest.skip("prompts without punctuation have four phrases, too few for two seeds to differ")
    first, second = (edits_of_new_prompts(_fitted(name, seed)) for seed in (0, 1))
    assert (first != second) == class_of(name).seeded


@every_agent
def test_what_is_tuned_are_settings_of_the_agent_and_its_defaults_are_within(name: str) -> None:
    for env in ("lite", "real"):
        settings = settings_of(name, env)  # type: ignore[arg-type]
        for setting, within in class_of(name).space.items():
            value = getattr(settings, setting)
            assert value in within.values if isinstance(within, Choices) else within.low <= value <= within.high
            assert isinstance(within, Choices | Floats | Integers)
            assert isinstance(value, int) or not isinstance(within, Integers)
    assert type(entry(name).config) is class_of(name).Config


@pytest.mark.parametrize("name", sorted(NETWORKS | {"lexicon"}))
def test_a_loaded_policy_plays_longer_prompts_than_those_of_training(name: str, tmp_path: Path) -> None:
    _fitted(name, positions=False).save(tmp_path)
    problem = make_problem(judged=False, max_words=40)
    assert [len(own) for own in load(tmp_path).refine(problem)] == [N_EDITS] * 6


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_with_positions_more_slots_than_in_training_are_one_line(name: str, saved: Path) -> None:
    with pytest.raises(ValueError, match="the prompts have 40 slots, 12 in training"):
        load(saved / name).refine(make_problem(judged=False, max_words=40))


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_embeddings_of_another_size_are_one_line(name: str, saved: Path) -> None:
    problem = make_problem(judged=False)
    problem.encoder.hidden_size = 8
    with pytest.raises(ValueError, match="embeddings of 8 numbers, but of 16 in training"):
        load(saved / name).refine(problem)


@pytest.mark.parametrize("env", ["lite", "real"])
def test_every_network_tells_slots_apart_or_none_does(env: str) -> None:
    """Lite's embeddings are those of words alone, BERT's are not; to tell only some agents would be unfair."""
    settings = {name: settings_of(name, env) for name in AGENTS}  # type: ignore[arg-type]
    told = {name for name, config in settings.items() if getattr(config, "positions", False)}
    assert told == (NETWORKS if env == "lite" else set())


@pytest.mark.parametrize(("env", "exempt"), [("lite", set()), ("real", {"reinforce"})])
def test_no_network_but_the_published_one_takes_its_inputs_otherwise_than_the_others(
    env: str, exempt: set[str]
) -> None:
    settings = {name: settings_of(name, env) for name in NETWORKS}  # type: ignore[arg-type]
    normalized = {name for name, config in settings.items() if config.normalize}
    assert normalized == (set() if env == "lite" else NETWORKS - exempt)


def test_the_registry_loads_neither_torch_nor_stable_baselines3() -> None:
    heavy = ("torch", "transformers", "stable_baselines3", "sb3_contrib", "sklearn")
    code = f"import sys, agents.registry; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_agent_is_one_line_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"there is no agent 'lexicn' \(did you mean lexicon\?\): use lexicon, leave-"):
        make("lexicn")
    with pytest.raises(ValueError, match="there is no agent 'xyz': use lexicon, leave-one-out"):
        make("xyz")


@cache
def _on_lite(name: str) -> PolicyAgent:
    train = lite_episodes().of("train")
    agent = make(name, settings_of(name, "lite", _FASTER.get(name, {})))
    with suppress(BudgetSpentError):
        agent.fit(Problem(train, HashedEncoder(), MeteredReward(LiteReward(train), 80), 10, lite_episodes().max_words))
    assert isinstance(agent, PolicyAgent)
    return agent


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_policy_plays_whole_episodes_by_nothing_but_the_observation(name: str, tmp_path: Path) -> None:
    _on_lite(name).save(tmp_path)
    agent = load(tmp_path)
    assert isinstance(agent, PolicyAgent)
    env = gym.make("PMLMLite-v0", split="test")
    vector = gym.make_vec("PMLMLite-v0", num_envs=3, split="test", autoreset_mode="Disabled")
    observation, _ = vector.reset(seed=0, options={"episode": np.arange(3)})
    done, actions = np.zeros(3, dtype=bool), []
    while not done.all():
        actions.append(agent.act(observation))
        observation, _, terminated, truncated, info = vector.step(actions[-1])
        assert not info["invalid_action"].any()
        done |= terminated | truncated
    assert len(actions) == 10
    for episode in range(3):
        observation, _ = env.reset(options={"episode": episode})
        for action in actions:
            assert agent.act(observation) == action[episode]
            observation, _, terminated, truncated, info = env.step(agent.act(observation))
            assert not info["invalid_action"]
        assert terminated
        assert not truncated


def test_a_policy_with_a_lexicon_names_the_wrapper_that_an_observation_needs() -> None:
    observation, _ = gym.make("PMLMLite-v0").reset()
    with pytest.raises(ValueError, match=r"pmlm_env\.envs\.wrappers\.WordNumbers\(env, agent\.policy\.lexicon\)"):
        _on_lite("lexicon").act(observation)


def test_a_policy_of_embeddings_names_the_observation_that_it_needs() -> None:
    observation, _ = gym.make("PMLMLite-v0", observation="index").reset()
    with pytest.raises(ValueError, match=r'lacks embeddings, patient, .* observation="embeddings"'):
        _on_lite("leave-one-out").act(observation)


def test_a_policy_that_learned_nothing_does_not_act() -> None:
    observation, _ = gym.make("PMLMLite-v0").reset()
    agent = make("leave-one-out")
    assert isinstance(agent, PolicyAgent)
    with pytest.raises(ValueError, match="the agent leave-one-out has learned nothing yet"):
        agent.act(observation)


@pytest.mark.parametrize(
    ("settings", "seed", "message"),
    [
        (settings_of("ppo"), 0, "the settings are PPOConfig: this agent has LexiconConfig"),
        ({"patients": 3}, 0, "the settings are dict: this agent has LexiconConfig"),
        (None, 1.5, "seed is 1.5: use a whole number"),
        (None, "1", "seed is '1': use a whole number"),
    ],
)
def test_an_agent_is_not_made_of_what_would_break_it_later(settings: Any, seed: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make("lexicon", settings, seed)


def test_one_name_to_protect_may_be_a_string() -> None:
    problem = make_problem(1)
    named = Problem(problem.episodes, problem.encoder, None, N_EDITS, protect="digits")
    assert named.shape.protect == ("digits",)
