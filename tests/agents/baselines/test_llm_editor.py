"""An LLM as editor: what it is shown, what it deletes, what it costs, and what of it is saved."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agents.base import Agent
from agents.problem import BudgetSpentError, Editor, MeteredReward, Problem, blind
from agents.registry import load, make, settings_of
from pmlm_env.core.numbered import numbered_words
from pmlm_env.llm import LLM, BudgetExceededError, LLMError
from tests.editors import HashedEditor, MarkedWordsEditor, ScriptedEditor
from tests.problems import slots_of
from tests.standins import HashEncoder, MarkedWordsReward, make_episodes

EDITORS = ("llm-editor", "llm-editor-few-shot")


def _offered(llm: LLM) -> Callable[[Editor], LLM]:
    return lambda _: llm


def _training(llm: LLM, limit: int = 90, n: int = 20, per_prompt: int = 1) -> Problem:
    episodes = make_episodes(n)
    meter = MeteredReward(MarkedWordsReward(episodes, penalty=0.05), limit, per_prompt)
    return Problem(episodes, HashEncoder(), meter, 3, protect=("peer",), editor=_offered(llm))


def _unseen(llm: LLM, n: int = 8) -> Problem:
    return Problem(blind(make_episodes(n, seed=9)), HashEncoder(), None, 3, protect=("peer",), editor=_offered(llm))


def _fitted(name: str, llm: LLM, seed: int = 0, **settings: int) -> Agent:
    agent = make(name, settings_of(name, changes=settings), seed)
    agent.fit(_training(llm))
    return agent


@pytest.mark.parametrize("name", EDITORS)
def test_the_words_that_the_llm_names_are_deleted(name: str) -> None:
    llm = MarkedWordsEditor()
    problem = _unseen(llm)
    edits = slots_of(_fitted(name, llm).refine(problem))
    for slots, episode, legal in zip(edits, problem.episodes, problem.batch(range(8)).legal, strict=True):
        assert slots == tuple(slot for slot, word in enumerate(episode.words) if "*" in word and legal[slot])


def test_without_examples_it_learns_nothing_and_asks_once_for_each_prompt() -> None:
    llm = MarkedWordsEditor()
    training = _training(llm)
    agent = make("llm-editor")
    agent.fit(training)
    assert (training.reward.calls, llm.asked) == (0, [])
    problem = _unseen(llm)
    agent.refine(problem)
    assert len(llm.asked) == 8
    batch = problem.batch([0])
    assert numbered_words(problem.episodes[0], batch.kept[0], batch.legal[0]) in llm.asked[0]
    assert "at most 3 words" in llm.asked[0]


def test_an_answer_is_read_by_the_documented_rules_and_what_was_ignored_is_counted() -> None:
    llm = ScriptedEditor("0, 0, 99, 1", "none", "What?", "0-5", "")
    agent = make("llm-editor")
    edits = slots_of(agent.refine(_unseen(llm, 5)))
    assert edits == [(0, 1), (), (), (0, 1, 2), ()]
    assert agent.counts == {
        "prompts": 5, "deleted": 5, "repeated": 1, "not_deletable": 1, "fewer": 3, "unreadable": 1, "over_budget": 3,
        "failed": 1,
    }  # fmt: skip


def test_if_no_request_has_an_answer_that_is_an_error() -> None:
    with pytest.raises(LLMError, match="no answer"):
        make("llm-editor").refine(_unseen(ScriptedEditor("", ""), 2))


def test_a_request_that_fails_is_one_warning_and_leaves_the_prompt(caplog: pytest.LogCaptureFixture) -> None:
    make("llm-editor").refine(_unseen(ScriptedEditor("0", "", "1"), 3))
    assert "1 of 3 prompts stay as they are" in caplog.text


def test_examples_are_the_training_prompts_with_the_best_judged_deletions() -> None:
    llm = HashedEditor()
    agent = _fitted("llm-editor-few-shot", llm, examples=2)
    training = _training(llm)
    shown = {
        numbered_words(e, kept, legal): e
        for e, kept, legal in zip(
            training.episodes, training.batch(range(20)).kept, training.batch(range(20)).legal, strict=True
        )
    }
    assert len(agent.examples) == 2
    gains = []
    for example in agent.examples:
        episode = shown[example.prompt]
        marked = sum("*" in episode.words[slot] for slot in example.deleted)
        gains.append(0.1 * marked - 0.05 * (len(example.deleted) - marked))
        assert f"{example.prompt}\nAnswer: {', '.join(map(str, example.deleted))}" in _asked(agent)
    assert gains == sorted(gains, reverse=True)
    assert min(gains) > 0


def _asked(agent: Agent) -> str:
    llm = MarkedWordsEditor()
    agent.refine(_unseen(llm, 1))
    return llm.asked[0]


@pytest.mark.parametrize("limit", [9, 10, 27, 90])
@pytest.mark.parametrize("per_prompt", [1, 3])
def test_the_search_for_examples_keeps_within_the_budget_and_asks_the_editor_nothing(
    limit: int, per_prompt: int
) -> None:
    llm = MarkedWordsEditor()
    training = _training(llm, limit * per_prompt, per_prompt=per_prompt)
    agent = make("llm-editor-few-shot")
    agent.fit(training)
    assert 0 < training.reward.calls <= limit * per_prompt
    assert llm.asked == []


def test_a_budget_too_small_for_one_example_says_what_is_needed() -> None:
    agent = make("llm-editor-few-shot")
    with pytest.raises(BudgetSpentError, match="an example needs 9 completions, but 8 are left") as spent:
        agent.fit(_training(MarkedWordsEditor(), 8))
    assert spent.value.needed == 9
    assert slots_of(agent.refine(_unseen(MarkedWordsEditor(), 1)))  # without examples


def test_if_no_deletion_helped_there_is_no_example(caplog: pytest.LogCaptureFixture) -> None:
    episodes = make_episodes(4, n_marked=0)
    meter = MeteredReward(MarkedWordsReward(episodes, penalty=0.05), 36)
    agent = make("llm-editor-few-shot")
    agent.fit(Problem(episodes, HashEncoder(), meter, 3, editor=_offered(MarkedWordsEditor())))
    assert agent.examples == ()
    assert "has no example to show" in caplog.text


@pytest.mark.parametrize("name", EDITORS)
def test_a_saved_agent_asks_the_same(name: str, tmp_path: Path) -> None:
    agent = _fitted(name, HashedEditor())
    agent.save(tmp_path)
    assert _asked(load(tmp_path)) == _asked(agent)
    assert load(tmp_path).holds_prompts == (name == "llm-editor-few-shot")


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ("x", "examples is 'x': use a list of at most 3"),
        ([{}] * 4, "use a list of at most 3"),
        ([{"prompt": "a"}], "use an object with prompt and deleted"),
        ([{"prompt": "", "deleted": []}], "an example's prompt should be text"),
        ([{"prompt": "a" * 200_001, "deleted": []}], "at most 200,000 characters"),
        ([{"prompt": "a", "deleted": [-1]}], "use a list of whole numbers"),
        ([{"prompt": "a", "deleted": [True]}], "use a list of whole numbers"),
    ],
)
def test_damaged_examples_are_one_line(examples: object, message: str, tmp_path: Path) -> None:
    _fitted("llm-editor-few-shot", HashedEditor()).save(tmp_path)
    file = tmp_path / "config.json"
    content = json.loads(file.read_text())
    content["learned"]["examples"] = examples
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llm-editor", {"editor_tokens": 0}, "editor_tokens is 0"),
        ("llm-editor", {"editor_calls": 0}, "editor_calls is 0"),
        ("llm-editor-few-shot", {"examples": 0}, "examples must be from 1"),
        ("llm-editor-few-shot", {"candidates": 0}, "candidates 1 or more"),
    ],
)
def test_settings_out_of_range_are_refused(name: str, changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings_of(name, changes=changes)


def test_a_limit_of_calls_holds_for_a_problem_on_its_own() -> None:
    settings = settings_of("llm-editor", changes={"editor": "tests.editors:MarkedWordsEditor", "editor_calls": 2})
    problem = Problem(blind(make_episodes(3)), HashEncoder(), None, 3)
    with pytest.raises(BudgetExceededError, match="LLM call limit of 2"):
        make("llm-editor", settings).refine(problem)


def test_a_class_that_a_saved_agent_names_is_imported_only_if_allowed(tmp_path: Path) -> None:
    settings = settings_of("llm-editor", changes={"editor": "tests.editors:MarkedWordsEditor"})
    problem = Problem(blind(make_episodes(3)), HashEncoder(), None, 3)
    agent = make("llm-editor", settings)
    agent.fit(problem)
    agent.save(tmp_path)
    with pytest.raises(ValueError, match="give --allow-import to run it"):
        load(tmp_path).refine(problem)
    assert load(tmp_path, allow_import=True).refine(problem) == agent.refine(problem)


def test_numbered_words_keep_their_numbers_as_others_go() -> None:
    episode = make_episodes(1)[0]
    kept, legal = np.ones(12, dtype=bool), np.ones(12, dtype=bool)
    kept[1] = legal[1] = legal[0] = False
    first = numbered_words(episode, kept, legal).splitlines()[0]
    assert first == f"background: {episode.words[0]} 2:{episode.words[2]}"


@pytest.fixture(autouse=True)
def _shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
