"""Texts that nobody wrote for the patient: a reward must not pay more for them than for the untouched prompt's reply.

An agent that learns from a reward moves towards whatever it pays for. So a reward is tried on the controls
(``agents.evaluation.controls``), and on what policies trained with a poor reward are known to end in: copies of the
prompt, a fixed response, or more of the same (Deriu et al., "Probing the Robustness of Trained Metrics for
Conversational Dialogue Systems", ACL 2022).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from agents.evaluation.controls import CONTROLS
from pmlm_env.cohort.naming.labels import mentioned_labels
from pmlm_env.core.labels import Label
from pmlm_env.core.languages import language_of
from pmlm_env.rewards.advice import pieces_of

#: Texts that are judged besides controls, with a description.
ADVERSARIES = {
    "truncated": "the first half of the untouched reply, marked as cut off",
    "half": "the same half, not marked as cut off",
    "repeated": "the untouched reply, twice",
    "reply-and-facts": "the untouched reply, followed by the untouched prompt without its instruction",
    "all-conditions": "the untouched reply, followed by the names of all conditions",
    "best-text": "one text for all patients: the one that earns most on training patients",
    "best-ending": "the untouched reply, followed by one text for all: the one that earns most on training patients",
}

#: Controls that are not judged, because they are letters of similar patients: they show what a good reply may earn.
CEILINGS = ("peer-letter", "label-letter")

#: The texts that are judged, in the order of tables.
JUDGED = (*(name for name in CONTROLS if name not in CEILINGS), *ADVERSARIES)

#: What a sentence ends in.
_ENDS = (".", "!", "?", "\u3002", "\uff01", "\uff1f")

#: Returns what N texts earn as replies to the patients at the given indices, float64 (N,).
Earned: TypeAlias = Callable[[Sequence[str], Sequence[int]], npt.NDArray[np.float64]]

#: Number of patients on whom all candidates are tried, and number of the best of them that are tried on all patients.
_FIRST_PATIENTS, _FINALISTS = 8, 4

#: Maximum numbers of letters to take apart, of sentences to add, and of rounds of changes.
_MOST_LETTERS, _MOST_SENTENCES, _MOST_ROUNDS = 48, 12, 3


def reply_variants(replies: Sequence[str], facts: Sequence[str], conditions: Iterable[Label]) -> dict[str, list[str]]:
    """Return the adversaries that are made of the replies to the untouched prompts, by the names in ``ADVERSARIES``.

    Args:
        replies: N replies to untouched prompts.
        facts: The N prompts without their instructions; if one is blank, there is no ``reply-and-facts``.
        conditions: All conditions of the cohort.
    """
    halves, names = [_half(reply) for reply in replies], ", ".join(label.name for label in conditions)
    variants = {
        "truncated": halves,
        "half": halves,
        "repeated": after(replies, replies),
        "all-conditions": after(replies, [names] * len(replies)),
    }
    return {**variants, "reply-and-facts": after(replies, facts)} if all(map(str.strip, facts)) else variants


def after(replies: Iterable[str], texts: Iterable[str]) -> list[str]:
    """Return each reply followed by the text at the same index."""
    return [f"{reply}\n{text}" for reply, text in zip(replies, texts, strict=True)]


def _half(reply: str) -> str:
    """Return the first half of the words; of a text without spaces, of the characters."""
    words = reply.split()
    return " ".join(words[: len(words) // 2]) if len(words) > 1 else reply[: (len(reply) + 1) // 2]


def _joined(pieces: Iterable[str]) -> str:
    """Join what ``pieces_of`` took apart."""
    return " ".join(piece if piece.endswith(_ENDS) else f"{piece};" for piece in pieces)


class TextSearch:
    """Searches the one text that earns most if all patients get it.

    Args:
        letters: Training patients' letters; the first 48 are used.
        conditions: All conditions of the cohort.

    Attributes:
        letters: The letters that are used.
        without_conditions: The same letters without the sentences that mention a condition, if any are left.
        sentences: The most frequent sentences that mention no condition.
    """

    def __init__(self, letters: Sequence[str], conditions: Iterable[Label]) -> None:
        """Take the letters apart."""
        known = tuple(conditions)
        language = language_of("".join(letters[:_MOST_LETTERS]))
        self.letters = list(letters[:_MOST_LETTERS])
        parts = [[s for s in pieces_of(letter) if not mentioned_labels(s, known, language)] for letter in self.letters]
        self.without_conditions = [_joined(sentences) for sentences in parts if sentences]
        counts = Counter(sentence for sentences in parts for sentence in sentences)
        self.sentences = [sentence for sentence, _ in counts.most_common(_MOST_SENTENCES)]

    def best(self, starts: Iterable[str], earned: Earned, n_patients: int) -> str:
        """Return the text that earns most.

        It is the best of ``starts``, changed as long as it then earns more: a sentence is taken out, or one of
        ``sentences`` is added at the end.

        Args:
            starts: One text or more.
            earned: What texts earn.
            n_patients: Number of patients, whose indices ``earned`` takes.
        """
        best, most = _best(list(dict.fromkeys(starts)), earned, n_patients)
        for _ in range(_MOST_ROUNDS):
            parts = pieces_of(best)
            changed = [_joined(parts[:i] + parts[i + 1 :]) for i in range(len(parts)) if len(parts) > 1]
            changed += [_joined([*parts, sentence]) for sentence in self.sentences if sentence not in parts]
            if not changed:
                break
            text, earns = _best(changed, earned, n_patients)
            if earns <= most:
                break
            best, most = text, earns
        return best


def _best(texts: Sequence[str], earned: Earned, n_patients: int) -> tuple[str, float]:
    """Return the text that earns most, and its mean; only those that earn most from a few patients are tried on all."""
    first = _means(texts, earned, min(_FIRST_PATIENTS, n_patients))
    finalists = [texts[i] for i in np.argsort(-first, kind="stable")[:_FINALISTS].tolist()]
    means = _means(finalists, earned, n_patients)
    return finalists[int(means.argmax())], float(means.max())


def _means(texts: Sequence[str], earned: Earned, n_patients: int) -> npt.NDArray[np.float64]:
    """Return what each text earns in the mean over the first patients."""
    rows = earned([text for text in texts for _ in range(n_patients)], [*range(n_patients)] * len(texts))
    return rows.reshape(len(texts), n_patients).mean(axis=1)
