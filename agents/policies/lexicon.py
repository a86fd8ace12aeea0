"""Lexicon: numbers for words, so that what is learned about a word in one prompt applies to other prompts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from reprlib import repr as shortened
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from pmlm_env.core.episodes import Episode, EpisodeSet
from pmlm_env.core.words import Role

logger = logging.getLogger(__name__)

#: The forms of a word: its role and text; its role and text without case and punctuation; its role alone.
N_FORMS = 3

#: Words in fewer prompts are not kept: saved agents may be published, and a rare word may identify a patient.
FEWEST_PROMPTS = 3


class Lexicon:
    """Assigns numbers to the forms of words in training prompts: from (role, text) to the role alone.

    A form that occurs in too few prompts gets no number: nothing can be learned about it, and a word from a single
    patient's prompt would end up in every saved agent.

    Args:
        forms: Pairs of a role and a text; the text is empty for the role alone.
    """

    def __init__(self, forms: Iterable[tuple[str, str]]) -> None:
        """Number the forms from 1; 0 means no form."""
        self.forms = tuple((role, text) for role, text in forms)
        self._numbers = {form: number for number, form in enumerate(self.forms, start=1)}
        self._tables: dict[int, tuple[EpisodeSet, npt.NDArray[np.int64]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Pickle and copy everything but the last table and its episodes, whole prompts and letters of doctors."""
        return {**self.__dict__, "_tables": {}}

    @classmethod
    def from_forms(cls, value: Any) -> Lexicon:
        """Make a lexicon from the ``forms`` in a saved agent's file.

        Raises:
            ValueError: The value is not a list, or an entry is not a role with a word, or an entry occurs twice.
        """
        if not isinstance(value, list):
            raise ValueError(f"lexicon is {shortened(value)}: use a list of [role, word]")
        for form in value:
            if not (isinstance(form, list) and len(form) == 2 and all(isinstance(part, str) for part in form)):
                raise ValueError(f"lexicon holds {shortened(form)}: use [role, word]")
            if form[0] not in get_args(Role) or len(form[1].split()) > 1:
                raise ValueError(f"lexicon holds {shortened(form)}: use one of {get_args(Role)} and one word")
        forms = [(role, text) for role, text in value]
        if len(set(forms)) < len(forms):
            twice = next(form for form, n in Counter(forms).items() if n > 1)
            raise ValueError(f"lexicon holds {shortened(list(twice))} twice")
        return cls(forms)

    def __len__(self) -> int:
        """Return the number of numbers, including 0."""
        return len(self.forms) + 1

    @classmethod
    def of(cls, episodes: EpisodeSet, at_least: int = FEWEST_PROMPTS) -> Lexicon:
        """Make a lexicon of the forms that occur in at least ``at_least`` prompts."""
        if len(episodes) < at_least:
            logger.warning(
                "A lexicon of %d training patients knows no word, and nothing can be learned with it: take %d or more",
                len(episodes),
                at_least,
            )
        counts = Counter(form for e in episodes for form in {f for forms in _forms(e) for f in forms})
        return cls(form for form, n in sorted(counts.items()) if n >= at_least)

    @property
    def words(self) -> tuple[str, ...]:
        """The words of all forms, both as written in prompts and without case and punctuation."""
        return tuple(sorted({text.strip() for _, text in self.forms} - {""}))

    def ids(self, episodes: EpisodeSet, width: int) -> npt.NDArray[np.int64]:
        """Return the numbers of every word of every prompt, int64 (N, width, N_FORMS); 0 where there is none."""
        known = self._tables.get(id(episodes))
        if known is None or known[0] is not episodes or known[1].shape[1] != width:
            table = np.zeros((len(episodes), width, N_FORMS), dtype=np.int64)
            for row, episode in enumerate(episodes):
                table[row, : len(episode.words)] = [
                    [self._numbers.get(form, 0) for form in forms] for forms in _forms(episode)
                ]
            self._tables = {id(episodes): (episodes, table)}
            return table
        return known[1]


def _forms(episode: Episode) -> Sequence[tuple[tuple[str, str], ...]]:
    """Return the forms of each word of a prompt; the second form starts with a space, so it never equals the first."""
    return [
        ((role, word), (role, " " + "".join(c for c in word.casefold() if c.isalnum())), (role, ""))
        for word, role in zip(episode.words, episode.roles, strict=True)
    ]
