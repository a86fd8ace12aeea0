"""The edit budget as a share of a prompt's words: every agent and every search keeps within it, prompt by prompt."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from agents.base import Agent
from agents.evaluation.heat_map import edit_counts
from agents.problem import BudgetSpentError, MeteredReward, Problem, blind
from agents.registry import AGENTS, load, make, settings_of
from agents.search.oracle import search_prompts
from agents.search.searches import SEARCHES
from agents.serving.refine import Refiner
from pmlm_env.core.edits import EditRules, apply_edits
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.envs.lite import LiteReward, PMLMLiteVectorEnv, lite_episodes
from tests.agents.evaluation.made_up import make_trace
from tests.commands import pmlm
from tests.problems import slots_of
from tests.standins import HashEncoder, MarkedWordsReward, make_episodes
from tests.tiny_models import save_model

pytestmark = pytest.mark.once

#: Small settings, so that every agent is fitted within a fraction of a second.
_SMALL: dict[str, Any] = {
    "hidden": 4, "width": 3, "patients": 3, "rollouts": 2, "rows": 4, "row_episodes": 1, "gradient_steps": 1,
    "batch_size": 4, "learning_starts": 4, "model": "bigram", "editor": "responder",
}  # fmt: skip


def _agent(name: str) -> Agent:
    own = {each.name for each in fields(AGENTS[name].config)}
    return make(name, settings_of(name, changes={key: value for key, value in _SMALL.items() if key in own}))


def _problem(n_edits: float, lengths: tuple[int, ...] = (12,) * 6, **options: Any) -> Problem:
    episodes = EpisodeSet([make_episodes(1, n, 3, seed)[0] for seed, n in enumerate(lengths)])
    return Problem(episodes, HashEncoder(), MeteredReward(MarkedWordsReward(episodes), 24), n_edits, **options)


def _unseen(problem: Problem) -> Problem:
    return Problem(blind(problem.episodes), HashEncoder(), None, problem.n_edits, protect=problem.protect)


def _fitted(name: str, problem: Problem) -> Agent:
    agent = _agent(name)
    with suppress(BudgetSpentError):
        agent.fit(problem)
    return agent


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_does_the_same_with_a_share_as_with_the_number_of_words_that_it_amounts_to(name: str) -> None:
    number, share = _problem(3), _problem(0.25)
    one, other = _fitted(name, number), _fitted(name, share)
    assert slots_of(one.refine(_unseen(number))) == slots_of(other.refine(_unseen(share)))
    assert number.reward.history == share.reward.history


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_edits_each_prompt_within_its_own_budget(name: str) -> None:
    problem = _problem(0.25, (4, 12, 20, 6), protect=("instruction",))
    budgets = [1, 3, 5, 2]  # 1, 3, 5 and 1.5 words, rounded half up
    assert problem.budgets.tolist() == budgets
    agent = _fitted(name, problem)
    edits = agent.refine(_unseen(problem))
    slots = slots_of(edits)
    assert [len(each) <= budget for each, budget in zip(slots, budgets, strict=True)] == [True] * 4
    if name == "random-n":
        assert [len(each) for each in slots] == budgets
    apply_edits(problem.episodes, range(4), edits, EditRules(0.25, protect=("instruction",)))


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_does_the_same_with_a_share_and_keeps_within_each_prompts_budget(name: str) -> None:
    found, alike = (search_prompts(_problem(n), range(6), SEARCHES[name], budget=4) for n in (3, 0.25))
    assert [each.deleted for each in found] == [each.deleted for each in alike]
    problem = _problem(0.25, (4, 20, 6, 20))
    for each, budget in zip(search_prompts(problem, range(4), SEARCHES[name], budget=6), (1, 5, 2, 5), strict=True):
        assert max(len(candidate.deleted) for candidate in each.candidates) <= budget


def test_a_saved_agent_keeps_its_share(tmp_path: Path) -> None:
    problem = _problem(0.25, (12, 20))
    _fitted("random-n", problem).save(tmp_path / "agent")
    loaded = load(tmp_path / "agent")
    assert loaded.shape is not None
    assert loaded.shape.n_edits == 0.25
    assert [len(each.edits) for each in Refiner(loaded, HashEncoder()).refine_all(problem.episodes)] == [3, 5]


def test_a_run_with_a_share_is_not_resumed_with_the_equal_number_of_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lite_episodes({"train": 4}).save(tmp_path / "prepared")
    save_model(tmp_path / "model", "bert", 40)
    run = ["--run", tmp_path / "run"]
    models = ["--llm", "responder", "--encoder", tmp_path / "model", "--scorer", tmp_path / "model", "--device", "cpu"]
    new = ["--episodes", tmp_path / "prepared", "--agent", "keep-all", "--n-edits", "1.0", *models]
    assert pmlm("train", *run, *new) == 0
    before = (tmp_path / "run" / "config.json").read_text()
    capsys.readouterr()
    assert pmlm("train", *run, "--resume", "--n-edits", "1") == 2
    assert "config.json has other values of models.n_edits" in capsys.readouterr().err
    assert (tmp_path / "run" / "config.json").read_text() == before
    assert pmlm("train", *run, "--resume", "--n-edits", "1.0") == 0


def test_a_heat_map_has_a_row_for_each_step_of_the_longest_episode() -> None:
    problem = _problem(0.25, (4, 20))
    edits = _fitted("random-n", problem).refine(_unseen(problem))
    traces = [make_trace(episode, edits=each) for episode, each in zip(problem.episodes, edits, strict=True)]
    assert edit_counts(traces).sum(axis=1).tolist() == [2, 1, 1, 1, 1]


def test_prompts_that_a_share_may_empty_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    _problem(0.5, (4, 12), protect=("background", "self", "peer")).warn_of_short_prompts()
    assert "2 of 2 prompts have no more words that may be edited than the edit budget, 0.5:" in caplog.text
    caplog.clear()
    _problem(0.25, (4, 12)).warn_of_short_prompts()
    assert not caplog.text


def test_lites_best_deletions_of_a_share_are_those_of_the_number_that_it_amounts_to() -> None:
    reward = LiteReward(lite_episodes({"train": 4}))
    for index, length in enumerate(reward.episodes.lengths.tolist()):
        assert reward.best(index, 0.1) == reward.best(index, (length + 5) // 10)


@pytest.mark.parametrize("vector", [False, True])
def test_an_episode_of_the_env_has_as_many_steps_as_the_share_amounts_to(vector: bool) -> None:
    options: dict[str, Any] = {"n_edits": 0.1, "observation": "index"}
    env: Any = PMLMLiteVectorEnv(1, **options) if vector else gym.make("PMLMLite-v0", **options)
    lengths = env.unwrapped.task.episodes.lengths
    for index in (int(lengths.argmin()), int(lengths.argmax())):
        _, info = env.reset(options={"episode": index})
        steps, over = 0, False
        while not over:
            slot = info["action_mask"].argmax(axis=-1)
            _, _, terminated, _, info = env.step(slot)
            steps, over = steps + 1, bool(np.all(terminated))
        assert steps == (lengths[index] + 5) // 10
    assert lengths.min() < lengths.max()
