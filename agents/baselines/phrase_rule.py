"""The best single rule of whole phrases: for long prompts, of which a rule of words reaches too little."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from reprlib import repr as shortened
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from agents.baselines.deletions import Slots
from agents.baselines.single_rule import SingleRule, Unit
from agents.problem import Problem
from pmlm_env.core.episodes import Episode
from pmlm_env.core.words import Role

_SENTENCE_ENDS = tuple(".?!。？！")
_PHRASE_ENDS = (*_SENTENCE_ENDS, *",;:，；：、")
_CLOSING = "\"'\u201d\u2019」』)]}）】"
_BRACKETS = {"(": ")", "（": "）", "[": "]"}


class Phrase(NamedTuple):
    """What a phrase of one prompt has in common with those of others.

    A phrase ends at a comma, semicolon, colon, or the end of a sentence, and where the role changes.

    Attributes:
        role: The role of its words.
        sentence: The number of its sentence among those of the role, counted from 0.
        marked: Whether it has a word in brackets without a digit, as "(high)" in "ferritin 312 ng/mL (high),".
        place: Its number among the marked, or unmarked, phrases of the sentence, counted from 0; from 4 on, the
            greatest power of two that does not exceed it, so that the phrases of a long list form few groups.
    """

    role: str
    sentence: int
    marked: bool
    place: int


class PhraseRule(SingleRule):
    """Deletes the same phrases from every prompt: the best rule for all patients that this search finds.

    The search is that of ``SingleRule``. But what it explores and deletes are groups of phrases, see ``Phrase``: of a
    list with 35 laboratory values, for example, those that are not marked as high or low. So a rule can be the same
    for everybody and still treat patients differently. A group is deleted whole, unless the edit budget ends it.
    """

    name = "phrase-rule"
    form = "[role, sentence, marked, place]"

    def _units(self, episode: Episode) -> Sequence[Unit]:
        return phrases(episode.words, episode.roles)

    def _largest(self, n_edits: int, n_ranked: int) -> int:
        return n_ranked

    def _draw(self, problem: Problem, patients: npt.NDArray[np.int64], rng: np.random.Generator) -> Slots:
        """Return deletions of random groups from these prompts, of a random number of words each."""
        drawn = []
        for index, legal in zip(patients.tolist(), problem.batch(patients).legal, strict=True):
            groups: dict[Unit, list[int]] = {}
            for slot, unit in enumerate(self._units(problem.episodes[index])):
                if legal[slot]:
                    groups.setdefault(unit, []).append(slot)
            room = int(rng.integers(1, problem.budgets[index] + 1)) if problem.budgets[index] else 0
            slots = list(groups.values())
            order = [slots[number] for number in rng.permutation(len(slots)).tolist()]
            chosen: list[int] = []
            for group in order:
                if len(group) <= room - len(chosen):
                    chosen += group
            if not chosen and order:  # no group fits
                chosen = order[0][:room]
            drawn.append(tuple(chosen))
        return drawn

    def _unit(self, each: Any) -> Unit:
        """Check a unit of a saved rule; see ``SingleRule``."""
        assert self.shape is not None
        if not (isinstance(each, list) and [type(value) for value in each[1:]] == [int, bool, int]):
            raise ValueError(f"rule holds {shortened(each)}: use {self.form}")
        most = self.shape.max_words - 1
        if each[0] not in get_args(Role) or not (0 <= each[1] <= most and 0 <= each[3] <= most):
            raise ValueError(
                f"rule holds {shortened(each)}: use one of {get_args(Role)}, and whole numbers from 0 to {most}"
            )
        return Phrase(*each)


def phrases(words: Sequence[str], roles: Sequence[str]) -> list[Phrase]:
    """Return the phrase that each word of a prompt belongs to."""
    found: list[Phrase] = []
    sentences: Counter[str] = Counter()
    places: Counter[tuple[str, int, bool]] = Counter()
    start = 0
    for slot, (word, role) in enumerate(zip(words, roles, strict=True)):
        bare = word.rstrip(_CLOSING)
        new_role = slot + 1 == len(words) or roles[slot + 1] != role
        sentence_ends = new_role or bare.endswith(_SENTENCE_ENDS)
        if not (sentence_ends or bare.endswith(_PHRASE_ENDS)):
            continue
        section = (role, sentences[role], any(map(_is_mark, words[start : slot + 1])))
        number = places[section]
        places[section] += 1
        place = number if number < 4 else 1 << (number.bit_length() - 1)
        found += [Phrase(*section, place)] * (slot + 1 - start)
        start = slot + 1
        sentences[role] += sentence_ends
    return found


def _is_mark(word: str) -> bool:
    """Return whether a word, without punctuation after it, stands in brackets and has no digit."""
    bare = word.rstrip("".join(_PHRASE_ENDS))
    closing = _BRACKETS.get(bare[:1])
    return closing is not None and bare.endswith(closing) and not any(map(str.isdigit, bare))
