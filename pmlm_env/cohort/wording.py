"""How messages about a cohort quote what is in its files: short, on one line, and safe for a terminal."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Collection, Mapping

from pmlm_env.io.text import JOINERS, printable

#: How many problems, or patients, a message names before it only counts the rest.
SHOWN = 10
_LONGEST_VALUE = 60
#: Longer words are compared with nothing: the time for it grows with the square of their length.
_LONGEST_WORD = 200
_ALIKE = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-") | dict.fromkeys("\u2018\u2019\u02bc", "'")
)
_POINT_ZERO = re.compile(r"(?<=\d)\.0+$")


def quoted(value: str) -> str:
    """Return ``value`` in quotes, on one line and not too long."""
    text = printable(repr(value[: _LONGEST_VALUE + 1]))
    return text if len(text) <= _LONGEST_VALUE + 2 else f"{text[:_LONGEST_VALUE]}...{text[0]}"


def bare(value: str) -> str:
    """Return ``value`` as ``quoted`` does, but without the quotes where it is one plain word."""
    return value if len(value) <= _LONGEST_VALUE and re.fullmatch(r"[\w.-]+", value) else quoted(value)


def named(names: Collection[str], shown: int = SHOWN) -> str:
    """Return the first names, and the count of the rest."""
    rest = len(names) - shown
    return ", ".join(map(bare, list(names)[:shown])) + (f" and {rest:,} more" if rest > 0 else "")


def tally(counts: Mapping[str, int]) -> str:
    """Return ``{"missing label": 2}`` as "2 x missing label"."""
    return ", ".join(f"{count:,} x {kind}" for kind, count in counts.items())


def tidy(text: str) -> str:
    """Return ``text`` without invisible characters, with single spaces, and accents composed."""
    seen = "".join(c for c in text if c in JOINERS or unicodedata.category(c) != "Cf")
    return unicodedata.normalize("NFC", " ".join(seen.split()))


def folded(text: str) -> str:
    """Return ``text`` without letter case and width, and with one kind of hyphen and apostrophe."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().translate(_ALIKE).split())


def plain(word: str) -> str:
    """Return ``word`` without what is often lost or changed, such as leading zeros, or 7 saved as 7.0."""
    return _POINT_ZERO.sub("", folded(tidy(word))).lstrip("0")


def suggestion(word: str, known: Collection[str], cutoff: float = 0.6) -> str:
    """Return " (did you mean 'hgb'?)", or nothing where no known word is near.

    Words that are ``plain`` alike come first. ``cutoff`` is ``difflib``'s: how near others must be, 1 = the same.
    """
    if len(word) > _LONGEST_WORD:
        return ""
    near = [name for name in known if plain(word) and plain(name) == plain(word)]
    near = near or difflib.get_close_matches(word, [each for each in known if len(each) <= _LONGEST_WORD], 2, cutoff)
    return f" (did you mean {' or '.join(map(quoted, near[:2]))}?)" if near else ""
