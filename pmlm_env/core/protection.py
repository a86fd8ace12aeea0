"""Which words of a prompt may be edited."""

from __future__ import annotations

import re
from collections.abc import Collection
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from pmlm_env.core.episodes import Episode, EpisodeSet
from pmlm_env.core.languages import primary

#: Tables of words that may be edited, by what is protected: agents ask for those of the same prompts again and again.
_TABLES: WeakKeyDictionary[EpisodeSet, dict[frozenset[str], npt.NDArray[np.bool_]]] = WeakKeyDictionary()

#: Kinds of words that can be protected, in addition to roles.
WORD_KINDS = ("digits", "negations")

_DIGIT = re.compile(r"\d")
#: Words that negate, by language.
_NEGATIONS = {
    "en": re.compile(
        r"\A\W*(?:no|not|none|nor|neither|never|without|cannot|\w+n['\u2019]t|den(?:y|ies|ied)|absent|absence|negative)\W*\Z",
        re.IGNORECASE,
    ),
    # A word of several characters begins with the negation: "未见", "不支持"; but "不断" and "无论" negate nothing.
    "zh": re.compile(
        r"\A\W*(?:[无無未勿](?![论論])\w*|不(?!断|斷|仅|僅|但|过|過|管|论|論|妨|久|同|时|時|少|适|適)\w*|[没沒](?:有|见|見)?|非|并非|並非"
        r"|否认|否認|否定|排除|除外|缺乏|[阴陰]性|[别別莫]|[禁忌]\w*|请勿|請勿|切勿|切忌|[从從]未|[尚并並亦均][无無未不]\w*)\W*\Z"
    ),
}


def editable_words(episodes: EpisodeSet, protect: Collection[str] = ()) -> npt.NDArray[np.bool_]:
    """Return which words may be edited.

    Args:
        episodes: The prompts.
        protect: As in ``EditRules``.

    Returns:
        Bool (number of episodes, words of the longest prompt), read-only.

    Raises:
        ValueError: ``protect`` leaves a prompt with no word that may be edited.
    """
    names = frozenset(protect)
    known = _TABLES.setdefault(episodes, {})
    if names not in known:
        known[names] = _table(episodes, names)
        known[names].flags.writeable = False
    return known[names]


def _table(episodes: EpisodeSet, names: Collection[str]) -> npt.NDArray[np.bool_]:
    """See ``editable_words``."""
    table: npt.NDArray[np.bool_] = np.arange(episodes.max_words) < episodes.lengths[:, None]
    if names:
        for row, episode in enumerate(episodes):
            if "negations" in names and primary(episode.language) not in _NEGATIONS:
                raise ValueError(
                    f"patient {episode.patient_id}: the prompt's language is {episode.language!r}, and negations are "
                    "known in English and Chinese only: leave negations out of protect"
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
    patterns = [_DIGIT] if "digits" in names else []
    patterns += [_NEGATIONS[primary(episode.language)]] if "negations" in names else []
    return np.array(
        [
            role in names or any(pattern.search(word) for pattern in patterns)
            for word, role in zip(episode.words, episode.roles, strict=True)
        ]
    )
