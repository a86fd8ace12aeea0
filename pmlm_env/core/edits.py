"""Deleting words: which are there, which may go, what is left. Pure numpy; both envs stand on it.

Slots are positions in the *initial* prompt and never shift: slot 7 means the same word at every step, so a heat map
or a replay needs no bookkeeping, and a word that occurs twice is deleted once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any, Literal, get_args, overload

import numpy as np
import numpy.typing as npt

from pmlm_env.core.episodes import Episode, EpisodeSet, Role

#: Kinds of words that may be protected besides the roles.
WORD_KINDS = ("digits", "negations")

_DIGIT = re.compile(r"\d")
_NEGATION = re.compile(
    r"\W*(?:no|not|none|nor|neither|never|without|cannot|\w+n['\u2019]t|den(?:y|ies|ied)|absent|absence|negative)\W*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Edit:
    """One edit of a prompt."""

    operation: Literal["delete"]
    slot: int
    word: str
    probability: float | None = field(default=None, compare=False)


def deletions(episode: Episode, slots: Sequence[int]) -> tuple[Edit, ...]:
    """Return the edits that delete the words in some slots of an episode's prompt, in order."""
    return tuple(Edit("delete", slot, episode.words[slot]) for slot in slots)


@dataclass(frozen=True)
class EditRules:
    """What an agent may do to a prompt.

    Attributes:
        n_edits: The edit budget: edits per prompt, at most (the paper's n).
        max_words: W, the number of slots; None = as many as the longest prompt has words. Longer prompts are refused,
            never cut.
        protect: Roles whose words may not be edited, ``"digits"`` (words that hold one) or ``"negations"`` (English:
            no, not, without, denies, ...).

    Raises:
        ValueError: ``n_edits`` is negative, or ``protect`` names nothing known.
    """

    n_edits: int = 10
    max_words: int | None = None
    protect: Collection[str] = ()

    def __post_init__(self) -> None:
        """Check the values, and keep ``protect`` as a tuple; a string is one name."""
        if self.n_edits < 0:
            raise ValueError(f"n_edits is {self.n_edits}: it must be 0 or more")
        names = (self.protect,) if isinstance(self.protect, str) else tuple(self.protect)
        allowed = (*get_args(Role), *WORD_KINDS)
        if unknown := sorted(set(names) - set(allowed)):
            raise ValueError(f"protect names {unknown[0]!r}: use some of {allowed}")
        object.__setattr__(self, "protect", names)


