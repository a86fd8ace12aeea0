"""Words and prompts. Joining a prompt's words gives exactly its text, with line breaks, in any language."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Literal, NamedTuple, get_args

from pmlm_env.core.languages import chinese_words, is_chinese

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
    """A prompt as a sequence of words.

    Attributes:
        words: The words, one per slot; no space follows the last one.
        roles: The role of each word.
        language: A BCP 47 tag, such as ``en`` or ``zh``.

    Raises:
        ValueError: There are no words, a word is empty or contains white space, a space contains anything else, or
            words and roles differ in number.
    """

    words: tuple[Word, ...]
    roles: tuple[Role, ...]
    language: str = "en"

    def __post_init__(self) -> None:
        """Check the values that later stages rely on."""
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
        """The words without the spaces."""
        return tuple(word.text for word in self.words)

    @property
    def spaces(self) -> tuple[str, ...]:
        """The white space after each word."""
        return tuple(word.space for word in self.words)


def split(text: str, language: str = "en", whole: Collection[str] = ()) -> tuple[Word, ...]:
    """Split a text into words; joining them gives the same text, without white space at its ends.

    Args:
        text: Any text.
        language: A BCP 47 tag. White space separates the words of all languages but Chinese; for Chinese, see
            ``pmlm_env.core.languages.chinese_words``.
        whole: Texts that are never split in Chinese, such as the names of labels.

    Raises:
        ValueError: The language is Chinese, and the package rjieba is not installed.
    """
    words = tuple(Word(*found) for found in _WORD.findall(text.strip()))
    if not is_chinese(language):
        return words
    found: list[Word] = []
    for word in words:
        *first, last = chinese_words(word.text, whole)
        found += [*(Word(piece, "") for piece in first), Word(last, word.space)]
    return tuple(found)


def single_spaces(n_words: int) -> tuple[str, ...]:
    """Return the white space after each word if single spaces separate the words."""
    return (" ",) * (n_words - 1) + ("",) * min(n_words, 1)


def joined(texts: Sequence[str], spaces: Sequence[str] = (), kept: Iterable[bool] | None = None) -> str:
    """Join words into a text.

    Args:
        texts: The words.
        spaces: The white space after each of them; empty = single spaces.
        kept: Which words to join; all by default. The space after a dropped word is dropped too, and the text never
            ends in a space.
    """
    included = [True] * len(texts) if kept is None else kept
    if not spaces:
        return " ".join(compress(texts, included))
    pairs = list(compress(zip(texts, spaces, strict=True), included))
    return "".join(text + space for text, space in pairs[:-1]) + (pairs[-1][0] if pairs else "")


def letters(word: str) -> str:
    """Return a word's letters and digits, in lower case."""
    return "".join(character for character in word.lower() if character.isalnum())
