"""Which labels a text names: longest match wins, whole words only, and a denied condition is not named.

What counts as denied stands in ``pmlm_env.cohort.naming.assertion``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pmlm_env.cohort.naming.assertion import is_denied, runs_back, runs_on

# A word may touch a Han character: Chinese has no spaces. Elsewhere "PROM" is not in "compromise".
_LETTER = "[^\\W\u3400-\u9fff]"
_HAN = "[\u3400-\u9fff]"
# LLMs write "pre-eclampsia" with any hyphen, and "pregnancy induced" without one.
_HYPHEN = "[-\u2010\u2011\u2012\u2013\\s]"


@dataclass(frozen=True, slots=True)
class Mention:
    """A label at one place of a text.

    Attributes:
        label: The label's name.
        start: Where the phrase starts.
        end: Where it ends, exclusive.
        denied: Whether the text says that the patient does not have it, or does not speak of this patient now.
    """

    label: str
    start: int
    end: int
    denied: bool


def find_mentions(text: str, phrases: Mapping[str, Sequence[str]]) -> list[Mention]:
    """Return every place where ``text`` mentions a label, in order.

    A phrase within a longer one is not a mention: "gestational diabetes" does not mention "diabetes" where both
    are labels. Case, runs of white space and kinds of hyphen are of no account. A phrase that two labels share
    mentions both.

    Args:
        text: Any text.
        phrases: The ways of naming each label; blank ones are ignored.
    """
    pattern, owners = _compile(tuple((label, tuple(ways)) for label, ways in phrases.items()))
    mentions: list[Mention] = []
    spans: list[tuple[int, int, bool]] = []  # of the phrases found, and whether each is denied
    found: list[list[str]] = []
    for match in pattern.finditer(text):
        group = match.lastindex or 0
        start, end = match.span(group)
        if spans and end <= spans[-1][1]:
            continue  # within a longer phrase that starts earlier
        denied = is_denied(text, start, end)
        if spans and not denied:
            denied = spans[-1][2] and runs_on(text, spans[-1][1], start, end)
        if denied:
            _deny_those_before(text, spans, start, end)
        spans.append((start, end, denied))
        found.append(owners[group - 1])
    for (start, end, denied), labels in zip(spans, found, strict=True):
        mentions += [Mention(label, start, end, denied) for label in labels]
    return mentions


def _deny_those_before(text: str, spans: list[tuple[int, int, bool]], start: int, end: int) -> None:
    """Deny the phrases that a list joins to a denied one: all of "A, B and C were ruled out"."""
    if not spans or not runs_back(text, spans[-1][1], start, end):
        return
    for place in reversed(range(len(spans))):
        first, last, _ = spans[place]
        spans[place] = (first, last, True)
        if place and text[spans[place - 1][1] : first].strip() != ",":
            break


@lru_cache(maxsize=64)
def _compile(phrases: tuple[tuple[str, tuple[str, ...]], ...]) -> tuple[re.Pattern[str], list[list[str]]]:
    """Return one pattern with a group for each phrase, longest first, and the labels of each group.

    The groups sit in a look-ahead, so that phrases which overlap are all found.
    """
    owners: dict[str, list[str]] = {}
    for label, ways in phrases:
        for way in ways:
            key = " ".join(way.lower().split())
            if key and label not in owners.setdefault(key, []):
                owners[key].append(label)
    longest_first = sorted(owners, key=len, reverse=True)
    han = [phrase for phrase in longest_first if re.match(_HAN, phrase)]
    spaced = [phrase for phrase in longest_first if not re.match(_HAN, phrase)]
    pattern = f"(?<!{_LETTER})(?={_alternatives(spaced)})|(?={_alternatives(han)})"
    return re.compile(pattern, re.IGNORECASE), [owners[phrase] for phrase in (*spaced, *han)]


def _alternatives(phrases: Sequence[str]) -> str:
    return "|".join(f"({_to_regex(phrase)})" for phrase in phrases) or "(?!)"


def _to_regex(phrase: str) -> str:
    body = "".join(r"\s+" if letter == " " else _HYPHEN if letter == "-" else re.escape(letter) for letter in phrase)
    return body if re.match(_HAN, phrase[-1]) else f"{body}(?!{_LETTER})"
