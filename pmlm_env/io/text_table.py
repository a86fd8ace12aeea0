"""Tables of texts for the terminal, as wide as it is, whatever columns the characters take."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import accumulate, zip_longest

from pmlm_env.io.text import display_width, printable

#: Width if the output is no terminal, and the least width.
_USUAL, _LEAST = 120, 60

#: Number of lines of a row.
_MOST_LINES = 4

#: End of a text that was cut.
_CUT = " ..."

_GAP = "  "


def text_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; long texts are wrapped, and cut after four lines.

    Args:
        heads: The columns' headers.
        rows: The cells of at least one row; control characters are escaped, and white space becomes single spaces.
    """
    cells = [[printable(" ".join(cell.split())) for cell in row] for row in rows]
    widths = _widths(heads, cells)
    lines = [*_row(heads, widths), _GAP.join("-" * width for width in widths)]
    for row in cells:
        lines += _row(row, widths)
    return lines


def terminal_width() -> int:
    """Return the number of columns of the terminal, at least 60; 120 if the output is no terminal."""
    return max(shutil.get_terminal_size((_USUAL, 0)).columns, _LEAST)


def wrapped(text: str, width: int) -> list[str]:
    """Wrap a text as ``textwrap.wrap`` does, which counts characters instead of the columns that they take."""
    lines, line, words = [], "", text.split()[::-1]
    while words:
        word = words.pop()
        joined = f"{line} {word}" if line else word
        fitting = _fitting(joined, width)
        if fitting == len(joined):
            line = joined
        elif line and (display_width(word) <= width or fitting <= len(line) + 1):  # the word begins the next line
            lines.append(line)
            line, words = "", [*words, word]
        else:  # it is too long for any line
            lines.append(joined[: max(1, fitting)])
            line, words = "", [*words, joined[max(1, fitting) :]]
    return lines + [line] * bool(line)


def _widths(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Share the width of the terminal: columns whose texts are short get what they need, the others equal parts."""
    room = terminal_width() - len(_GAP) * (len(heads) - 1)
    needed = [max(map(display_width, column)) for column in zip(heads, *rows, strict=True)]
    widths = [0] * len(heads)
    for left, i in zip(range(len(heads), 0, -1), sorted(range(len(heads)), key=needed.__getitem__), strict=True):
        widths[i] = min(needed[i], room // left)
        room -= widths[i]
    return widths


def _row(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Return a row's lines, with texts that are too long wrapped and then cut."""
    lines = [_cut(wrapped(cell, width), width) for cell, width in zip(cells, widths, strict=True)]
    return [
        _GAP.join(text + " " * (width - display_width(text)) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in zip_longest(*lines, fillvalue="")
    ]


def _cut(lines: list[str], width: int) -> list[str]:
    """Return the first lines, with an ellipsis in the last if there are more."""
    if len(lines) <= _MOST_LINES:
        return lines
    last = lines[_MOST_LINES - 1]
    start = last[: _fitting(last, width - len(_CUT))]
    if len(start) < len(last) and last[len(start)] != " ":  # not within a word, if there is an earlier one
        start = start.rpartition(" ")[0] or start
    return [*lines[: _MOST_LINES - 1], start.rstrip() + _CUT]


def _fitting(text: str, width: int) -> int:
    """Return the number of characters of a text that fit into so many columns."""
    ends = accumulate(map(display_width, text))
    return sum(end <= width for end in ends)
