"""A prompt's words with their numbers, as a language model that edits prompts reads them."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import numpy.typing as npt

from pmlm_env.core.episodes import Episode


def numbered_words(episode: Episode, kept: npt.NDArray[np.bool_], legal: npt.NDArray[np.bool_]) -> str:
    """Return the words left in a prompt: a line for each part, a number (the slot) before each word that may go.

    Args:
        episode: The prompt.
        kept: Which words are left, bool (W,).
        legal: Which of them may be deleted, bool (W,).
    """
    slots = [slot for slot in range(len(episode.words)) if kept[slot]]
    lines = []
    for role, part in groupby(slots, key=lambda slot: episode.roles[slot]):
        words = (f"{slot}:{episode.words[slot]}" if legal[slot] else episode.words[slot] for slot in part)
        lines.append(f"{role}: {' '.join(words)}")
    return "\n".join(lines)
