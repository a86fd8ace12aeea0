"""Numbers in replies, compared with those in the prompts that they answer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from decimal import Decimal

#: Digits after a letter, or after a letter and a hyphen, are part of a name ("T3", "COVID-19", "m2"), and so is what
#: follows their point ("pH7.35"), but not after a Han character ("血红蛋白98g/L").
_NUMBER = re.compile(
    r"""(?<!\d)10(?:\s?\^\s?|\*\*?)[-\u2212]?\d+ | (?<!\d)10[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207b]+  # in a unit
    | (?<![^\W\d_\u3007\u3400-\u9fff])(?<![^\W\d_\u3007\u3400-\u9fff]-)(?<![\d_])(?<!\d\.)(?:
        \d+(?:st|nd|rd|th)\b
        | (?P<chain>\d+(?:\.\d+){2,})  # "15.03.2024"
        | (?P<number>(?:(?<![\w.)\]%-])[-\u2212])?
            (?:\d{1,3}(?:[,\u00a0\u202f]\d{3})+(?!\d)(?:\.\d+)? | \d+(?:\.\d+)? | (?<![\w.])\.\d+))
    )""",
    re.VERBOSE,
)
_SEPARATORS = str.maketrans({",": "", "\u00a0": "", "\u202f": "", "\u2212": "-"})
#: "1. Take iron. 2. Rest.", "(1) take iron; (2) rest", "1、休息；2、补铁", "（1）休息", "1.休息 2.补铁"
_LIST_MARKER = re.compile(
    r"(?:^[^\S\n]*|[.:;,!?][^\S\n]+|[\u3002\uff1b\uff1a\uff0c]\s*|(?<=[\u3400-\u9fff])[^\S\n]+)[(\uff08]?(\d{1,2})"
    r"(?:[.)](?=\s+\D|[\u3400-\u9fff])|[\u3001\uff0e\uff09](?=\D))",
    re.MULTILINE,
)


def numbers_right(reply: str, prompt: str) -> float:
    """Return the share of the numbers in a reply that also stand in its prompt; NaN if the reply has none.

    Numbers are compared by value, so that "98" is "98.0" and "1,200" is "1200", but "98.4" is not "98"; units are not
    compared. Each occurrence in the reply counts.

    | text | numbers |
    |---|---|
    | "98g/L", "38w", "50 %" | 98; 38; 50: a unit may follow at once |
    | "120/80", "4-6 weeks", "39+2" | 120 and 80; 4 and 6; 39 and 2 |
    | "-2.1" | -2.1, but not after a digit, a letter or a closing bracket |
    | "1,200", "1,200.5" | 1200; 1200.5: only a comma before three digits is part of a number |
    | "2024-03-15", "15.03.2024" | 2024, 3 and 15: the parts of a date are numbers of their own, in any order |
    | "T3", "HbA1c", "COVID-19", "m2", "pH7.35" | none: digits after a letter are part of a name |
    | "x10^9/L", "10⁹/L" | none: a power of ten is part of a unit |
    | "1. Rest. 2. Take iron.", "(1) rest", "1、休息" | none: markers of a list, which count up from 1 |
    | "胎心98次/分" | 98 |
    | "2nd", "two" | none |

    Args:
        reply: The LLM's reply.
        prompt: The prompt that it answers.
    """
    there = set(_numbers(prompt))
    found = [number in there for number in _numbers(reply)]
    return sum(found) / len(found) if found else math.nan


def _numbers(text: str) -> Iterator[Decimal]:
    markers = _list_markers(text)
    for match in _NUMBER.finditer(text):
        if match["chain"]:
            yield from map(Decimal, match["chain"].split("."))
        elif match["number"] and match.start() not in markers:
            yield Decimal(match["number"].translate(_SEPARATORS))


def _list_markers(text: str) -> set[int]:
    """Return where the numbers of list items start: 1, or one more than the item before."""
    places: set[int] = set()
    last = 0
    for match in _LIST_MARKER.finditer(text):
        number = int(match[1])
        if number in (1, last + 1):
            places.add(match.start(1))
            last = number
    return places
