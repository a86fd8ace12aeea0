"""Which rule single-rule or phrase-rule chose: what it deletes from every prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from agents import registry
from agents.baselines.phrase_rule import Phrase, PhraseRule, phrases
from agents.baselines.single_rule import Unit, role_places
from agents.evaluation.variants import AGENT, RULE
from pmlm_env.core.traces import Trace
from pmlm_env.core.words import joined

#: The agents that are rules: how each divides a prompt, and what its units are.
_RULES: Mapping[str, tuple[Callable[[Trace], Sequence[Unit]], str]] = MappingProxyType(
    {
        registry.RULE: (
            lambda trace: role_places(trace.roles),
            "by role and place among the words of that role",
        ),
        PhraseRule.name: (
            lambda trace: phrases(trace.words, trace.roles),
            'by role, sentence and phrase (marked ones have a word in brackets, such as "(high)")',
        ),
    }
)

#: Minimum number of prompts that have the same words at a place, for the words to be named.
_FEWEST = 3


@dataclass(frozen=True)
class RulePart:
    """What a rule deletes together.

    Attributes:
        unit: The role and place of a word, or the phrase; see the agent.
        text: The words that most prompts have there.
        same: In how many of the prompts it is these words.
        prompts: From how many prompts they were deleted.
    """

    unit: Unit
    text: str
    same: int
    prompts: int

    def __str__(self) -> str:
        """Return the place, and the words if most prompts have the same, and enough to be no patient's own."""
        common = self.same >= _FEWEST and 2 * self.same > self.prompts
        return _where(self.unit) + (f' ("{self.text}")' if common else "")


def rules_of(traces: Iterable[Trace]) -> dict[tuple[str, str], list[RulePart]]:
    """Return what each rule deleted, by variant and agent: of the best single rule, and of the agent if it is a rule.

    Args:
        traces: Traces of one evaluation.

    Returns:
        For each such variant its parts, most promising first; an empty list if it deleted nothing.
    """
    found: dict[tuple[str, str], dict[Unit, list[tuple[int, str]]]] = {}
    for trace in traces:
        agent = registry.RULE if trace.variant == RULE else trace.agent
        if trace.error or trace.variant not in (RULE, AGENT) or agent not in _RULES:
            continue
        divided, _ = _RULES[agent]
        units = divided(trace)
        of_rule = found.setdefault((trace.variant, agent), {})
        for rank, unit in enumerate(dict.fromkeys(units[edit.slot] for edit in trace.edits)):
            gone = [edit.slot for edit in trace.edits if units[edit.slot] == unit]
            text = joined(trace.words, trace.spaces, [slot in gone for slot in range(len(trace.words))])
            of_rule.setdefault(unit, []).append((rank, text))
    return {key: _in_order(of_rule) for key, of_rule in found.items()}


def rule_lines(traces: Iterable[Trace]) -> list[str]:
    """Return a sentence for each rule: what it deletes; see ``rules_of``."""
    return [
        f"{'The best single rule' if variant == RULE else f'The agent {agent}'} deletes {_listed(rule, agent)}."
        for (variant, agent), rule in rules_of(traces).items()
    ]


def _in_order(of_rule: Mapping[Unit, list[tuple[int, str]]]) -> list[RulePart]:
    """Return the parts by their latest rank in a prompt, in which no part of the rule was missing before."""
    ordered = sorted(of_rule.items(), key=lambda item: max(rank for rank, _ in item[1]))
    rule = []
    for unit, found in ordered:
        text, same = Counter(text for _, text in found).most_common(1)[0]
        rule.append(RulePart(unit, text, same, len(found)))
    return rule


def _where(unit: Unit) -> str:
    if not isinstance(unit, Phrase):
        role, place = unit
        return f"{role} {int(place) + 1}"
    last = unit.place + 1 if unit.place < 4 else 2 * unit.place  # a group of phrases
    numbers = f"phrase {last}" if last == unit.place + 1 else f"phrases {unit.place + 1} to {last}"
    return f"{unit.role} {unit.sentence + 1}, {'' if unit.marked else 'un'}marked {numbers}"


def _listed(rule: Sequence[RulePart], agent: str) -> str:
    if not rule:
        return "nothing: no rule that was tried raised the score of training patients, or no prompt has its places"
    return f"from every prompt, {_RULES[agent][1]}: {'; '.join(map(str, rule))}"
