"""Edits of prompts: which are legal, which were made, and which words are left. Pure numpy; both envs use it.

Slots are positions in the *initial* prompt and never shift: slot 7 means the same word at every step, so a heat map
or a replay needs no bookkeeping, and deleting one occurrence of a word leaves the others.

Deleting a word is the only operation so far. Nothing outside this module relies on that: agents and envs pass actions
on, ask which are legal, and get back ``Edit`` values and texts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from numbers import Integral, Real
from reprlib import repr as shortened
from typing import Any, Literal, get_args, overload

import numpy as np
import numpy.typing as npt

from pmlm_env.core.episodes import Episode, EpisodeSet
from pmlm_env.core.protection import WORD_KINDS, editable_words
from pmlm_env.core.words import Role, joined

Operation = Literal["delete"]

#: Maximum number of ``Edit`` values that a batch caches.
_MAX_CACHED_EDITS = 50_000


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit of a prompt.

    Attributes:
        operation: The operation.
        slot: The word's position in the initial prompt.
        word: The word in that slot.
        probability: The probability that the policy gave this edit, if any; ignored when edits are compared.
    """

    operation: Operation
    slot: int
    word: str
    probability: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class EditRules:
    """What an agent may do to a prompt.

    Attributes:
        n_edits: The edit budget, the maximum number of edits per prompt (the paper's n): a whole number, or a share of
            the prompt's words, above 0 and at most 1. So 1 is one edit, and 1.0 as many as there are words.
        max_words: W, the number of slots, 1 or more; None = the number of words of the longest prompt. Longer prompts
            are refused, never cut.
        protect: Words that may not be edited: names of roles, ``"digits"`` (words that contain a digit) or
            ``"negations"`` (no, not, without, denies, ..., in English or Chinese).

    Raises:
        ValueError: ``n_edits`` or ``max_words`` is not allowed, or ``protect`` holds an unknown name.
    """

    n_edits: int | float = 10
    max_words: int | None = None
    protect: Collection[str] = ()

    def __post_init__(self) -> None:
        """Check the values, and store ``protect`` as a tuple; a string is one name."""
        n = self.n_edits
        if isinstance(n, Integral) and not isinstance(n, bool):
            fits, value = n >= 0, int(n)
        else:
            fits = isinstance(n, Real) and not isinstance(n, bool) and 0 < n <= 1
            value = float(n) if fits else 0
        if not fits:
            raise ValueError(
                f"n_edits is {shortened(n)}: use a whole number, 0 or more, or a share of the prompt's words, above 0 "
                "and at most 1, such as 0.2"
            )
        object.__setattr__(self, "n_edits", value)
        if (most := self.max_words) is not None:
            if not isinstance(most, Integral) or isinstance(most, bool) or most < 1:
                raise ValueError(
                    f"max_words is {shortened(most)}: use a whole number, 1 or more, or leave it out: then the longest "
                    "prompt decides"
                )
            object.__setattr__(self, "max_words", int(most))
        names = (self.protect,) if isinstance(self.protect, str) else tuple(self.protect)
        allowed = (*get_args(Role), *WORD_KINDS)
        if unknown := sorted(set(names) - set(allowed)):
            raise ValueError(f"protect names {unknown[0]!r}: use some of {allowed}")
        object.__setattr__(self, "protect", names)

    def budgets(self, n_words: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return the edit budgets of prompts.

        A share of the words is rounded to the nearest whole number, halves up, and is at least 1. Protected words
        count as words. ``EditBatch`` never edits more words than may be edited.

        Args:
            n_words: Number of words of each prompt, whole numbers of any shape.

        Returns:
            The maximum number of edits of each prompt, int64 of the same shape.
        """
        lengths = np.asarray(n_words)
        if isinstance(self.n_edits, int):
            return np.full(lengths.shape, self.n_edits, dtype=np.int64)
        share = Fraction(repr(self.n_edits))  # the decimal number that was given: 0.29 of 50 words are 14.5, not less
        different, places = np.unique(lengths, return_inverse=True)
        budgets = [max(1, int(share * length + Fraction(1, 2))) for length in different.tolist()]
        return np.array(budgets, dtype=np.int64)[places].reshape(lengths.shape)


class EditBatch:
    """N prompts side by side, each with its own edit budget.

    Args:
        episodes: The episodes whose prompts can be loaded.
        n_prompts: N, the number of prompts.
        rules: Which edits are allowed.

    Attributes:
        rules: The given rules.
        max_words: W, the number of slots and of actions: action k edits the word in slot k.
        episodes: Index of the episode in each row, int (N,); -1 before the first ``load``.
        kept: Whether the slot holds a word that has not been deleted, bool (N, W).
        legal: Whether the action is legal, bool (N, W).
        budgets: The edit budget of each prompt, int (N,).
        steps: Steps taken, int (N,), including illegal actions.

    Raises:
        ValueError: A prompt has more words than there are slots, or no word that may be edited.
    """

    def __init__(self, episodes: EpisodeSet, n_prompts: int, rules: EditRules) -> None:
        """Make N empty prompts; ``load`` fills them."""
        self.rules, self.max_words = rules, _width(episodes, rules)
        self.episodes = np.full(n_prompts, -1)
        self.kept = np.zeros((n_prompts, self.max_words), dtype=np.bool_)
        self.legal = np.zeros((n_prompts, self.max_words), dtype=np.bool_)
        self.budgets = np.zeros(n_prompts, dtype=np.int64)
        self.steps = np.zeros(n_prompts, dtype=np.int64)
        self._source = episodes
        self._editable = editable_words(episodes, rules.protect)
        self._rows = np.arange(n_prompts)
        self._n_editable = self._editable.sum(axis=1)
        self._all_budgets = rules.budgets(episodes.lengths)
        self._n_done = np.zeros(n_prompts, dtype=np.int64)
        longest = min(int(self._all_budgets.max()), self.max_words)
        self._order = np.zeros((n_prompts, longest), dtype=np.int64)
        # Edits are immutable, so each is created once: this makes the end of an episode several times faster.
        self._edit_cache: dict[int, Edit] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Pickle everything but the cache of edits."""
        return {**self.__dict__, "_edit_cache": {}}

    def load(self, rows: Sequence[int] | npt.NDArray[np.int64], episodes: npt.ArrayLike) -> None:
        """Put the initial prompts of ``episodes`` into ``rows``."""
        index = np.atleast_1d(np.asarray(episodes, dtype=np.int64))
        width = self._editable.shape[1]
        self.episodes[rows] = index
        self.kept[rows] = np.arange(self.max_words) < self._source.lengths[index][:, None]
        self.legal[rows, :width] = self._editable[index]
        self.budgets[rows] = self._all_budgets[index]
        self.steps[rows] = 0
        self._n_done[rows] = 0

    @property
    def done(self) -> npt.NDArray[np.bool_]:
        """Whether the edit budget is used up or no legal action is left, bool (N,)."""
        return (self.steps >= self.budgets) | (self._n_done >= self._n_editable[self.episodes])

    def apply(self, actions: npt.ArrayLike, rows: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.bool_]:
        """Take one step in each prompt.

        Args:
            actions: The action for each prompt, int (N,).
            rows: Which prompts to edit, bool (N,); all by default.

        Returns:
            Which actions were illegal (an empty slot, a word already deleted or protected, no budget), bool (N,). An
            illegal action changes nothing but still uses up a step.

        Raises:
            ValueError: ``actions`` are not N whole numbers.
        """
        chosen = np.asarray(actions)
        if chosen.shape != self.steps.shape or chosen.dtype.kind not in "iu":
            raise ValueError(
                f"actions must be {len(self.steps)} whole numbers, one per prompt, "
                f"not {chosen.dtype} of shape {chosen.shape}"
            )
        chosen = chosen.astype(np.int64, copy=False)
        # Flat indices, and counts instead of any(): this runs at every step, and each numpy call costs time.
        barred = (chosen.view(np.uint64) >= self.max_words) | (self.steps >= self.budgets)  # below 0 wraps around
        if np.count_nonzero(barred):
            chosen = np.where(barred, 0, chosen)
        hit = self._rows * self.max_words + chosen
        legal = self.legal.reshape(-1)[hit]
        if np.count_nonzero(barred):
            legal &= ~barred
        if rows is not None:
            legal &= rows
        target = self._rows * self._order.shape[1] + self._n_done
        if np.count_nonzero(legal) < len(legal):
            hit, chosen, target = hit[legal], chosen[legal], target[legal]
        self.kept.reshape(-1)[hit] = False
        self.legal.reshape(-1)[hit] = False
        self._order.reshape(-1)[target] = chosen
        self._n_done += legal
        if rows is None:
            self.steps += 1
            return ~legal
        self.steps += rows
        return ~legal & rows

    def edits(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> list[tuple[Edit, ...]]:
        """Return the edits made so far in each of ``rows``, in order."""
        if len(self._edit_cache) > _MAX_CACHED_EDITS:
            self._edit_cache = {}
        numbers = self.episodes[rows][:, None] * self.max_words + self._order[rows]
        return [
            tuple([self._edit_cache.get(number) or self._new_edit(number) for number in row[:count]])
            for row, count in zip(numbers.tolist(), self._n_done[rows].tolist(), strict=True)
        ]

    def _new_edit(self, number: int) -> Edit:
        index, slot = divmod(number, self.max_words)
        (edit,) = deletions(self._source[index], [slot])
        self._edit_cache[number] = edit
        return edit

    def prompts(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> Prompts:
        """Return the prompts in ``rows`` as they are now."""
        return Prompts(self._source, self.episodes[rows].tolist(), self.kept[rows])


class Prompts(Sequence[str]):
    """Refined prompts as text; each is joined only when it is read.

    Args:
        source: The episodes.
        episodes: The index of each prompt's episode.
        kept: Which words are left, bool (number of prompts, W).
    """

    def __init__(self, source: EpisodeSet, episodes: Sequence[int], kept: npt.NDArray[np.bool_]) -> None:
        """Store the parts; nothing is joined yet."""
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
        """Return one prompt, or a list of prompts for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        episode = self._source[self._episodes[index]]
        return joined(episode.words, episode.spaces, self.kept[index, : len(episode.words)].tolist())

    def __iter__(self) -> Iterator[str]:
        """Iterate over the prompts."""
        return (self[i] for i in range(len(self)))


def deletions(episode: Episode, slots: Sequence[int]) -> tuple[Edit, ...]:
    """Return the edits that delete the words in some slots of an episode's prompt, in order."""
    words = episode.words
    return tuple([Edit("delete", slot, words[slot]) for slot in slots])


def kept_after(
    episodes: EpisodeSet,
    indices: Sequence[int],
    edits: Sequence[Sequence[Edit]],
    rules: EditRules | None = None,
) -> npt.NDArray[np.bool_]:
    """Return which words are left after some edits.

    Args:
        episodes: The episodes.
        indices: The indices of N of them.
        edits: The edits of each, in order.
        rules: Which edits are allowed; None = any number, of any word.

    Returns:
        Bool (N, W).

    Raises:
        ValueError: An edit is not possible or not allowed.
    """
    if not isinstance(edits, Sequence) or len(edits) != len(indices):
        what = f"{len(edits)}" if isinstance(edits, Sequence) else f"a {type(edits).__name__}"
        raise ValueError(f"the edits of {len(indices)} prompts should be a list of as many tuples of Edit, not {what}")
    rules = rules or EditRules(n_edits=episodes.max_words)
    width = _width(episodes, rules)
    editable = editable_words(episodes, rules.protect)
    budgets = rules.budgets(episodes.lengths)
    kept = np.arange(width) < episodes.lengths[list(indices)][:, None]
    for row, (index, each) in enumerate(zip(indices, edits, strict=True)):
        episode = episodes[index]
        if not isinstance(each, Sequence) or not all(isinstance(edit, Edit) for edit in each):
            raise ValueError(
                f"patient {episode.patient_id}: the edits are a {type(each).__name__}, or have something else than "
                "Edit in it: use a tuple of Edit, as pmlm_env.core.edits.deletions returns it"
            )
        if len(each) > budgets[index]:
            raise ValueError(f"patient {episode.patient_id}: {len(each)} edits, but only {budgets[index]} are allowed")
        for number, edit in enumerate(each, start=1):
            wrong = _why_illegal(edit, episode, kept[row], editable[index])
            if wrong:
                raise ValueError(f"patient {episode.patient_id}: edit {number}, {edit.operation} {edit.slot}: {wrong}")
            kept[row, edit.slot] = False
    return kept


def apply_edits(
    episodes: EpisodeSet,
    indices: Sequence[int],
    edits: Sequence[Sequence[Edit]],
    rules: EditRules | None = None,
) -> Prompts:
    """Return the prompts after some edits; see ``kept_after``."""
    return Prompts(episodes, list(indices), kept_after(episodes, indices, edits, rules))


def _why_illegal(edit: Edit, episode: Episode, kept: npt.NDArray[np.bool_], editable: npt.NDArray[np.bool_]) -> str:
    """Return why an edit cannot be made; "" if it can."""
    if edit.operation not in get_args(Operation):
        return f"the operations are {', '.join(get_args(Operation))}"
    if not 0 <= edit.slot < len(episode.words):
        return f"the prompt has slots 0 to {len(episode.words) - 1}"
    if episode.words[edit.slot] != edit.word:
        return "another word is in that slot"
    if not kept[edit.slot]:
        return "the word was already deleted"
    return "" if editable[edit.slot] else "the word is protected"


def _width(episodes: EpisodeSet, rules: EditRules) -> int:
    """Return the number of slots.

    Raises:
        ValueError: A prompt has more words.
    """
    if rules.max_words is None:
        return episodes.max_words
    if episodes.max_words > rules.max_words:
        longest = episodes[int(episodes.lengths.argmax())]
        raise ValueError(
            f"max_words is {rules.max_words}, but the prompt of patient {longest.patient_id} has {len(longest.words)} "
            f"words, and prompts are never cut: set max_words to {len(longest.words)} or more, or leave it out"
        )
    return rules.max_words
