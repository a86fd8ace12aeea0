"""Rendering of a prompt, with deleted words struck out, as text for a terminal or as a picture."""

from __future__ import annotations

import textwrap
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pmlm_env.core.words import Word, split

_STRUCK, _PLAIN = "\x1b[9;31m", "\x1b[0m"

# In pixels. All are even, so that the frames have even sizes, as H.264 requires.
_WIDTH, _MARGIN, _FONT_SIZE, _LINE, _BASELINE, _GAP = 960, 32, 18, 28, 20, 12
_ROOM = _WIDTH - 2 * _MARGIN
_REPLY_LINES = 6
_FONTS = ("NotoSansCJK-Regular.ttc", "DejaVuSans.ttf")  # tried in order, then Pillow's default
_RULE, _DARK, _FADED, _RED, _GREEN = "#d8d8d8", "#1f2328", "#a87a7a", "#c62828", "#1a7f37"

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class _Piece(NamedTuple):
    """A word or a part of one, and its position on the page; ``x`` and ``width`` are in pixels."""

    word: int
    text: str
    line: int
    x: int
    width: int


def render_ansi(words: Sequence[Word], kept: npt.NDArray[np.bool_], final: Mapping[str, Any] | None = None) -> str:
    """Return the prompt for a terminal, with deleted words struck out in red, and the reply and score at the end.

    Control characters, such as ESC, are shown as U+FFFD.

    Args:
        words: The initial prompt's words, each with the space after it.
        kept: Which words are left, bool, at least as long as ``words``.
        final: The last step's ``info`` if the episode has ended: ``llm_error``, or ``score``, ``initial_score`` and,
            if the reward returns texts, ``reply``.
    """
    parts = []
    for word, is_kept in zip(words, kept.tolist(), strict=False):
        shown = _visible(word.text)
        parts.append((shown if is_kept else f"{_STRUCK}{shown}{_PLAIN}") + _gap(word.space))
    lines = ["".join(parts)]
    if final is not None:
        lines.append("")
        for text, _ in _ending(final):
            lines += textwrap.wrap(text, 100)
    return "\n".join(lines)


def render_rgb(
    words: Sequence[Word], kept: npt.NDArray[np.bool_], final: Mapping[str, Any] | None = None
) -> npt.NDArray[np.uint8]:
    """Return the prompt as a picture, with deleted words faded and struck out, and the reply and score at the end.

    The height depends only on ``words``, so that all frames of an episode have the same size. A reply that does not
    fit ends in an ellipsis; a word wider than the page is broken. Characters missing from the font are shown as boxes:
    for Chinese, install Noto Sans CJK.

    Args:
        words: As in ``render_ansi``.
        kept: As in ``render_ansi``.
        final: As in ``render_ansi``.

    Returns:
        uint8 (height, 960, 3).
    """
    font = _font()
    prompt = _flow([Word(_visible(word.text), word.space) for word in words], font)
    rule = _MARGIN + _LINE * _n_lines(prompt) + _GAP
    top = rule + _GAP
    image = Image.new("RGB", (_WIDTH, top + _LINE * (_REPLY_LINES + 1) + _GAP + _MARGIN), "white")
    draw = ImageDraw.Draw(image)

    for piece in prompt:
        _write(draw, piece, _MARGIN, font, _DARK if kept[piece.word] else _FADED)
        if not kept[piece.word]:
            _strike(draw, piece, _MARGIN, font)
    draw.line((_MARGIN, rule, _WIDTH - _MARGIN - 1, rule), _RULE)
    for text, color in _ending(final) if final is not None else []:
        pieces = _clip(_flow(split(text), font), _REPLY_LINES)
        for piece in pieces:
            _write(draw, piece, top, font, color)
        top += _LINE * _n_lines(pieces) + _GAP
    return np.array(image)


def _ending(final: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the paragraphs about the end of an episode, each with its color."""
    if "llm_error" in final:
        return [(_visible(f"No reply: {final['llm_error']}"), _RED)]
    delta = final["score"] - final["initial_score"]
    score = f"Score {final['initial_score']:.4f} -> {final['score']:.4f} ({delta:+.4f})"
    color = _GREEN if delta > 0 else _RED if delta < 0 else _DARK
    reply = [(_visible(f"Reply: {final['reply']}"), _DARK)] if "reply" in final else []
    return [*reply, (score, color)]


def _visible(text: str) -> str:
    """Return the text on one line, with each non-printable character replaced by U+FFFD."""
    return "".join(char if char.isprintable() else "\ufffd" for char in " ".join(text.split()))


def _gap(space: str) -> str:
    """Return the white space to show between two words: the line breaks in it, or one space."""
    return "\n" * space.count("\n") or " " * bool(space)


@lru_cache(maxsize=1)
def _font() -> _Font:
    for name in _FONTS:
        try:
            return ImageFont.truetype(name, _FONT_SIZE)
        except OSError:
            continue
    return ImageFont.load_default(_FONT_SIZE)


def _flow(words: Sequence[Word], font: _Font) -> list[_Piece]:
    """Arrange the words in lines; keep the text's line breaks, and break words that are wider than a line."""
    pieces: list[_Piece] = []
    line, x, space = 0, 0, ceil(font.getlength(" "))
    for index, word in enumerate(words):
        rest = word.text
        while rest:
            lengths = range(1, len(rest) + 1)
            n_fitting = max(1, bisect_right(lengths, _ROOM, key=lambda n: ceil(font.getlength(rest[:n]))))
            text, rest = rest[:n_fitting], rest[n_fitting:]
            width = ceil(font.getlength(text))
            if x > 0 and x + width > _ROOM:
                line, x = line + 1, 0
            pieces.append(_Piece(index, text, line, x, width))
            x += width
        gap = _gap(word.space)
        line, x = (line + len(gap), 0) if gap.startswith("\n") else (line, x + space * len(gap))
    return pieces


def _clip(pieces: list[_Piece], n_lines: int) -> list[_Piece]:
    """Return the first lines, followed by an ellipsis (which may be in the margin) if there are more."""
    if _n_lines(pieces) <= n_lines:
        return pieces
    *shown, last = [piece for piece in pieces if piece.line < n_lines]
    return [*shown, last._replace(text=last.text + "\u2026")]


def _n_lines(pieces: list[_Piece]) -> int:
    return pieces[-1].line + 1 if pieces else 0


def _write(draw: ImageDraw.ImageDraw, piece: _Piece, top: int, font: _Font, color: str) -> None:
    draw.text((_MARGIN + piece.x, top + _LINE * piece.line + _BASELINE), piece.text, color, font, anchor="ls")


def _strike(draw: ImageDraw.ImageDraw, piece: _Piece, top: int, font: _Font) -> None:
    """Draw a line through the middle of the lowercase letters."""
    x, baseline = _MARGIN + piece.x, top + _LINE * piece.line + _BASELINE
    y = baseline + int(font.getbbox("x", anchor="ls")[1]) // 2 - 1  # the upper row of a line two pixels thick
    draw.line((x, y, x + piece.width - 1, y), _RED, width=2)
