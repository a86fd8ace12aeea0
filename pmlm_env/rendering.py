"""A prompt with its deleted words struck out."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pmlm_env.reward import Outcome

_STRUCK, _PLAIN = "\x1b[9;31m", "\x1b[0m"


def render_ansi(words: Sequence[str], kept: npt.NDArray[np.bool_], outcome: Outcome | None = None) -> str:
    """Return the prompt for a terminal, deleted words in red and struck out; the reply and score at the end.

    Args:
        words: The initial prompt.
        kept: Which words are still there, bool, at least as long.
        outcome: How the episode ended, if it has.
    """
    shown = [word if keep else f"{_STRUCK}{word}{_PLAIN}" for word, keep in zip(words, kept, strict=False)]
    lines = [" ".join(shown)]
    if outcome is not None and outcome.error:
        lines += ["", f"No reply: {outcome.error}"]
    elif outcome is not None:
        lines += ["", *textwrap.wrap(f"Reply: {outcome.reply}", 100)]
        lines += [f"F1 {outcome.initial_score:.4f} -> {outcome.score:.4f} ({outcome.delta:+.4f})"]
    return "\n".join(lines)
