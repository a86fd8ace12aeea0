"""Which labels a text names: longest match wins, whole words only, and a denied condition is not named.

The denial rules are those of NegEx (Chapman et al., J Biomed Inform 2001), cut down to what short notes say:
a cue ("no", "without", "rule out", ...) up to five words before the condition, on the same line and with neither
punctuation nor "but" between, or "was ruled out" and the like straight after it. A denial runs on through a list
of labels ("no A, B or C").

What they miss: a list that starts with something that is not a label ("no fever, A or B"), what may come or has
been ("at risk of A", "history of A"), and every language but English.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

# A word may touch a Han character: Chinese has no spaces. Elsewhere "PROM" is not in "compromise".
_LETTER = "[^\\W\u3400-\u9fff]"
_HAN = "[\u3400-\u9fff]"
# LLMs write "pre-eclampsia" with any hyphen, and "pregnancy induced" without one.
_HYPHEN = "[-\u2010\u2011\u2012\u2013\\s]"

_CUES_BEFORE = re.compile(
    r"\b(?:no(?!\s+(?:change|doubt|further|increase)\b)|not(?!\s+only\b)|\w+n['\u2019]t|nor|neither|without"
    r"|absence\s+of|negative\s+for|free\s+of|den(?:y|ies|ied)|rul(?:e|es|ed|ing)\s+out|exclud(?:e|es|ed|ing))"
    r"(?:[^\S\n]+(?!(?:but|however|although)\b)\w[\w'\u2019/-]*){0,5}[^\S\n]*\Z",
    re.IGNORECASE,
)
_CUES_AFTER = re.compile(
    r"\s*[:(]?\s*(?:(?:is|was|are|were|has\s+been|have\s+been|can\s+be|could\s+be)\s+)?"
    r"(?:ruled\s+out|excluded|unlikely|absent|negative|not\s+(?:found|seen|present|detected|suspected|likely))\b",
    re.IGNORECASE,
)
_LIST_GAP = re.compile(r"\s*(?:[,/]\s*)?(?:(?:or|nor|and/or)\s+)?", re.IGNORECASE)
_REACH = 120  # characters: more than a cue and five words take


@dataclass(frozen=True, slots=True)
class Mention:
    """A label at one place of a text.

    Attributes:
        label: The label's name.
        start: Where the phrase starts.
        end: Where it ends, exclusive.
        denied: Whether the text says that the patient does not have it.
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
    covered = 0
    last_end, last_denied = 0, False
    for match in pattern.finditer(text):
        group = match.lastindex or 0
        start, end = match.span(group)
        if end <= covered:
            continue  # within a longer phrase that starts earlier
        covered = end
        runs_on = last_denied and _LIST_GAP.fullmatch(text, last_end, start) is not None
        denied = runs_on or _is_denied(text, start, end)
        mentions += [Mention(label, start, end, denied) for label in owners[group - 1]]
        last_end, last_denied = end, denied
    return mentions


def _is_denied(text: str, start: int, end: int) -> bool:
    return bool(_CUES_BEFORE.search(text, max(0, start - _REACH), start) or _CUES_AFTER.match(text, end))


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
