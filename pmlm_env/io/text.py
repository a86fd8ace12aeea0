"""Making untrusted text safe for terminals and Markdown."""

from __future__ import annotations

import re
import unicodedata

#: What Markdown would not show: emphasis, code, links, ends of cells, and backslashes before punctuation.
_MARKUP = re.compile(r"[*`\[|]|(?<![^\W_])_|_(?![^\W_])|\\(?=[!-/:-@\[-`{-~])")

#: Invisible characters that are parts of words: joiners of Persian, Indic scripts and emoji.
JOINERS = "\u200c\u200d"


def printable(text: str) -> str:
    r"""Escape characters that would control a terminal, or hide or reorder text.

    Args:
        text: Untrusted text, such as from a server, a model or a file.

    Returns:
        The text with all control, format and private-use characters escaped (ESC becomes ``\x1b``), except line feeds,
        tabs, joiners and spaces of any width.
    """
    if text.isprintable():
        return text
    return "".join(character if _is_harmless(character) else ascii(character)[1:-1] for character in text)


def display_width(text: str) -> int:
    """Return the number of columns that a text takes in a terminal: two for a Chinese or Korean character."""
    if text.isascii():
        return len(text)
    zero = ("Mn", "Me", "Cf")  # accents, and joiners
    wide = ("W", "F")
    return sum(
        0 if unicodedata.category(each) in zero else 1 + (unicodedata.east_asian_width(each) in wide) for each in text
    )


def as_text(text: str) -> str:
    """Return a text as one line of Markdown, escaped so that it is shown as it is, without tag, link or cell's end."""
    line = _MARKUP.sub(r"\\\g<0>", printable(" ".join(text.split())))
    return line.replace("&", "&amp;").replace("<", "&lt;")


def as_code(text: str) -> str:
    """Return a text as inline code of Markdown that is safe inside a table."""
    line = printable(" ".join(text.split())).replace("`", "'").replace("|", "\\|")
    return f"`{line}`"


def _is_harmless(character: str) -> bool:
    return character.isprintable() or character in "\n\t" + JOINERS or unicodedata.category(character) == "Zs"
