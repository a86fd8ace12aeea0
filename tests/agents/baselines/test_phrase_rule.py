"""PhraseRule, on prompts whose best phrases to delete are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from agents.base import Agent
from agents.baselines.deletions import kept_after
from agents.baselines.phrase_rule import Phrase, PhraseRule, phrases
from agents.baselines.single_rule import SingleRule
from agents.problem import BudgetSpentError, MeteredReward, Problem, blind
from pmlm_env.core.episodes import Episode, EpisodeSet
from tests.problems import slots_of
from tests.standins import HashEncoder, MarkedWordsReward, make_episodes

PENALTY = 0.02
N_EDITS = 0.9


def _patient(number: int, worth_deleting: Callable[[bool], bool]) -> Episode:
    """A prompt with eight values, of which a number that differs from patient to patient is marked as high.

    Args:
        number: Decides which values are high.
        worth_deleting: Whether the words of a value, given whether it is high, are better deleted.
    """
    words = ["Tests", "suggest", "anemia.", "Values:"]
    roles = ["self"] * 4
    for value in range(8):
        high = (number >> value) % 2 == 1
        star = "*" if worth_deleting(high) else ""
        words += [f"indicator{value}{star}", f"{number}.{value}{star}", "(high)," if high else "g/L,"]
    roles += ["self"] * (len(words) - 4)
    words += ["Write", "a", "note."]
    roles += ["instruction"] * 3
    return replace(make_episodes(1)[0], patient_id=f"P{number}", words=tuple(words), roles=tuple(roles))


def _patients(worth_deleting: Callable[[bool], bool], numbers: Sequence[int]) -> EpisodeSet:
    return EpisodeSet([_patient(number, worth_deleting) for number in numbers])


def _problem(episodes: EpisodeSet, limit: int | None, n_edits: float = N_EDITS) -> Problem:
    return Problem(episodes, HashEncoder(), MeteredReward(MarkedWordsReward(episodes, PENALTY), limit), n_edits)


def _gain(agent: Agent, episodes: EpisodeSet) -> float:
    judge, everyone = _problem(episodes, None), np.arange(len(episodes))
    kept = kept_after(judge, everyone, slots_of(agent.refine(judge)))
    return float(judge.judge(everyone.tolist(), kept).delta.mean())


def test_phrases_of_a_prompt() -> None:
    text = "Her tests suggest anemia 61%, normal 30%. Values: iron 3 (low), ALT 2.5 U/L, AST 9 (high)."
    words = [*text.split(), "Begin", "with", '"Note:"', "and", "end."]
    roles = ["self"] * words.index("Begin") + ["instruction"] * 5
    found = phrases(words, roles)
    assert len(found) == len(words)
    grouped = {phrase: " ".join(w for w, p in zip(words, found, strict=True) if p == phrase) for phrase in found}
    assert grouped == {
        Phrase("self", 0, False, 0): "Her tests suggest anemia 61%,",
        Phrase("self", 0, False, 1): "normal 30%.",
        Phrase("self", 1, False, 0): "Values:",
        Phrase("self", 1, True, 0): "iron 3 (low),",
        Phrase("self", 1, False, 1): "ALT 2.5 U/L,",
        Phrase("self", 1, True, 1): "AST 9 (high).",
        Phrase("instruction", 0, False, 0): 'Begin with "Note:"',
        Phrase("instruction", 0, False, 1): "and end.",
    }


def test_a_long_list_forms_few_groups_and_a_role_ends_a_phrase() -> None:
    places = [phrase.place for phrase in phrases(["a,"] * 20, ["peer"] * 20)]
    assert places == [0, 1, 2, 3, *[4] * 4, *[8] * 8, *[16] * 4]
    assert phrases(["a", "b", "c"], ["self", "peer", "self"]) == [
        Phrase("self", 0, False, 0),
        Phrase("peer", 0, False, 0),
        Phrase("self", 1, False, 0),
    ]


def test_a_number_in_brackets_marks_nothing_and_chinese_punctuation_ends_phrases() -> None:
    assert not phrases(["anemia", "(0.98),"], ["peer"] * 2)[0].marked
    chinese = phrases(["铁", "3", "（低）", "，", "血糖", "5", "。"], ["self"] * 7)
    assert [(phrase.marked, phrase.place) for phrase in chinese] == [(True, 0)] * 4 + [(False, 0)] * 3


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("high", [False, True], ids=["not marked", "marked"])
def test_it_finds_what_differs_from_patient_to_patient(high: bool, seed: int) -> None:
    """Which values to delete differs between patients, so that no rule of places has them."""
    training = _patients(lambda it: it == high, range(20, 60))
    rule = PhraseRule(seed=seed)
    rule.fit(_problem(training, 600))
    assert {phrase[2] for phrase in rule.rule if phrase[0] == "self"} == {high}
    unseen = _patients(lambda it: it == high, range(100, 130))
    slots = slots_of(rule.refine(Problem(blind(unseen), HashEncoder(), None, N_EDITS)))
    starred = [{word for word in episode.words if "*" in word} for episode in unseen]
    found = sum(
        len({episode.words[slot] for slot in chosen} & own)
        for episode, chosen, own in zip(unseen, slots, starred, strict=True)
    )
    assert found > 0.9 * sum(map(len, starred))
    words = SingleRule(seed=seed)
    words.fit(_problem(training, 600))
    assert _gain(rule, unseen) > _gain(words, unseen)


def test_where_every_deletion_harms_nothing_is_deleted() -> None:
    problem = _problem(_patients(lambda _: False, range(20, 60)), 400)
    rule = PhraseRule()
    rule.fit(problem)
    assert rule.rule == ()
    assert problem.reward.calls > 250  # it did search


@pytest.mark.parametrize("limit", [0, 1, 2, 30, 300])
@pytest.mark.parametrize("n_edits", [0, 2, N_EDITS])
def test_a_limit_is_never_overshot_and_never_run_into(limit: int, n_edits: float) -> None:
    problem = _problem(_patients(lambda high: high, range(20, 60)), limit, n_edits)
    try:
        PhraseRule().fit(problem)
    except BudgetSpentError:
        pytest.fail("it asked for more than there was")
    assert problem.reward.calls <= limit


def test_groups_are_deleted_whole_until_the_edit_budget_ends_and_never_where_protected() -> None:
    episode = _patient(0b00000101, lambda _: False)
    rule = PhraseRule()
    rule.rule = (Phrase("self", 1, True, 1), Phrase("self", 1, False, 4), Phrase("self", 1, False, 9))
    whole = slots_of(rule.refine(Problem(EpisodeSet([episode]), HashEncoder(), None, 30)))[0]
    assert [episode.words[slot] for slot in whole[:3]] == ["indicator2", "5.2", "(high),"]
    assert len(whole) == 3 + 9  # the unmarked phrases 4, 5 and 6; there is no phrase 9
    assert slots_of(rule.refine(Problem(EpisodeSet([episode]), HashEncoder(), None, 5)))[0] == whole[:5]
    protected = Problem(EpisodeSet([episode]), HashEncoder(), None, 30, protect=("self",))
    assert slots_of(rule.refine(protected)) == [()]


def test_the_same_seed_finds_the_same_rule_and_another_seed_may_find_another() -> None:
    training = _patients(lambda high: high, range(20, 60))
    rules = []
    for seed in (0, 0, 1, 2, 3):
        rules.append(PhraseRule(seed=seed))
        rules[-1].fit(_problem(training, 100))
    assert rules[0].rule == rules[1].rule != ()
    assert len({each.rule for each in rules}) > 1
