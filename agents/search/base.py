"""Interface of searches for the best words to delete, and a runner for the searches of many prompts in parallel."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

#: Which words of a prompt are kept, bool (W,).
Mask: TypeAlias = npt.NDArray[np.bool_]

#: A running search: yields masks to score and is sent their scores.
Steps: TypeAlias = Generator[list[Mask], list[float], None]

#: Scores masks, given the index of each mask's prompt: float64 (M,), -inf where there is no score.
Score: TypeAlias = Callable[[Sequence[int], Sequence[Mask]], npt.NDArray[np.float64]]

_IDLE_ROUNDS = 50  # a search ends after this many rounds in a row without a new mask
_PUNCTUATION = ",.;:!?\uff0c\u3002\uff1b\uff1a\uff01\uff1f\u3001"


@dataclass(frozen=True, eq=False)
class EditablePrompt:
    """A prompt in which to search for deletions.

    Attributes:
        legal: Whether each word may be deleted, bool (W,).
        words: The W words of the initial prompt.
        roles: The role of each of the W words.
        n_edits: Maximum number of deletions.
        budget: Maximum number of masks to score, not counting the initial prompt, whose score is 0.
    """

    legal: Mask
    words: Sequence[str]
    roles: Sequence[str]
    n_edits: int
    budget: int

    @property
    def whole(self) -> Mask:
        """The mask of the initial prompt."""
        return np.ones(len(self.words), dtype=np.bool_)

    def deletable(self, kept: Mask) -> npt.NDArray[np.int64]:
        """Return the slots of the remaining words that may be deleted."""
        return np.flatnonzero(self.legal & kept)

    def room(self, kept: Mask) -> int:
        """Return how many more words may be deleted."""
        return min(self.n_edits - int((~kept).sum()), len(self.deletable(kept)))

    def without(self, kept: Mask, slots: npt.ArrayLike) -> Mask:
        """Return a copy of a mask with some more words deleted."""
        less = kept.copy()
        less[slots] = False
        return less

    def randomly_without(self, kept: Mask, n: int, rng: np.random.Generator) -> Mask:
        """Return a copy of a mask with ``n`` more random words deleted, or as many as allowed."""
        return self.without(kept, rng.choice(self.deletable(kept), min(n, self.room(kept)), replace=False))

    def sections(self) -> list[list[int]]:
        """Return the slots of each run of words with the same role, in order."""
        return [[slot for slot, _ in run] for _, run in groupby(enumerate(self.roles), key=lambda pair: pair[1])]

    def phrases(self) -> list[list[int]]:
        """Return the slots of each phrase, in order; phrases end at punctuation and at the end of a section."""
        phrases: list[list[int]] = []
        for section in self.sections():
            phrases.append([])
            for slot in section:
                phrases[-1].append(slot)
                if self.words[slot][-1] in _PUNCTUATION and slot != section[-1]:
                    phrases.append([])
        return phrases


#: Starts a search of one prompt.
Search: TypeAlias = Callable[[EditablePrompt, np.random.Generator], Steps]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A mask and its score.

    Attributes:
        kept: Which words are kept, bool (W,).
        delta: Its score minus the score of the initial prompt.
    """

    kept: Mask
    delta: float

    @property
    def deleted(self) -> tuple[int, ...]:
        """The slots of the deleted words."""
        return tuple(np.flatnonzero(~self.kept).tolist())


def run(
    search: Search, prompts: Sequence[EditablePrompt], score: Score, rngs: Sequence[np.random.Generator]
) -> list[list[Candidate]]:
    """Search all prompts in parallel: each round scores the masks that all searches request, in one batch.

    Each mask is scored only once; requesting it again costs nothing. A search ends when it requests more scores than
    its prompt's budget allows.

    Args:
        search: Starts each search.
        prompts: The N prompts to search.
        score: Scores masks, given the index of each mask's prompt.
        rngs: N generators, so that the search of one prompt does not depend on the other prompts.

    Returns:
        For each prompt, all scored candidates and the initial prompt with its score of 0, best first; ties are in the
        order of scoring.

    Raises:
        ValueError: A search deletes a word that may not be deleted, or too many words.
    """
    tracks = [_Track(prompt, search(prompt, rng)) for prompt, rng in zip(prompts, rngs, strict=True)]
    while any(track.asked is not None for track in tracks):
        new = [(place, mask) for place, track in enumerate(tracks) for mask in track.new()]
        if new:
            deltas = score([place for place, _ in new], [mask for _, mask in new])
            for (place, mask), delta in zip(new, deltas.tolist(), strict=True):
                tracks[place].note(mask, delta)
        for track in tracks:
            track.go_on()
    return [sorted(track.seen, key=lambda candidate: -candidate.delta) for track in tracks]


class _Track:
    """One search and the scores of its prompt so far."""

    def __init__(self, prompt: EditablePrompt, steps: Steps) -> None:
        self.prompt, self._steps = prompt, steps
        self.seen: list[Candidate] = []
        self._deltas: dict[bytes, float] = {}
        self._idle = 0
        self.note(prompt.whole, 0.0)
        self.asked: list[Mask] | None = next(steps, None)

    def note(self, mask: Mask, delta: float) -> None:
        """Add a score."""
        self.seen.append(Candidate(mask, delta))
        self._deltas[mask.tobytes()] = delta

    def new(self) -> list[Mask]:
        """Return the requested masks that have no score yet, without duplicates and within the budget."""
        new = {mask.tobytes(): mask for mask in self.asked or []}
        new = {key: mask for key, mask in new.items() if key not in self._deltas}
        self._idle = 0 if new else self._idle + 1
        for mask in new.values():
            deleted = ~mask
            if (deleted & ~self.prompt.legal).any() or deleted.sum() > self.prompt.n_edits:
                raise ValueError(f"a search deletes slots {np.flatnonzero(deleted).tolist()}: some of them may not go")
        return list(new.values())[: self.prompt.budget + 1 - len(self._deltas)]

    def go_on(self) -> None:
        """Send the scores and receive the next masks; end the search if a score is missing."""
        if self.asked is None:
            return
        keys = [mask.tobytes() for mask in self.asked]
        if self._idle >= _IDLE_ROUNDS or not all(key in self._deltas for key in keys):
            self._steps.close()
            self.asked = None
            return
        try:
            self.asked = self._steps.send([self._deltas[key] for key in keys])
        except StopIteration:
            self.asked = None
