"""Episode: one patient's prompt, and how it is written as a line of JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from pmlm_env.core.arrays import read_only
from pmlm_env.core.checkups import Checkups
from pmlm_env.core.words import Prompt, Role, Word, joined, single_spaces

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, eq=False)
class Episode:
    """One patient's prompt, ready to be edited.

    Attributes:
        patient_id: The patient's ID; never sent to an LLM.
        split: The part of the cohort that the patient belongs to.
        words: The initial prompt's words, one per slot.
        roles: The role of each word.
        vector: x_hat of Eq. 2, shape (size,), float32, all finite; read-only. The size is 128 by default. Other numbers
            are converted, and an array that others could change is copied.
        reference: The reply that the patient's doctor wrote; "" = none.
        label: The patient's true condition, used only for evaluation and never in the prompt; "" = unknown.
        predicted: The label that stage 1 predicts.
        peers: The labels of the patient's peers, nearest first.
        spaces: The white space after each word, "" after the last; () = single spaces.
        language: The prompt's language as a BCP 47 tag.
        checkups: The patient's check-ups, for agents that learn a patient encoder; None = unknown. They go into no
            prompt, trace or message.
    """

    patient_id: str
    split: Split
    words: tuple[str, ...]
    roles: tuple[Role, ...]
    vector: npt.NDArray[np.float32]
    reference: str
    label: str
    predicted: str
    peers: tuple[str, ...]
    spaces: tuple[str, ...] = ()
    language: str = "en"
    checkups: Checkups | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check the values that later stages rely on.

        Raises:
            ValueError: A word is empty or contains white space, words, roles and spaces differ in number, the vector
                is not one of finite numbers, or the split is unknown.
        """
        if self.spaces == single_spaces(len(self.words)):
            object.__setattr__(self, "spaces", ())
        if self.spaces and len(self.words) != len(self.spaces):
            raise ValueError(f"patient {self.patient_id}: {len(self.words)} words, but {len(self.spaces)} spaces")
        try:
            self.initial  # noqa: B018  (making the prompt checks it)
        except ValueError as error:
            raise ValueError(f"patient {self.patient_id}: {error}") from None
        object.__setattr__(self, "vector", _vector(self.patient_id, self.vector))
        if self.split not in get_args(Split):
            raise ValueError(f"patient {self.patient_id}: unknown split {self.split!r}, use {get_args(Split)}")

    @property
    def initial(self) -> Prompt:
        """The initial prompt, including the space after each word."""
        spaces = self.spaces or single_spaces(len(self.words))
        return Prompt(tuple(map(Word, self.words, spaces)), self.roles, self.language)

    @property
    def prompt(self) -> str:
        """The initial prompt as text."""
        return joined(self.words, self.spaces)


def _vector(patient_id: str, values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return a patient's vector as nobody can change it: an agent or reward of one's own, or whoever made it.

    Raises:
        ValueError: It is not one of finite numbers.
    """
    given = np.asarray(values)
    if given.ndim != 1 or given.dtype.kind not in "fiu":
        raise ValueError(
            f"patient {patient_id}: the patient vector is {given.dtype} of shape {given.shape}: use finite numbers of "
            "one dimension, float32"
        )
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite
        vector = read_only(given.astype(np.float32, copy=False))
    if not np.isfinite(vector).all():
        place = int(np.isfinite(vector).argmin())
        raise ValueError(
            f"patient {patient_id}: the patient vector's number {place} is {given[place]}: use finite numbers, float32"
        )
    return vector


def to_line(episode: Episode) -> str:
    """Return an episode as a line of JSON, without its vector and its check-ups."""
    text = {
        "patient_id": episode.patient_id,
        "split": episode.split,
        "label": episode.label,
        "predicted": episode.predicted,
        "peers": episode.peers,
        "words": episode.words,
        "roles": episode.roles,
        "reference": episode.reference,
        **unusual(episode),
    }
    return json.dumps(text, ensure_ascii=False) + "\n"


def from_line(line: bytes, vector: npt.NDArray[np.float32], checkups: Checkups | None) -> Episode:
    """Return the episode of a line that ``to_line`` made.

    Raises:
        ValueError: The line is damaged.
    """
    try:
        row = json.loads(line.decode("utf-8"))
        for key in ("words", "roles", "peers", "spaces"):
            row[key] = tuple(row[key] if key in row or key != "spaces" else ())
        return Episode(vector=vector, checkups=checkups, **row | {key: shared(row[key]) for key in ("words", "roles")})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from error


def shared(texts: Sequence[Any]) -> tuple[Any, ...]:
    """Return texts of which equal ones are one object: prompts have few different words, and memory for each once."""
    return tuple(sys.intern(text) if type(text) is str else text for text in texts)


def unusual(episode: Episode) -> dict[str, Any]:
    """Return the fields that most prompts leave out: spaces unless single, language unless English."""
    spaces = {"spaces": episode.spaces} if episode.spaces else {}
    return {**spaces, **({"language": episode.language} if episode.language != "en" else {})}