class EditBatch:
    """N prompts side by side, each with its own edit budget.

    Args:
        episodes: Where prompts come from.
        n_prompts: N, the number of prompts.
        rules: What may be done to them.

    Attributes:
        rules: Likewise.
        max_words: W, the number of slots.
        episodes: Which episode each row holds, int (N,); -1 before the first ``load``.
        kept: Whether the slot holds a word that is still there, bool (N, W).
        legal: Whether that word may be deleted, bool (N, W).
        steps: Edits used up, int (N,); an illegal one counts.

    Raises:
        ValueError: A prompt has more words than there are slots, or none that may be edited.
    """

    def __init__(self, episodes: EpisodeSet, n_prompts: int, rules: EditRules) -> None:
        """Make N empty prompts; ``load`` fills them."""
        max_words = episodes.max_words if rules.max_words is None else rules.max_words
        if episodes.max_words > max_words:
            longest = episodes[int(episodes.lengths.argmax())]
            raise ValueError(
                f"max_words is {max_words}, but the prompt of patient {longest.patient_id} has {len(longest.words)} "
                f"words, and none is ever cut: set max_words to {len(longest.words)} or more, or leave it out"
            )
        self.rules, self.max_words = rules, max_words
        self.episodes = np.full(n_prompts, -1)
        self.kept = np.zeros((n_prompts, max_words), dtype=np.bool_)
        self.legal = np.zeros((n_prompts, max_words), dtype=np.bool_)
        self.steps = np.zeros(n_prompts, dtype=np.int64)
        self._source = episodes
        self._deletable = deletable_words(episodes, rules.protect)
        self._rows = np.arange(n_prompts)
        self._n_deletable = self._deletable.sum(axis=1)
        self._n_deleted = np.zeros(n_prompts, dtype=np.int64)
        self._order = np.zeros((n_prompts, min(rules.n_edits, max_words)), dtype=np.int64)

    def load(self, rows: Sequence[int] | npt.NDArray[np.int64], episodes: npt.ArrayLike) -> None:
        """Put the initial prompts of ``episodes`` into ``rows``."""
        index = np.atleast_1d(np.asarray(episodes, dtype=np.int64))
        width = self._deletable.shape[1]
        self.episodes[rows] = index
        self.kept[rows] = np.arange(self.max_words) < self._source.lengths[index][:, None]
        self.legal[rows, :width] = self._deletable[index]
        self.steps[rows] = 0
        self._n_deleted[rows] = 0

    @property
    def done(self) -> npt.NDArray[np.bool_]:
        """Whether the edit budget is used up or no word is left that may go, bool (N,)."""
        return (self.steps >= self.rules.n_edits) | (self._n_deleted >= self._n_deletable[self.episodes])

    def delete(self, slots: npt.ArrayLike, rows: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.bool_]:
        """Delete one word of each prompt.

        Args:
            slots: The slot to delete in each prompt, int (N,).
            rows: Which prompts to edit, bool (N,); all by default.

        Returns:
            Which deletions were illegal (padding, already deleted, protected, no budget), bool (N,): such a one
            changes no word and still uses up a step.

        Raises:
            ValueError: ``slots`` are not N whole numbers.
        """
        chosen = np.asarray(slots)
        if chosen.shape != self.steps.shape or chosen.dtype.kind not in "iu":
            raise ValueError(
                f"actions must be {len(self.steps)} whole numbers, one a prompt: not {chosen.dtype}, {chosen.shape}"
            )
        chosen = chosen.astype(np.int64, copy=False)
        # Flat indices, and counts instead of any(): this runs once a step for every env, and numpy's cost is calls.
        barred = (chosen.view(np.uint64) >= self.max_words) | (
            self.steps >= self.rules.n_edits
        )  # below 0 wraps to far above
        if np.count_nonzero(barred):
            chosen = np.where(barred, 0, chosen)
        hit = self._rows * self.max_words + chosen
        legal = self.legal.reshape(-1)[hit]
        if np.count_nonzero(barred):
            legal &= ~barred
        if rows is not None:
            legal &= rows
        place = self._rows * self._order.shape[1] + self._n_deleted
        if np.count_nonzero(legal) < len(legal):
            hit, chosen, place = hit[legal], chosen[legal], place[legal]
        self.kept.reshape(-1)[hit] = False
        self.legal.reshape(-1)[hit] = False
        self._order.reshape(-1)[place] = chosen
        self._n_deleted += legal
        if rows is None:
            self.steps += 1
            return ~legal
        self.steps += rows
        return ~legal & rows

    def deleted(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> list[tuple[int, ...]]:
        """Return the slots deleted so far in each of ``rows``, in order."""
        order, counts = self._order[rows].tolist(), self._n_deleted[rows].tolist()
        return [tuple(slots[:count]) for slots, count in zip(order, counts, strict=True)]

    def prompts(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> Prompts:
        """Return what is left of the prompts in ``rows``."""
        return Prompts(self._source, self.episodes[rows].tolist(), self.kept[rows])


class Prompts(Sequence[str]):
    """Refined prompts as text, each joined by single spaces when it is asked for.

    Args:
        source: Where prompts come from.
        episodes: Which of them.
        kept: Which words are still there, bool (number of prompts, W).
    """

    def __init__(self, source: EpisodeSet, episodes: Sequence[int], kept: npt.NDArray[np.bool_]) -> None:
        """Join nothing yet."""
        self.kept = kept
        self._source, self._episodes = source, episodes

    def __len__(self) -> int:
        """Return the number of prompts."""
        return len(self.kept)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: Any) -> Any:
        """Return one prompt, or a list of those in a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return " ".join(compress(self._source[self._episodes[index]].words, self.kept[index].tolist()))

    def __iter__(self) -> Iterator[str]:
        """Iterate over the prompts."""
        return (self[i] for i in range(len(self)))


def deletable_words(episodes: EpisodeSet, protect: Collection[str] = ()) -> npt.NDArray[np.bool_]:
    """Tell which words may be deleted.

    Args:
        episodes: The prompts.
        protect: As in ``EditRules``.

    Returns:
        Bool (number of episodes, words of the longest prompt).

    Raises:
        ValueError: ``protect`` leaves a prompt without a word that may be deleted.
    """
    names = set(protect)
    table = np.arange(episodes.max_words) < episodes.lengths[:, None]
    if names:
        for row, episode in enumerate(episodes):
            table[row, : len(episode.words)] = ~_protected(episode, names)
            if not table[row].any():
                raise ValueError(
                    f"patient {episode.patient_id}: protect={sorted(names)} leaves no word that may be deleted; "
                    "protect less, or leave this patient out"
                )
    return table


def _protected(episode: Episode, names: Collection[str]) -> npt.NDArray[np.bool_]:
    """Tell which words of a prompt are of a protected role or kind, bool (number of words,)."""
    digits, negations = "digits" in names, "negations" in names
    return np.array(
        [
            role in names or (digits and bool(_DIGIT.search(word))) or (negations and bool(_NEGATION.fullmatch(word)))
            for word, role in zip(episode.words, episode.roles, strict=True)
        ]
    )
