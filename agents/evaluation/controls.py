"""Zero-call controls: replies that need no language model.

If an agent's replies score no higher than these, it has not been shown to benefit from the language model. ``echo``,
``facts``, and ``label`` use the prompt's content. The others are letters that doctors wrote to training patients. Their
scores show how much a letter's form contributes; those of the last two, how much the right condition adds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pmlm_env.core.episodes import Episode, EpisodeSet
from pmlm_env.core.words import joined

#: All controls, with a description of their replies.
CONTROLS = {
    "echo": "the untouched prompt",
    "facts": "the untouched prompt without its instruction",
    "label": "the predicted label, and nothing else",
    "random-letter": "the letter of a training patient drawn at random",
    "fixed-letter": "one training letter for all patients: the most typical of all (medoid)",
    "peer-letter": "the letter of the training patient with the nearest vector",
    "label-letter": "the most typical letter of the training patients with the predicted label",
}

#: Maximum number of candidate letters for a medoid; all their pairs are scored.
_MOST_LETTERS = 128


#: A function that scores N texts against N references, pairwise; returns float64 (N,).
F1: TypeAlias = Callable[[Sequence[str], Sequence[str]], npt.NDArray[np.float64]]


def control_replies(episodes: EpisodeSet, training: EpisodeSet, f1: F1, seed: int = 0) -> dict[str, list[str]]:
    """Return each control's reply to each patient, by the names in ``CONTROLS``.

    Args:
        episodes: The patients to reply to; neither their letters nor their true labels are read.
        training: Training patients, whose letters may be used. If none of them has a letter, or the only letter is of
            one of ``episodes``, controls that need letters are omitted.
        f1: Similarity of letters.
        seed: Seed for drawing random letters and the candidates for medoids.

    Returns:
        A list of N texts for each control. A patient who is a training patient, too, never gets their own letter.
        ``label-letter`` falls back to ``fixed-letter`` if no other training patient has the label.
    """
    replies = {
        "echo": [episode.prompt for episode in episodes],
        "facts": [joined(e.words, e.spaces, [role != "instruction" for role in e.roles]) for e in episodes],
        "label": [episode.predicted for episode in episodes],
    }
    known = [episode for episode in training if episode.reference.strip()]
    own = np.array([[e.patient_id == other.patient_id for other in known] for e in episodes])  # if both are in training
    own = own.reshape(len(episodes), len(known))
    if own.all(axis=1).any():  # there is no letter, or none of somebody else
        return replies
    letters, labels = [e.reference for e in known], np.array([e.label for e in known])
    rng = np.random.default_rng(seed)
    replies["random-letter"] = _best(letters, np.where(own, -1.0, rng.random(own.shape)))
    overall = _typical(known, f1, rng)
    replies["fixed-letter"] = [_of_another(episode, overall) for episode in episodes]
    cosines = _unit(episodes.vectors) @ _unit(np.stack([e.vector for e in known])).T
    replies["peer-letter"] = _best(letters, np.where(own, -np.inf, cosines))
    typical = {
        label: _typical([known[i] for i in np.flatnonzero(labels == label).tolist()], f1, rng)
        for label in np.unique(labels).tolist()
    }
    replies["label-letter"] = [_of_another(e, [*typical.get(e.predicted, []), *overall]) for e in episodes]
    return replies


def _best(letters: Sequence[str], values: npt.NDArray[np.floating[Any]]) -> list[str]:
    """Return the letter with the highest value in each row."""
    return [letters[i] for i in values.argmax(axis=1).tolist()]


def _typical(known: Sequence[Episode], f1: F1, rng: np.random.Generator) -> list[Episode]:
    """Return the two patients whose letters have the highest mean scores against the others, the medoid first."""
    some = [known[i] for i in np.sort(rng.permutation(len(known))[:_MOST_LETTERS]).tolist()]
    n, letters = len(some), [episode.reference for episode in some]
    table = f1([text for text in letters for _ in letters], letters * n).reshape(n, n)
    np.fill_diagonal(table, 0.0)
    return [some[i] for i in np.argsort(-table.sum(axis=0), kind="stable")[:2].tolist()]


def _of_another(episode: Episode, candidates: Sequence[Episode]) -> str:
    """Return the letter of the first candidate who is not the patient."""
    return next(other.reference for other in candidates if other.patient_id != episode.patient_id)


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.floating[Any]]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)
