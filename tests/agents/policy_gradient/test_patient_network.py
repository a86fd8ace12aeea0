"""The patient encoder as a part of the policy (the paper's Algorithm 1): ``patient_vector`` "learned"."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.policies.rollout import play
from agents.policy_gradient.agent import NetworkAgent
from agents.policy_gradient.config import NetworkConfig
from agents.problem import MeteredReward, Problem
from agents.registry import load, make
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.outcomes import Outcomes
from pmlm_env.llm import BudgetExceededError
from tests.problems import N_EDITS, make_problem
from tests.standins import FORM, HashEncoder, make_episodes, make_task, with_checkups

WORDS = ("one", "two", "three", "four", "low", "high")


def _high(episode: Any) -> bool:
    """Whether the first indicator, in the latest check-up, is above its mean."""
    return bool(episode.checkups.values[0, 0] > 0)


def _patients(n: int, seed: int) -> EpisodeSet:
    """The same prompt for all, and vectors that say nothing: only the check-ups tell patients apart."""
    made = with_checkups(make_episodes(3 * n, n_words=len(WORDS), n_marked=0, seed=seed), seed)
    known = [e for e in made if len(e.checkups.values) and not np.isnan(e.checkups.values[0, 0])][:n]
    return EpisodeSet([replace(e, words=WORDS, split="train") for e in known])


class OneWordReward:
    """Pays for deleting "high" from the prompts of patients whose latest value is high, "low" from the others'."""

    def __init__(self, episodes: EpisodeSet) -> None:
        self.episodes = episodes

    def __call__(self, indices: Sequence[int], prompts: Sequence[str]) -> Outcomes:
        right = ["high" if _high(self.episodes[i]) else "low" for i in indices]
        deltas = np.array([float(word not in prompt.split()) for word, prompt in zip(right, prompts, strict=True)])
        return Outcomes(deltas, np.zeros(len(deltas)), np.zeros(len(deltas), dtype=np.int64))


def _share_right(source: str, limit: int = 3_000) -> float:
    """The share of unseen patients from whose prompt the right word is deleted."""
    config = NetworkConfig(patients=16, hidden=32, epochs=2, learning_rate=3e-3, patient_vector=source)  # type: ignore[arg-type]
    agent, episodes = NetworkAgent(config), _patients(64, seed=1)
    with suppress(BudgetExceededError):
        agent.fit(Problem(episodes, HashEncoder(), MeteredReward(OneWordReward(episodes), limit), n_edits=1))
    unseen = _patients(64, seed=2)
    edits = agent.refine(Problem(unseen, HashEncoder(), None, n_edits=1))
    right = ["high" if _high(episode) else "low" for episode in unseen]
    return float(np.mean([own[0].word == word for own, word in zip(edits, right, strict=True)]))


def test_it_learns_from_rewards_alone_which_patients_need_which_edit() -> None:
    assert _share_right("learned") >= 0.9


def test_without_it_vectors_that_say_nothing_leave_unseen_patients_to_chance() -> None:
    assert _share_right("prepared") <= 0.65


CONFIG = NetworkConfig(patients=3, rollouts=2, hidden=8, normalize=False, patient_vector="learned")


def _begun(config: NetworkConfig = CONFIG, seed: int = 0) -> NetworkAgent:
    agent = NetworkAgent(config, seed)
    agent.begin(make_problem(10_000, form=FORM))
    return agent


def test_the_gradient_of_the_policys_loss_in_the_encoder_is_that_of_finite_differences() -> None:
    agent = _begun()
    trainer, policy = agent._trainer, agent.policy
    assert policy is not None
    assert policy.patient_network is not None
    with torch.no_grad():  # the initial policy is nearly uniform, and its gradients are tiny
        policy.body[-1].weight.mul_(100)
    rollout = play(trainer.env, policy, [0, 0, 1, 1, 2, 2], torch.Generator().manual_seed(0))
    advantages = trainer.advantages(rollout)
    weight = torch.full((6,), 1 / 6)

    def loss() -> torch.Tensor:
        return trainer.loss(rollout, advantages, weight)[0]

    loss().backward()
    for layer in (policy.patient_network.first, policy.patient_network.second):
        weights, slopes = layer.weight, layer.weight.grad
        assert slopes is not None
        flat = int(slopes.abs().argmax())
        place, step = divmod(flat, weights.shape[1]), 2e-2
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                weights[place] += sign * step
                sides.append(float(loss()))
                weights[place] -= sign * step
        assert abs(float(slopes[place])) > 1e-3
        assert (sides[0] - sides[1]) / (2 * step) == pytest.approx(float(slopes[place]), rel=0.03)


