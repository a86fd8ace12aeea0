"""Episode and EpisodeSet: all that the pipeline passes to the envs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from pmlm_env.core.words import Prompt, Role, Word, joined, single_spaces
from pmlm_env.io.files import make_folder, replacing

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, eq=False)
class Episode:
    """One patient's prompt, ready to be edited.

    Attributes:
        patient_id: The patient; sent to no LLM.
        split: The part of the cohort that the patient belongs to.
        words: The initial prompt's words, one a slot.
        roles: The purpose of each word, one a word.
        vector: x_hat of Eq. 2, shape (128,), float32.
        reference: The reply that the patient's doctor wrote; "" = none.
        label: The patient's true condition, for evaluation only: the prompt holds nothing of it; "" = unknown.
        predicted: The label that stage 1 predicts.
        peers: The labels of the patient's peers, nearest first.
        spaces: The white space after each word, one a word, none after the last; () = single spaces.
        language: The prompt's, as in BCP 47.
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

    def __post_init__(self) -> None:
        """Check what every later stage relies on.

        Raises:
            ValueError: A word is empty or holds white space, or words, roles, spaces or split do not fit.
        """
        if self.spaces == single_spaces(len(self.words)):
            object.__setattr__(self, "spaces", ())
        if self.spaces and len(self.words) != len(self.spaces):
            raise ValueError(f"patient {self.patient_id}: {len(self.words)} words, but {len(self.spaces)} spaces")
        try:
            self.initial  # noqa: B018  (a prompt checks itself)
        except ValueError as error:
            raise ValueError(f"patient {self.patient_id}: {error}") from None
        if self.split not in get_args(Split):
            raise ValueError(f"patient {self.patient_id}: unknown split {self.split!r}, use {get_args(Split)}")

    @property
    def initial(self) -> Prompt:
        """The initial prompt, each word with the space after it."""
        spaces = self.spaces or single_spaces(len(self.words))
        return Prompt(tuple(map(Word, self.words, spaces)), self.roles, self.language)

    @property
    def prompt(self) -> str:
        """The initial prompt as text."""
        return joined(self.words, self.spaces)


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
            everybody: Whether those without a label or a reference are returned too.

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
        """The SHA-256 of all that the episodes hold, in order, wherever they are stored."""
        hashed = hashlib.sha256()
        for e in self._episodes:
            parts = (e.patient_id, e.split, e.words, e.roles, e.reference, e.label, e.predicted, e.peers)
            hashed.update(json.dumps([*parts, *_unusual(e).items()]).encode())
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
                **_unusual(e),
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
                for key in ("words", "roles", "peers", "spaces"):
                    row[key] = tuple(row[key] if key in row or key != "spaces" else ())
                episodes.append(Episode(vector=vector, **row))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{text}, line {number}: {error}: prepare it again with `pmlm prepare`") from error
        return cls(episodes)


def _unusual(episode: Episode) -> dict[str, Any]:
    """Return what most prompts do not need: spaces other than single ones, a language other than English."""
    spaces = {"spaces": episode.spaces} if episode.spaces else {}
    return {**spaces, **({"language": episode.language} if episode.language != "en" else {})}
