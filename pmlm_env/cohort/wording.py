"""How messages quote values from a cohort's files: short, on one line and safe for a terminal."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Collection, Mapping
from pathlib import Path

from pmlm_env.io.text import JOINERS, printable

#: Number of problems or patients that a message lists; the rest are only counted.
SHOWN = 10
_LONGEST_VALUE = 60
#: Longer words get no suggestion, because comparing words takes quadratic time.
_LONGEST_WORD = 200
_SAME_CHARACTER = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-") | dict.fromkeys("\u2018\u2019\u02bc", "'")
)
_POINT_ZERO = re.compile(r"(?<=\d)\.0+$")


def quoted(value: str) -> str:
    """Return ``value`` in quotes, on one line, shortened if long."""
    text = printable(repr(value[: _LONGEST_VALUE + 1]))
    return text if len(text) <= _LONGEST_VALUE + 2 else f"{text[:_LONGEST_VALUE]}...{text[0]}"


def bare(value: str) -> str:
    """Return ``value`` like ``quoted``, but without quotes if it is one plain word."""
    return value if len(value) <= _LONGEST_VALUE and re.fullmatch(r"[\w.-]+", value) else quoted(value)


def named(names: Collection[str], shown: int = SHOWN) -> str:
    """Return the first names and the number of further ones."""
    rest = len(names) - shown
    return ", ".join(map(bare, list(names)[:shown])) + (f" and {rest:,} more" if rest > 0 else "")


def tally(counts: Mapping[str, int]) -> str:
    """Return ``{"missing label": 2}`` as "2 x missing label"."""
    return ", ".join(f"{count:,} x {kind}" for kind, count in counts.items())


def tidy(text: str) -> str:
    """Return ``text`` without invisible characters, with single spaces and composed accents (NFC)."""
    if text.isascii():  # as most cells are
        return " ".join(text.split())
    visible = "".join(c for c in text if c in JOINERS or unicodedata.category(c) != "Cf")
    return unicodedata.normalize("NFC", " ".join(visible.split()))


def folded(text: str) -> str:
    """Return ``text`` with case, character width, hyphens and apostrophes normalized for comparison."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().translate(_SAME_CHARACTER).split())


def plain(word: str) -> str:
    """Return ``word`` normalized for what spreadsheets change, such as leading zeros or 7 saved as 7.0."""
    return _POINT_ZERO.sub("", folded(tidy(word))).lstrip("0")


def suggestion(word: str, known: Collection[str], cutoff: float = 0.6) -> str:
    """Return " (did you mean 'hgb'?)", or "" if no known word is similar.

    Words with the same ``plain`` form come first. ``cutoff`` is ``difflib``'s similarity threshold, 1 = identical.
    """
    if len(word) > _LONGEST_WORD:
        return ""
    similar = [name for name in known if plain(word) and plain(name) == plain(word)]
    candidates = [name for name in known if len(name) <= _LONGEST_WORD]
    similar = similar or difflib.get_close_matches(word, candidates, 2, cutoff)
    return f" (did you mean {' or '.join(map(quoted, similar[:2]))}?)" if similar else ""


def no_folder(path: Path) -> str:
    """Return the message about a cohort's folder that is none."""
    return f"{path} is a file: give the folder that it is in" if path.exists() else f"there is no folder {path}"
