"""Words and prompts: a prompt's text is exactly what its words join to, line breaks included, in any language."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Literal, NamedTuple, get_args

Role = Literal["background", "self", "peer", "instruction"]

_WORD = re.compile(r"(\S+)(\s*)")


class Word(NamedTuple):
    r"""A word and the white space that follows it.

    Attributes:
        text: The word, without white space.
        space: ``" "``, ``"\n"``, ``""`` or any other white space.
    """

    text: str
    space: str = " "


@dataclass(frozen=True)
class Prompt:
    """A prompt, word for word.

    Attributes:
        words: The words, one a slot; no space follows the last one.
        roles: The purpose of each word, one a word.
        language: As in BCP 47, such as ``en`` or ``zh``.

    Raises:
        ValueError: There are no words, a word is empty or holds white space, a space holds something else, or words
            and roles do not fit.
    """

    words: tuple[Word, ...]
    roles: tuple[Role, ...]
    language: str = "en"

    def __post_init__(self) -> None:
        """Check what every later stage relies on."""
        if not self.words:
            raise ValueError("the prompt has no words")
        if len(self.words) != len(self.roles):
            raise ValueError(f"{len(self.words)} words, but {len(self.roles)} roles")
        for slot, (text, space) in enumerate(self.words):
            if text.split() != [text]:
                raise ValueError(f"slot {slot} holds {text!r}, which is not one word")
            if space and not space.isspace():
                raise ValueError(f"slot {slot} is followed by {space!r}, which is not white space")
        if self.words[-1].space:
            raise ValueError(f"{self.words[-1].space!r} follows the last word: leave it out")
        if unknown := set(self.roles) - set(get_args(Role)):
            raise ValueError(f"unknown role {unknown.pop()!r}, use {get_args(Role)}")

    @property
    def text(self) -> str:
        """The prompt as text."""
        return joined(self.texts, self.spaces)

    @property
    def texts(self) -> tuple[str, ...]:
        """The words alone."""
        return tuple(word.text for word in self.words)

    @property
    def spaces(self) -> tuple[str, ...]:
        """The white space after each word."""
        return tuple(word.space for word in self.words)


def split(text: str) -> tuple[Word, ...]:
    """Split a text into words, which join to the same text again, but for white space around it."""
    return tuple(Word(*found) for found in _WORD.findall(text.strip()))


def single_spaces(n_words: int) -> tuple[str, ...]:
    """Return the white space after each word of a text in which single spaces separate the words."""
    return (" ",) * (n_words - 1) + ("",) * min(n_words, 1)


def joined(texts: Sequence[str], spaces: Sequence[str] = (), kept: Iterable[bool] | None = None) -> str:
    """Join words to a text.

    Args:
        texts: The words.
        spaces: The white space after each of them; none at all stands for single spaces.
        kept: Which of the words are in the text; all by default. A word that is not takes the space after it along,
            and no space is left at the end of the text.
    """
    there = [True] * len(texts) if kept is None else kept
    if not spaces:
        return " ".join(compress(texts, there))
    pairs = list(compress(zip(texts, spaces, strict=True), there))
    return "".join(text + space for text, space in pairs[:-1]) + (pairs[-1][0] if pairs else "")


def letters(word: str) -> str:
    """Return a word in lower case, without punctuation."""
    return "".join(character for character in word.lower() if character.isalnum())
