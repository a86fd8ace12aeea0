"""Refined prompts and their replies as a table for the terminal."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, zip_longest

from pmlm_env.core.traces import Trace
from pmlm_env.io.text import display_width, printable

#: Width if the output is no terminal, and the least width.
_USUAL, _LEAST = 120, 60

#: Number of patients that are shown, and of lines of each.
_MOST_PATIENTS, _MOST_LINES = 50, 4

#: End of a text that was cut.
_CUT = " ..."

_GAP = "  "


def table(traces: Sequence[Trace], with_replies: bool) -> str:
    """Return a table of patients: predicted condition, peers, deleted words, and the beginning of the reply.

    Args:
        traces: At least one patient's trace each.
        with_replies: Whether replies were requested.
    """
    shown = traces[:_MOST_PATIENTS]
    heads = ["patient", "predicted", f"peers (of {len(traces[0].peers)})", "deleted", *["reply"] * with_replies]
    rows = [_cells(trace)[: len(heads)] for trace in shown]
    widths = _widths(heads, rows)
    lines = [*_row(heads, widths), _GAP.join("-" * width for width in widths)]
    for row in rows:
        lines += _row(row, widths)
    if len(traces) > len(shown):
        lines.append(f"... and {len(traces) - len(shown):,} more")
    return "\n".join(lines)


def _cells(trace: Trace) -> list[str]:
    probability = trace.probabilities.get(trace.predicted)
    predicted = trace.predicted if probability is None else f"{trace.predicted} {probability:.0%}"
    peers = Counter(peer.label for peer in trace.peers).most_common()
    deleted = " ".join(edit.word for edit in sorted(trace.edits, key=lambda edit: edit.slot))
    reply = f"no reply: {trace.error}" if trace.error else " ".join(reply.text for reply in trace.replies)
    cells = [trace.patient_id, predicted, ", ".join(f"{count} {label}" for label, count in peers), deleted, reply]
    return [printable(" ".join(cell.split())) for cell in cells]


def _widths(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Share the width of the terminal: columns whose texts are short get what they need, the others equal parts."""
    room = max(shutil.get_terminal_size((_USUAL, 0)).columns, _LEAST) - len(_GAP) * (len(heads) - 1)
    needed = [max(map(display_width, column)) for column in zip(heads, *rows, strict=True)]
    widths = [0] * len(heads)
    for left, i in zip(range(len(heads), 0, -1), sorted(range(len(heads)), key=needed.__getitem__), strict=True):
        widths[i] = min(needed[i], room // left)
        room -= widths[i]
    return widths


def _row(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Return a row's lines, with texts that are too long wrapped and then cut."""
    wrapped = [_wrapped(cell, width) for cell, width in zip(cells, widths, strict=True)]
    return [
        _GAP.join(text + " " * (width - display_width(text)) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in zip_longest(*wrapped, fillvalue="")
    ]


def _wrapped(text: str, width: int) -> list[str]:
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
    lines += [line] if line else []
    if len(lines) > _MOST_LINES:
        last = lines[_MOST_LINES - 1]
        start = last[: _fitting(last, width - len(_CUT))]
        if len(start) < len(last) and last[len(start)] != " ":  # not within a word, if there is an earlier one
            start = start.rpartition(" ")[0] or start
        lines[_MOST_LINES - 1 :] = [start.rstrip() + _CUT]
    return lines


def _fitting(text: str, width: int) -> int:
    """Return the number of characters of a text that fit into so many columns."""
    ends = accumulate(map(display_width, text))
    return sum(end <= width for end in ends)
