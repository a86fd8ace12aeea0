"""Which words of a prompt may be edited."""

from __future__ import annotations

import re
from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from pmlm_env.core.episodes import Episode, EpisodeSet

#: Kinds of words that can be protected, in addition to roles.
WORD_KINDS = ("digits", "negations")

_DIGIT = re.compile(r"\d")
_NEGATION = re.compile(
    r"\W*(?:no|not|none|nor|neither|never|without|cannot|\w+n['\u2019]t|den(?:y|ies|ied)|absent|absence|negative)\W*",
    re.IGNORECASE,
)


def editable_words(episodes: EpisodeSet, protect: Collection[str] = ()) -> npt.NDArray[np.bool_]:
    """Return which words may be edited.

    Args:
        episodes: The prompts.
        protect: As in ``EditRules``.

    Returns:
        Bool (number of episodes, words of the longest prompt).

    Raises:
        ValueError: ``protect`` leaves a prompt with no word that may be edited.
    """
    names = set(protect)
    table = np.arange(episodes.max_words) < episodes.lengths[:, None]
    if names:
        for row, episode in enumerate(episodes):
            if "negations" in names and not episode.language.lower().startswith("en"):
                raise ValueError(
                    f"patient {episode.patient_id}: the prompt's language is {episode.language!r}, and negations are "
                    "known in English only: leave negations out of protect"
                )
            table[row, : len(episode.words)] = ~_protected(episode, names)
            if not table[row].any():
                raise ValueError(
                    f"patient {episode.patient_id}: protect={sorted(names)} leaves no word that may be edited; "
                    "protect less, or leave this patient out"
                )
    return table


def _protected(episode: Episode, names: Collection[str]) -> npt.NDArray[np.bool_]:
    """Return which words of a prompt have a protected role or kind, bool (number of words,)."""
    digits, negations = "digits" in names, "negations" in names
    return np.array(
        [
            role in names or (digits and bool(_DIGIT.search(word))) or (negations and bool(_NEGATION.fullmatch(word)))
            for word, role in zip(episode.words, episode.roles, strict=True)
        ]
    )
