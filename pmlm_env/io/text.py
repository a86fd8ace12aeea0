"""Text from elsewhere, made safe for a terminal and for Markdown."""

from __future__ import annotations

import unicodedata

#: Invisible, but parts of words: joiners of Persian, of Indic scripts and of emoji.
JOINERS = "\u200c\u200d"


def printable(text: str) -> str:
    r"""Write out what a terminal would act upon, or what would hide or reorder text.

    Args:
        text: From a server, a model, a file or a folder of somebody else's.

    Returns:
        The text with every control, format and private character as its escape (ESC becomes ``\x1b``), but for line
        feeds, tabs, joiners and spaces of any width.
    """
    if text.isprintable():
        return text
    return "".join(character if _is_harmless(character) else ascii(character)[1:-1] for character in text)


def as_text(text: str) -> str:
    """Return a text as one line of Markdown, where no sign of it is a tag, a link or the end of a table's cell."""
    line = printable(" ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;")
    return line.replace("[", "\\[").replace("|", "\\|")


def as_code(text: str) -> str:
    """Return a text as inline code of Markdown, where no sign of it is markup; it may stand in a table."""
    line = printable(" ".join(text.split())).replace("`", "'").replace("|", "\\|")
    return f"`{line}`"


def _is_harmless(character: str) -> bool:
    return character.isprintable() or character in "\n\t" + JOINERS or unicodedata.category(character) == "Zs"