@pytest.mark.parametrize("baseline", ["none", "leave-one-out", "critic"])
def test_an_update_changes_the_encoder_and_resuming_goes_on_with_it(baseline: Any) -> None:
    config = replace(CONFIG, baseline=baseline, dropout=0.4)
    whole, cut, resumed = _begun(config), _begun(config), _begun(config, seed=1)
    assert whole.policy is not None
    before = {name: value.clone() for name, value in whole.policy.state_dict().items()}
    for agent in (whole, cut):
        agent.update()
    resumed.go_on(*cut.progress())
    assert whole.update() == resumed.update()
    assert resumed.policy is not None
    changed = {name for name, value in whole.policy.state_dict().items() if not torch.equal(value, before[name])}
    assert {"patient_network.first.weight", "patient_network.second.weight"} <= changed
    for name, value in resumed.policy.state_dict().items():
        assert torch.equal(value, whole.policy.state_dict()[name]), name


def test_without_it_a_policy_has_the_initial_weights_that_it_always_had() -> None:
    learned, prepared = _begun(), _begun(replace(CONFIG, patient_vector="prepared"))
    assert learned.policy is not None
    assert prepared.policy is not None
    own = prepared.policy.state_dict()
    assert {name for name in learned.policy.state_dict() if name not in own} == {
        f"patient_network.{layer}.{kind}" for layer in ("first", "second") for kind in ("weight", "bias")
    }
    for name, value in own.items():
        assert torch.equal(value, learned.policy.state_dict()[name]), name


def _fitted() -> tuple[NetworkAgent, Problem]:
    """A fitted agent, and its patients as a problem without a reward."""
    agent, problem = make("leave-one-out", CONFIG), make_problem(30, form=FORM)
    assert isinstance(agent, NetworkAgent)
    with suppress(BudgetExceededError):
        agent.fit(problem)
    return agent, make_problem(judged=False, form=FORM)


def test_a_saved_agent_edits_alike_and_has_no_check_ups_in_its_files(tmp_path: Path) -> None:
    agent, problem = _fitted()
    agent.save(tmp_path)
    again = load(tmp_path)
    assert again.refine(problem) == agent.refine(problem)
    described = json.loads((tmp_path / "config.json").read_text())
    assert described["learned"] == {
        "checkups": {"indicators": ["hgb", "alt"], "units": ["g/L", "U/L"], "max_checkups": 3}
    }
    again.save(tmp_path / "again")
    assert (tmp_path / "again" / "config.json").read_text() == (tmp_path / "config.json").read_text()


def test_it_acts_on_observations_with_check_ups_and_says_so_where_there_are_none() -> None:
    agent, problem = _fitted()
    task = make_task(problem.episodes, n_edits=N_EDITS)
    env = problem.env(6, patient="checkups", array_type="numpy")
    observation, _ = env.reset(options={"episode": np.arange(6)})
    first = [edits[0].slot for edits in agent.refine(problem)]
    assert np.asarray(agent.act(observation)).tolist() == first
    vectors = {**observation, "patient": task.episodes.vectors}
    with pytest.raises(
        ValueError, match=r'check-ups of 12 numbers, and .* 128 .*: make the env with patient="checkups"'
    ):
        agent.act(vectors)


def test_it_refines_before_it_is_fitted() -> None:
    assert [len(edits) for edits in NetworkAgent(CONFIG).refine(make_problem(judged=False, form=FORM))] == [N_EDITS] * 6


def test_patients_without_check_ups_or_with_others_are_refused() -> None:
    agent, _ = _fitted()
    bare, other = (make_problem(judged=False, form=form) for form in (None, replace(FORM, units=("g/dL", "U/L"))))
    with pytest.raises(ValueError, match="lack their patients' check-ups"):
        agent.refine(bare)
    with pytest.raises(ValueError, match="lack their patients' check-ups"):
        NetworkAgent(CONFIG).begin(bare)
    with pytest.raises(ValueError, match="differ from those in training in their indicators, units or number"):
        agent.refine(other)


@pytest.mark.parametrize(
    ("learned", "message"),
    [
        ({}, "learned contains nothing; for the agent leave-one-out it should contain 'checkups'"),
        ({"checkups": 3}, "it is 3: use a table"),
        ({"checkups": {"indicators": ["a"], "units": ["g"], "max_checkups": 2**40}}, "at most 524,288 values"),
        ({"checkups": {"indicators": ["a"], "units": ["g"], "max_checkups": 3}}, "first.weight is F32"),
        (
            {"checkups": {"indicators": ["a"], "units": ["g"], "max_checkups": 3}, "x": 1},
            "it should contain 'checkups'",
        ),
    ],
)
def test_a_saved_agent_that_was_changed_is_one_line(tmp_path: Path, learned: dict[str, Any], message: str) -> None:
    _fitted()[0].save(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "learned": learned}))
    with pytest.raises(ValueError, match=message) as found:
        load(tmp_path)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patient_vector": "own"}, r"patient_vector is 'own': use one of \('prepared', 'learned'\)"),
        ({"patient_vector": "learned", "patient": False}, "patient_vector has no effect without patient"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NetworkConfig(**settings)
