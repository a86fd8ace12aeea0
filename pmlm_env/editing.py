"""Deleting words: which are there, which may go, what is left. Pure numpy; both envs stand on it.

Slots are positions in the *initial* prompt and never shift: slot 7 means the same word at every step, so a heat map
or a replay needs no bookkeeping, and a word that occurs twice is deleted once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from pmlm_env.episodes import Episode


class EditBatch:
    """N prompts side by side, each with its own edit budget.

    Args:
        n_prompts: N, the number of prompts.
        max_words: W, the number of slots; longer prompts are refused, never cut.
        n_edits: Deletions per prompt (the paper's n).
        protect: Roles whose words may not be deleted.

    Attributes:
        kept: Whether the slot holds a word that is still there, bool (N, W).
        steps: Edits used up, int (N,); an illegal one counts.
        deleted: For each prompt the slots deleted so far, in order.
    """

    def __init__(self, n_prompts: int, max_words: int, n_edits: int, protect: Collection[str] = ()) -> None:
        """Make N empty prompts; ``load`` fills them."""
        if n_edits < 0:
            raise ValueError(f"n_edits is {n_edits}: it must be 0 or more")
        self.n_edits = n_edits
        self.protect = frozenset(protect)
        self.kept = np.zeros((n_prompts, max_words), dtype=np.bool_)
        self.steps = np.zeros(n_prompts, dtype=np.int64)
        self.deleted: list[list[int]] = [[] for _ in range(n_prompts)]
        self._deletable = np.zeros((n_prompts, max_words), dtype=np.bool_)
        self._words: list[tuple[str, ...]] = [() for _ in range(n_prompts)]

    @property
    def max_words(self) -> int:
        """W, the number of slots."""
        return self.kept.shape[1]

    def load(self, row: int, episode: Episode) -> None:
        """Put an episode's initial prompt into ``row``.

        Raises:
            ValueError: The prompt has more words than there are slots.
        """
        n_words = len(episode.words)
        if n_words > self.max_words:
            raise ValueError(
                f"patient {episode.patient_id}: the prompt has {n_words} words, but max_words is {self.max_words}"
            )
        self._words[row] = episode.words
        self.kept[row] = np.arange(self.max_words) < n_words
        self._deletable[row] = False
        self._deletable[row, :n_words] = [role not in self.protect for role in episode.roles]
        self.steps[row] = 0
        self.deleted[row] = []

    @property
    def legal(self) -> npt.NDArray[np.bool_]:
        """Which deletions are legal, bool (N, W)."""
        return self.kept & self._deletable

    @property
    def done(self) -> npt.NDArray[np.bool_]:
        """Whether the edit budget is used up or no word is left that may go, bool (N,)."""
        return (self.steps >= self.n_edits) | ~self.legal.any(axis=1)

    def delete(self, slots: npt.ArrayLike, rows: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.bool_]:
        """Delete one word of each prompt.

        Args:
            slots: The slot to delete in each prompt, int (N,).
            rows: Which prompts to edit, bool (N,); all by default.

        Returns:
            Which deletions were illegal (padding, already deleted, protected, no budget), bool (N,): such a one
            changes no word and still uses up a step.
        """
        chosen = np.asarray(slots, dtype=np.int64)
        active = np.ones(len(self.kept), dtype=np.bool_) if rows is None else rows
        index = np.arange(len(self.kept))
        in_range = (chosen >= 0) & (chosen < self.max_words)
        legal = active & in_range & (self.steps < self.n_edits)
        legal &= self.legal[index, np.where(in_range, chosen, 0)]
        self.kept[index[legal], chosen[legal]] = False
        for row in index[legal]:
            self.deleted[row].append(int(chosen[row]))
        self.steps += active
        return active & ~legal

    def words(self, row: int) -> tuple[str, ...]:
        """Return the words of a row's initial prompt."""
        return self._words[row]

    def prompt(self, row: int) -> str:
        """Return the words still there, joined by single spaces."""
        return " ".join(word for word, kept in zip(self._words[row], self.kept[row], strict=False) if kept)

    def pieces(self, rows: Sequence[int]) -> tuple[list[tuple[str, ...]], npt.NDArray[np.bool_]]:
        """Return the words and kept masks of ``rows``, as ``WordEncoder.encode`` takes them."""
        return [self._words[row] for row in rows], self.kept[list(rows)]
