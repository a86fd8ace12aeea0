"""The reward of ``PMLMLite-v0``: a rule-based reply, scored by the words it shares with the reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from operator import or_

import numpy as np
import numpy.typing as npt

from pmlm_env.core.edits import EditRules, Prompts
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.outcomes import Outcomes, Texts
from pmlm_env.core.protection import editable_words
from pmlm_env.envs.lite.rules import CUES, STATEMENTS, apply_rules, cue_bit, say, tokens

_BITS = 1 << np.arange(len(CUES))


@dataclass(frozen=True)
class Optimum:
    """The best deletions from a prompt.

    Attributes:
        slots: The words to delete, in any order; as many as the edit budget allows.
        delta: The reward of these deletions.
    """

    slots: tuple[int, ...]
    delta: float


class LiteReward:
    """Composes replies by rules from the words that are left, and scores them by shared words; all in numpy.

    Each rule depends on whether a word is left:

    - a condition: the reply describes it, and says how to treat it if "advice" is left too;
    - "diagnosis": the reply begins with a heading; "medical": it ends with a follow-up visit;
    - "similar": the reply contains a sentence of small talk, which no doctor's reply has;
    - "sentence": the reply is short; without this word it contains a sentence of padding.

    The score is the F1 of shared words, each counted as often as in the text where it occurs less often (ROUGE-1, Lin
    2004, without stemming). So a wrong condition is worth deleting wherever it occurs, the patient's own is worth
    keeping, and only the patient vector tells them apart.

    Args:
        episodes: The prompts and references.
        texts: Whether outcomes hold replies; making them takes most of the time.
    """

    def __init__(self, episodes: EpisodeSet, texts: bool = False) -> None:
        """Count the words of statements and references."""
        self.episodes, self.texts = episodes, texts
        vocabulary = sorted({token for text in STATEMENTS for token in tokens(text)})
        self._bags = np.array([[tokens(text).count(token) for token in vocabulary] for text in STATEMENTS], np.float32)
        references = [tokens(episode.reference) for episode in episodes]
        self._references = np.array([[text.count(token) for token in vocabulary] for text in references], np.float32)
        self._lengths = np.array([len(text) for text in references])
        self._cues = np.zeros((len(episodes), episodes.max_words), dtype=np.int64)  # a bit for the cue in each slot
        for row, episode in enumerate(episodes):
            self._cues[row, : len(episode.words)] = [cue_bit(word) for word in episode.words]
        all_rows = np.arange(len(episodes))
        all_words = np.arange(episodes.max_words) < episodes.lengths[:, None]
        self._initial_made = apply_rules(self._left(all_rows, all_words))
        self._initial = self._score(all_rows, self._initial_made)

    def __call__(self, indices: Sequence[int], prompts: Sequence[str]) -> Outcomes:
        """Score refined prompts; the number of calls is 0, because there is no LLM."""
        index = np.asarray(indices)
        if isinstance(prompts, Prompts):
            left = self._left(index, prompts.kept)
        else:
            bits = [reduce(or_, map(cue_bit, prompt.split()), 0) for prompt in prompts]
            left = (np.array(bits)[:, None] & _BITS) != 0
        made = apply_rules(left)
        texts = None
        if self.texts:
            references = [self.episodes[i].reference for i in indices]
            replies, initial_replies = ([say(row) for row in rows] for rows in (made, self._initial_made[index]))
            texts = Texts(replies, initial_replies, references)
        n_calls = np.zeros(len(index), dtype=np.int64)
        return Outcomes(self._score(index, made), self._initial[index], n_calls, texts)

    def best(self, index: int, n_edits: int | float, protect: Collection[str] = ()) -> Optimum:
        """Find the best legal deletions from an episode's prompt, exactly.

        A reply depends only on which cues are left. So it is enough to try every set of cues to remove, and to spend
        the rest of the budget on words without effect: words that are no cue, and repeated occurrences of a cue.

        Args:
            index: The episode's index.
            n_edits: The edit budget, as for the env.
            protect: As for the env.
        """
        cues, free = self._cues[index], editable_words(self.episodes, protect)[index]
        budget = min(int(EditRules(n_edits).budgets(self.episodes.lengths[index])), int(free.sum()))
        slots_of = {cue: np.flatnonzero(cues == cue).tolist() for cue in np.unique(cues[cues > 0]).tolist()}
        removable = [cue for cue, slots in slots_of.items() if free[slots].all()]
        fitting: list[tuple[int, ...]] = []  # sets of cues whose removal the budget pays for and can be spent on
        for n_gone in range(len(removable) + 1):
            most = int(free.sum()) - (len(removable) - n_gone)  # of each cue that stays, a word has to stay
            for gone in combinations(removable, n_gone):
                if sum(len(slots_of[cue]) for cue in gone) <= budget <= most:
                    fitting.append(gone)
        bits = np.array([sum(cue for cue in slots_of if cue not in gone) for gone in fitting])
        left = (bits[:, None] & _BITS) != 0
        deltas = self._score(np.full(len(fitting), index), apply_rules(left)) - self._initial[index]
        first = int(deltas.argmax())  # at least one set fits
        required = [slot for cue in fitting[first] for slot in slots_of[cue]]
        stays = [slots_of[cue][0] for cue in removable if cue not in fitting[first]]
        idle = [slot for slot in np.flatnonzero(free).tolist() if slot not in {*required, *stays}]
        return Optimum((*required, *idle[: budget - len(required)]), float(deltas[first]))

    def _left(self, index: npt.NDArray[np.int64], kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return which cues are left, bool (n, number of cues)."""
        cues = self._cues[index]
        cues *= kept[:, : cues.shape[1]]
        return (np.bitwise_or.reduce(cues, axis=1)[:, None] & _BITS) != 0

    def _score(self, index: npt.NDArray[np.int64], made: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Return the F1 of words shared by replies, given as statements, and references, float64 (n,)."""
        reply, reference = made.astype(np.float32) @ self._bags, self._references[index]
        shared = np.minimum(reply, reference).sum(axis=1)
        return 2.0 * shared / np.maximum(reply.sum(axis=1) + self._lengths[index], 1)


def word_f1(text: str, reference: str) -> float:
    """Return the F1 of shared words, each counted as often as in the text where it occurs less often (ROUGE-1)."""
    found, expected = Counter(tokens(text)), Counter(tokens(reference))
    return 2.0 * (found & expected).total() / max(found.total() + expected.total(), 1)
