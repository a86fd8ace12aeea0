"""Episode and EpisodeSet: the one thing that passes from the pipeline to the envs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from pmlm_env.io.files import make_folder, replacing

Split = Literal["train", "validation", "test"]
Role = Literal["background", "self", "peer", "instruction"]


@dataclass(frozen=True, eq=False)
class Episode:
    """One patient's prompt, ready to be edited.

    Attributes:
        patient_id: Whose it is; stays in the house.
        split: The part of the cohort she belongs to.
        words: The initial prompt's words, one a slot.
        roles: What each word is there for, one a word.
        vector: x_hat of Eq. 2, shape (128,), float32.
        reference: The reply her doctor wrote; "" = none.
        label: Her true condition, for evaluation only: nothing of it is in the prompt; "" = unknown.
        predicted: The label that stage 1 predicts.
        peers: The labels of her peers, nearest first.
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

    def __post_init__(self) -> None:
        """Check what every later stage relies on.

        Raises:
            ValueError: A word is empty or holds white space, or words, roles or split do not fit.
        """
        if not self.words:
            raise ValueError(f"patient {self.patient_id}: the prompt has no words")
        if len(self.words) != len(self.roles):
            raise ValueError(f"patient {self.patient_id}: {len(self.words)} words, but {len(self.roles)} roles")
        for slot, word in enumerate(self.words):
            if word.split() != [word]:
                raise ValueError(f"patient {self.patient_id}: slot {slot} holds {word!r}, which is not one word")
        if unknown := set(self.roles) - set(get_args(Role)):
            raise ValueError(f"patient {self.patient_id}: unknown role {unknown.pop()!r}, use {get_args(Role)}")
        if self.split not in get_args(Split):
            raise ValueError(f"patient {self.patient_id}: unknown split {self.split!r}, use {get_args(Split)}")

    @property
    def prompt(self) -> str:
        """The initial prompt as text."""
        return " ".join(self.words)


class EpisodeSet(Sequence[Episode]):
    """Episodes in a fixed order: ``reset(options={"episode": i})`` picks the i-th."""

    def __init__(self, episodes: Iterable[Episode]) -> None:
        """Gather episodes.

        Raises:
            ValueError: There is none, or their patient vectors differ in length.
        """
        self._episodes = tuple(episodes)
        if not self._episodes:
            raise ValueError("an EpisodeSet needs at least one episode")
        if len(lengths := {episode.vector.shape for episode in self._episodes}) > 1:
            raise ValueError(f"all patient vectors must have one shape, found {sorted(lengths)}")

    def __len__(self) -> int:
        """Return the number of episodes."""
        return len(self._episodes)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        """Return one episode, or an EpisodeSet of those in a slice."""
        if isinstance(index, slice):
            return EpisodeSet(self._episodes[index])
        return self._episodes[index]

    def __iter__(self) -> Iterator[Episode]:
        """Iterate in order."""
        return iter(self._episodes)

    def of(self, split: Split, *, everybody: bool = False) -> EpisodeSet:
        """Return the episodes of one split that can be judged, in order: those with a label and a reference.

        Args:
            split: Which.
            everybody: Whether those that cannot be judged are returned too.

        Raises:
            ValueError: There is none.
        """
        theirs = [episode for episode in self._episodes if episode.split == split]
        chosen = [episode for episode in theirs if everybody or (episode.label and episode.reference)]
        if not chosen and theirs:
            raise ValueError(
                f"none of the {len(theirs)} {split} patients has both a label and a doctor's reply: "
                "add them to the patients' table and prepare it again with `pmlm prepare`"
            )
        if not chosen:
            raise ValueError(f"no episode belongs to split {split!r}")
        return EpisodeSet(chosen)

    @property
    def max_words(self) -> int:
        """Length of the longest prompt, in words."""
        return int(self.lengths.max())

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Words of each prompt, shape (number of episodes,)."""
        return np.array([len(episode.words) for episode in self._episodes])

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """All labels that occur as a true, predicted or peer's label, sorted."""
        return tuple(sorted({label for e in self._episodes for label in (e.label, e.predicted, *e.peers) if label}))

    @cached_property
    def vectors(self) -> npt.NDArray[np.float32]:
        """The patient vectors, shape (number of episodes, 128)."""
        return np.stack([episode.vector for episode in self._episodes])

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of all that the episodes hold, in order; where they are kept does not matter."""
        hashed = hashlib.sha256()
        for e in self._episodes:
            told = (e.patient_id, e.split, e.words, e.roles, e.reference, e.label, e.predicted, e.peers)
            hashed.update(json.dumps(told).encode())
            hashed.update(np.ascontiguousarray(e.vector, dtype="<f4").tobytes())
        return hashed.hexdigest()

    def save(self, folder: str | Path) -> None:
        """Write ``episodes.jsonl`` (one line a patient) and ``vectors.safetensors`` into ``folder``.

        Both are for their owner alone. Where writing fails, what was there before stays.

        Raises:
            ValueError: ``folder`` is a file.
            OSError: It cannot be written.
        """
        folder = Path(folder)
        make_folder(folder)
        lines = []
        for e in self._episodes:
            text = {
                "patient_id": e.patient_id,
                "split": e.split,
                "label": e.label,
                "predicted": e.predicted,
                "peers": e.peers,
                "words": e.words,
                "roles": e.roles,
                "reference": e.reference,
            }
            lines.append(json.dumps(text, ensure_ascii=False) + "\n")
        words = folder / "episodes.jsonl"
        with replacing(words) as texts, replacing(folder / "vectors.safetensors") as arrays:
            texts.write("".join(lines).encode(errors="backslashreplace"))
            arrays.write(save({"vectors": self.vectors}))
            texts.flush()
            arrays.flush()
            words.unlink(missing_ok=True)  # a kill from here on must not leave old words beside new vectors

    @classmethod
    def load(cls, folder: str | Path) -> EpisodeSet:
        """Read what ``save`` wrote.

        Raises:
            ValueError: A file is missing or does not fit; the message names it and what to do.
        """
        if Path(folder).is_file():
            raise ValueError(f"{folder} is a file: give the folder that `pmlm prepare` made")
        text, arrays = Path(folder) / "episodes.jsonl", Path(folder) / "vectors.safetensors"
        for path in (text, arrays):
            if not path.is_file():
                raise ValueError(f"{path} is missing: make it with `pmlm prepare`")
        try:
            vectors = load_file(arrays)["vectors"]
        except (SafetensorError, KeyError):
            raise ValueError(f"{arrays} is damaged: prepare it again with `pmlm prepare`") from None
        # Not splitlines: a reply may hold U+2028 and its like, which end no line of JSON Lines.
        lines = text.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        if len(lines) != len(vectors):
            raise ValueError(f"{text} has {len(lines)} lines, {arrays} {len(vectors)} rows: prepare both again")
        episodes = []
        for number, (line, vector) in enumerate(zip(lines, vectors, strict=True), start=1):
            try:
                row = json.loads(line)
                for key in ("words", "roles", "peers"):
                    row[key] = tuple(row[key])
                episodes.append(Episode(vector=vector, **row))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{text}, line {number}: {error}: prepare it again with `pmlm prepare`") from error
        return cls(episodes)
