"""Which rule single-rule chose: the places that it deletes from every prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agents import registry
from agents.baselines.single_rule import RolePlace, role_places
from agents.evaluation.variants import AGENT, RULE
from pmlm_env.core.traces import Trace

#: What the page and the terminal call the variants that one rule edits.
_NAMES = {AGENT: f"The agent {registry.RULE}", RULE: "The best single rule"}

#: Minimum number of prompts that have a word at a place, for the word to be named.
_FEWEST = 3


@dataclass(frozen=True)
class RuleWord:
    """A place that a rule deletes.

    Attributes:
        role: The role of the words there.
        place: Their place among the words of that role, counted from 1.
        word: The word that most prompts have there.
        same: In how many of the prompts it is that word.
        prompts: From how many prompts the place was deleted.
    """

    role: str
    place: int
    word: str
    same: int
    prompts: int

    def __str__(self) -> str:
        """Return the place, and the word if most prompts have the same one, and enough to be no patient's own."""
        common = self.same >= _FEWEST and 2 * self.same > self.prompts
        return f"{self.role} {self.place}" + (f' ("{self.word}")' if common else "")


def rules_of(traces: Iterable[Trace]) -> dict[str, list[RuleWord]]:
    """Return the places that each rule deleted, by variant: of the best single rule, and of the agent if it is one.

    Args:
        traces: Traces of one evaluation.

    Returns:
        For each such variant its places, most promising first; an empty list if it deleted nothing.
    """
    found: dict[str, dict[RolePlace, list[tuple[int, str]]]] = {}
    for trace in traces:
        if trace.error or not (trace.variant == RULE or (trace.variant == AGENT and trace.agent == registry.RULE)):
            continue
        places = role_places(trace.roles)
        of_rule = found.setdefault(trace.variant, {})
        for step, edit in enumerate(trace.edits):
            of_rule.setdefault(places[edit.slot], []).append((step, trace.words[edit.slot]))
    return {variant: _in_order(of_rule) for variant, of_rule in found.items()}


def rule_lines(traces: Iterable[Trace]) -> list[str]:
    """Return a sentence for each rule: which places it deletes; see ``rules_of``."""
    return [f"{_NAMES[variant]} deletes {_listed(rule)}." for variant, rule in rules_of(traces).items()]


def _in_order(of_rule: dict[RolePlace, list[tuple[int, str]]]) -> list[RuleWord]:
    """Return the places by the latest step at which they went, at which no place of the rule was missing before."""
    ordered = sorted(of_rule.items(), key=lambda item: max(step for step, _ in item[1]))
    rule = []
    for (role, place), steps in ordered:
        word, same = Counter(word for _, word in steps).most_common(1)[0]
        rule.append(RuleWord(role, place + 1, word, same, len(steps)))
    return rule


def _listed(rule: Sequence[RuleWord]) -> str:
    if not rule:
        return "nothing: no rule that was tried raised the score of training patients, or no prompt has its places"
    places = ", ".join(map(str, rule))
    return f"from every prompt, by role and place among the words of that role: {places}"
