"""Zero-call controls: replies that need no language model.

An agent whose replies score no higher than these has not been shown to make use of the language model. ``echo``,
``facts`` and ``label`` use what the prompt says. The others are letters that doctors wrote to training patients: their
scores show what a letter's form is worth, and those of the last two what the right condition is worth besides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.words import joined

#: All controls, with what each replies.
CONTROLS = {
    "echo": "the untouched prompt",
    "facts": "the untouched prompt without its instruction",
    "label": "the predicted label, and nothing else",
    "random-letter": "the letter of a training patient drawn at random",
    "fixed-letter": "one training letter for all patients: the most typical of all (medoid)",
    "peer-letter": "the letter of the training patient with the nearest vector",
    "label-letter": "the most typical letter of the training patients with the predicted label",
}

#: Largest number of letters among which a medoid is searched: all pairs of them are scored.
_MOST_LETTERS = 128


#: Scores texts against references, one to one: float64 (N,).
F1: TypeAlias = Callable[[Sequence[str], Sequence[str]], npt.NDArray[np.float64]]


def control_replies(episodes: EpisodeSet, training: EpisodeSet, f1: F1, seed: int = 0) -> dict[str, list[str]]:
    """Return what each control replies to each patient, by the names of ``CONTROLS``.

    Args:
        episodes: The patients who get the replies; neither their letters nor their true labels are read.
        training: Training patients, whose letters may be used. If none of them has one, controls that need letters
            are left out.
        f1: The similarity of two letters.
        seed: Seeds the draw of random letters, and of the letters among which a typical one is searched.

    Returns:
        Lists of N texts. ``label-letter`` falls back on ``fixed-letter`` where no training patient has the label.
    """
    replies = {
        "echo": [episode.prompt for episode in episodes],
        "facts": [joined(e.words, e.spaces, [role != "instruction" for role in e.roles]) for e in episodes],
        "label": [episode.predicted for episode in episodes],
    }
    known = [episode for episode in training if episode.reference.strip()]
    if not known:
        return replies
    letters, labels = [e.reference for e in known], np.array([e.label for e in known])
    rng = np.random.default_rng(seed)
    own = np.array([[e.patient_id == other.patient_id for other in known] for e in episodes])  # where both are training
    replies["random-letter"] = _best(letters, np.where(own, -1.0, rng.random(own.shape)))
    fixed = _medoid(letters, f1, rng)
    replies["fixed-letter"] = [fixed] * len(episodes)
    cosines = _unit(episodes.vectors) @ _unit(np.stack([e.vector for e in known])).T
    replies["peer-letter"] = _best(letters, np.where(own, -np.inf, cosines))
    typical = {
        label: _medoid([letters[i] for i in np.flatnonzero(labels == label).tolist()], f1, rng)
        for label in np.unique(labels).tolist()
    }
    replies["label-letter"] = [typical.get(episode.predicted, fixed) for episode in episodes]
    return replies


def _best(letters: Sequence[str], values: npt.NDArray[np.floating[Any]]) -> list[str]:
    """Return for each row the letter with the highest value."""
    return [letters[i] for i in values.argmax(axis=1).tolist()]


def _medoid(letters: Sequence[str], f1: F1, rng: np.random.Generator) -> str:
    """Return the letter with the highest mean score against the others."""
    some = [letters[i] for i in np.sort(rng.permutation(len(letters))[:_MOST_LETTERS]).tolist()]
    n = len(some)
    table = f1([text for text in some for _ in some], some * n).reshape(n, n)
    np.fill_diagonal(table, 0.0)
    return some[int(table.sum(axis=0).argmax())]


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.floating[Any]]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)
