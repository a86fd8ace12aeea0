"""Which rule single-rule or phrase-rule chose, as its traces tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from agents.baselines.phrase_rule import Phrase, PhraseRule
from agents.baselines.single_rule import SingleRule
from agents.evaluation.rules import RulePart, rule_lines, rules_of
from agents.problem import Problem
from pmlm_env.core.edits import Edit
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.traces import Trace
from pmlm_env.envs.lite import HashedEncoder, lite_episodes
from tests.agents.evaluation.made_up import EPISODE, make_trace


def trace_of(words: Sequence[str], slots: Sequence[int], agent: str = "lexicon", variant: str = "single_rule") -> Trace:
    episode = replace(EPISODE, words=tuple(words), roles=("self", *["peer"] * (len(words) - 1)))
    edits = tuple(Edit("delete", slot, words[slot]) for slot in slots)
    return replace(make_trace(episode, variant=variant, edits=edits), agent=agent)


def test_the_places_are_those_of_the_rule_in_its_order() -> None:
    everybody = lite_episodes()
    patients = EpisodeSet([*everybody.of("test")][:20], everybody.conditions)
    agent = SingleRule()
    agent.rule = (("instruction", 3), ("self", 0), ("peer", 5))
    problem = Problem(patients, HashedEncoder(), None, 10)
    traces = [
        replace(make_trace(episode, variant="single_rule"), edits=edits)
        for episode, edits in zip(patients, agent.refine(problem), strict=True)
    ]
    (rule,) = rules_of(traces).values()
    assert [each.unit for each in rule] == list(agent.rule)
    assert sum(each.prompts for each in rule) == np.sum([len(trace.edits) for trace in traces])


def test_prompts_that_lack_places_do_not_change_the_order() -> None:
    traces = [trace_of("abc", [2, 0, 1]), trace_of("ab", [0, 1]), trace_of("a", [0])]
    (rule,) = rules_of(traces).values()
    assert rule == [
        RulePart(("peer", 1), "c", 1, 1),
        RulePart(("self", 0), "a", 3, 3),
        RulePart(("peer", 0), "b", 2, 2),
    ]


def test_a_word_is_named_only_if_most_prompts_and_at_least_three_have_it() -> None:
    same, other = [trace_of(["x", "y"], [1])] * 3, [trace_of(["x", "540"], [1])]
    assert rule_lines(same)[0].endswith(': peer 1 ("y").')
    assert rule_lines(same[:2])[0].endswith(": peer 1.")
    assert rule_lines([*same, *other, trace_of(["x", "310"], [1]), trace_of(["x", "2"], [1])])[0].endswith(": peer 1.")


def test_only_agents_that_are_rules_have_one_and_one_that_deletes_nothing_says_so() -> None:
    assert rule_lines([trace_of("ab", [0], variant="agent"), trace_of("ab", [0], variant="random")]) == []
    mine = trace_of("ab", [0], agent="single-rule", variant="agent")
    assert rule_lines([mine]) == [
        "The agent single-rule deletes from every prompt, by role and place among the words of that role: self 1."
    ]
    (line,) = rule_lines([trace_of("ab", [])])
    assert line.startswith("The best single rule deletes nothing: ")


def test_phrases_are_named_by_sentence_and_mark() -> None:
    words = "A word. Iron 3 (low), zinc 5, lead 1, tin 1, gold 9, lime 2, end.".split()
    episode = replace(EPISODE, words=tuple(words), roles=("self",) * len(words))
    problem = Problem(EpisodeSet([episode], lite_episodes().conditions), HashedEncoder(), None, 10)
    agent = PhraseRule()
    agent.rule = (Phrase("self", 1, marked=False, place=4), Phrase("self", 1, marked=True, place=0))
    (edits,) = agent.refine(problem)
    traces = [replace(make_trace(episode, variant="agent"), edits=edits, agent="phrase-rule")] * 3
    assert rule_lines(traces) == [
        "The agent phrase-rule deletes from every prompt, by role, sentence and phrase (marked ones have a word in "
        'brackets, such as "(high)"): self 2, unmarked phrases 5 to 8 ("lime 2, end."); '
        'self 2, marked phrase 1 ("Iron 3 (low),").'
    ]
    assert [each.unit for each in rules_of(traces)["agent", "phrase-rule"]] == list(agent.rule)


def test_phrases_of_several_words_do_not_change_the_order() -> None:
    texts = ["a b c d e f, g, end.", "h, i, end.", "j k l m n o p q r."]
    first, second = (Phrase("self", 0, marked=False, place=place) for place in (0, 1))
    agent = PhraseRule()
    agent.rule = (first, second)
    patients = EpisodeSet(
        [
            replace(EPISODE, patient_id=text, words=tuple(text.split()), roles=("self",) * len(text.split()))
            for text in texts
        ],
        lite_episodes().conditions,
    )
    traces = [
        replace(make_trace(episode, variant="agent"), edits=edits, agent="phrase-rule")
        for episode, edits in zip(patients, agent.refine(Problem(patients, HashedEncoder(), None, 10)), strict=True)
    ]
    assert [each.unit for each in rules_of(traces)["agent", "phrase-rule"]] == [first, second]
