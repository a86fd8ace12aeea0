"""What a language model that edits prompts is asked, and how the numbers in its answer are read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

INSTRUCTIONS = (
    "Below is a prompt that asks another language model for the letter that a patient's own doctor would write. "
    "Improve it by deleting words, so that the letter comes closer to the doctor's own. A number stands before each "
    "word that may be deleted. Answer with the numbers of the words that should go, separated by commas, the most "
    "important first, and with nothing else. If all words should stay, answer: none"
)

#: A whole number, or a range such as 3-7. No number is what belongs to a word or a decimal, or, as in "12:36", is the
#: word that stands behind its own number.
_NUMBER = re.compile(r"(?<![A-Za-z0-9_.])(?<![0-9]:)([0-9]+)(?:[-\u2013]([0-9]+))?(?![A-Za-z0-9_]|\.[0-9])")
_NONE = re.compile(r"\bnone\b|\[\s*\]", re.IGNORECASE)

#: Numbers of more digits are out of range, whatever they are.
_MOST_DIGITS = 6


class Example(NamedTuple):
    """A training patient's prompt, and deletions that raised the score of the reply.

    Attributes:
        prompt: The numbered words.
        deleted: The numbers of the deleted words, ascending.
    """

    prompt: str
    deleted: tuple[int, ...]


class Answer(NamedTuple):
    """What was read from an answer.

    Attributes:
        slots: The words to delete, in the order of the answer.
        counts: How often something was ignored: ``not_deletable`` (there is no such word, or it must stay),
            ``repeated``, ``over_budget``; and whether the answer was ``unreadable`` (no number, and not "none"), or had
            ``fewer`` deletions than the edit budget allows.
    """

    slots: tuple[int, ...]
    counts: Counter[str]


def question(numbered: str, n_edits: int, examples: Sequence[Example] = ()) -> str:
    """Return what the language model is asked.

    Args:
        numbered: The numbered words; see ``pmlm_env.core.numbered``.
        n_edits: How many words may be deleted.
        examples: Prompts with good answers to show before.
    """
    shown = [
        f"Example {number}:\n{each.prompt}\nAnswer: {', '.join(map(str, each.deleted))}"
        for number, each in enumerate(examples, start=1)
    ]
    ask = f"The prompt to improve:\n{numbered}\n\nDelete at most {n_edits} words. The numbers, or none:"
    return "\n\n".join([INSTRUCTIONS, *shown, ask])


def read_answer(text: str, legal: npt.NDArray[np.bool_], n_edits: int) -> Answer:
    """Read the numbers in an answer, whatever stands around them.

    Every whole number counts, in order, and a range such as 3-7 stands for all numbers in it. Numbers that are not
    those of words that may be deleted, repetitions, and numbers beyond the edit budget are ignored and counted. Nothing
    is added to an answer that has too few.

    Args:
        text: The answer.
        legal: Which words may be deleted, bool (W,).
        n_edits: The edit budget.
    """
    counts: Counter[str] = Counter()
    slots: dict[int, None] = {}
    found = False
    for first, last in _NUMBER.findall(text):
        found = True
        start, end = (int(each) if len(each) <= _MOST_DIGITS else len(legal) for each in (first, last or first))
        if end >= len(legal):
            counts["not_deletable"] += 1  # once for all that is out of range
        for number in range(start, min(end, len(legal) - 1) + 1):
            if not legal[number]:
                counts["not_deletable"] += 1
            elif number in slots:
                counts["repeated"] += 1
            elif len(slots) >= n_edits:
                counts["over_budget"] += 1
            else:
                slots[number] = None
    if not found and not _NONE.search(text):
        counts["unreadable"] += 1
    if len(slots) < min(n_edits, int(legal.sum())):
        counts["fewer"] += 1
    return Answer(tuple(slots), counts)
