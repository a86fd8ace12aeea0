"""Searches for the best words to delete: their interface, and how those of many prompts run side by side."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

#: Which words of a prompt are left, bool (W,).
Mask: TypeAlias = npt.NDArray[np.bool_]

#: A search under way: yields masks to be scored and is sent their scores.
Steps: TypeAlias = Generator[list[Mask], list[float], None]

#: Scores masks, each of the prompt whose place is given: float64 (M,), -inf where there is no score.
Score: TypeAlias = Callable[[Sequence[int], Sequence[Mask]], npt.NDArray[np.float64]]

_IDLE_ROUNDS = 50  # a search that asks for nothing new so often in a row is ended
_PUNCTUATION = ",.;:!?\uff0c\u3002\uff1b\uff1a\uff01\uff1f\u3001"


@dataclass(frozen=True, eq=False)
class EditablePrompt:
    """A prompt to search for deletions in.

    Attributes:
        legal: Whether a word may be deleted, bool (W,).
        words: The initial prompt's words, W of them.
        roles: The role of each word, W of them.
        n_edits: Deletions, at most.
        budget: Masks that will be scored, at most; the whole prompt, whose score is 0, is not among them.
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
        """Return the slots of words that are left and may be deleted."""
        return np.flatnonzero(self.legal & kept)

    def room(self, kept: Mask) -> int:
        """Return how many more words may be deleted."""
        return min(self.n_edits - int((~kept).sum()), len(self.deletable(kept)))

    def without(self, kept: Mask, slots: npt.ArrayLike) -> Mask:
        """Return a mask without some more words."""
        less = kept.copy()
        less[slots] = False
        return less

    def randomly_without(self, kept: Mask, n: int, rng: np.random.Generator) -> Mask:
        """Return a mask without ``n`` more words, or as many as may be deleted, drawn uniformly."""
        return self.without(kept, rng.choice(self.deletable(kept), min(n, self.room(kept)), replace=False))

    def sections(self) -> list[list[int]]:
        """Return the slots of each run of words of one role, in order."""
        return [[slot for slot, _ in run] for _, run in groupby(enumerate(self.roles), key=lambda pair: pair[1])]

    def phrases(self) -> list[list[int]]:
        """Return the slots of each phrase, in order: it ends with its section, or where a word ends in punctuation."""
        phrases: list[list[int]] = []
        for section in self.sections():
            phrases.append([])
            for slot in section:
                phrases[-1].append(slot)
                if self.words[slot][-1] in _PUNCTUATION and slot != section[-1]:
                    phrases.append([])
        return phrases


#: Begins to search one prompt.
Search: TypeAlias = Callable[[EditablePrompt, np.random.Generator], Steps]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A mask and its score.

    Attributes:
        kept: Which words are left, bool (W,).
        delta: Its score, less that of the whole prompt.
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
    """Search all prompts at once: each round scores what all of the searches ask for in one batch.

    A mask is scored once; to ask for it again costs nothing. A search that asks for more than its prompt's budget gets
    no more scores, and ends.

    Args:
        search: Begins each search.
        prompts: What to search, N of them.
        score: Scores masks, of prompts given by their places.
        rngs: N generators, so that the search of a prompt does not depend on the other prompts.

    Returns:
        For each prompt all candidates that were scored, and the whole prompt with its 0, best first; of equals the
        earlier first.

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
    """One search, and the scores of its prompt so far."""

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
        """Return the masks that are to be scored, each once, within the budget."""
        new = {mask.tobytes(): mask for mask in self.asked or []}
        new = {key: mask for key, mask in new.items() if key not in self._deltas}
        self._idle = 0 if new else self._idle + 1
        for mask in new.values():
            deleted = ~mask
            if (deleted & ~self.prompt.legal).any() or deleted.sum() > self.prompt.n_edits:
                raise ValueError(f"a search deletes slots {np.flatnonzero(deleted).tolist()}: some of them may not go")
        return list(new.values())[: self.prompt.budget + 1 - len(self._deltas)]

    def go_on(self) -> None:
        """Send the scores and take the next masks; end the search if some score is missing."""
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
