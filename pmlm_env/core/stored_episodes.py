"""Episodes that stay in their files: each is read when it is asked for, so that a million take little memory."""

from __future__ import annotations

import json
import mmap
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from pmlm_env.core.arrays import mapped
from pmlm_env.core.checkups import Checkups, StoredCheckups
from pmlm_env.core.episode import Episode, from_line

_CURE = "prepare it again with `pmlm prepare`"


class StoredEpisodes(Sequence[Episode]):
    """The episodes of the files that ``EpisodeSet.save`` wrote, or some of them, in any order.

    The files are mapped into memory. They may be replaced meanwhile, but must not be changed in place. Once they are
    replaced, another process cannot open what this one has: unpickling raises ValueError.

    Args:
        text: The file of words, one line per episode.
        vectors: The file of patient vectors.
        checkups: The file of check-ups; None if there is none.

    Attributes:
        lengths: Number of words of each prompt, shape (n,).
        splits: The split of each episode, shape (n,).
        complete: Whether each episode has a label and a reference, shape (n,).

    Raises:
        ValueError: A file is damaged, or they do not belong together. Whether the words and roles of a line make a
            prompt is checked when the episode is asked for.
    """

    def __init__(self, text: Path, vectors: Path, checkups: Path | None) -> None:
        """Find the lines, and read of each what is needed to choose among them."""
        self._files = tuple(path.absolute() for path in (text, vectors, checkups) if path is not None)
        self._stamps = tuple(map(_stamp, self._files))  # before they are opened: a later one could be of other files
        self._open()
        lengths, splits, complete, labels = array("q"), list[str](), array("b"), set[str]()
        starts = array("q", [0])
        while starts[-1] < len(self._lines):
            end = self._lines.find(b"\n", starts[-1]) + 1 or len(self._lines) + 1
            try:
                row = json.loads(self._lines[starts[-1] : end])
                lengths.append(len(row["words"]))
                splits.append(str(row["split"]))
                complete.append(bool(row["label"] and row["reference"]))
                labels.update((row["label"], row["predicted"], *row["peers"]))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{text}, line {len(starts)}: {error}: {_CURE}") from error
            starts.append(end)
        self._labels: set[str] | None = labels - {""}
        self._starts = np.array(starts)
        self._rows = np.arange(len(starts) - 1)
        self.lengths, self.splits = np.array(lengths), np.array(splits, dtype="U10")
        self.complete = np.array(complete, dtype=np.bool_)
        if len(self._rows) != len(self._vectors):
            raise ValueError(
                f"{text} has {len(self._rows)} lines, {vectors} {len(self._vectors)} rows: prepare both again"
            )

    def _open(self) -> None:
        text, vectors, *checkups = self._files
        with text.open("rb") as file:
            self._lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._vectors = mapped(vectors, "vectors")
        self._checkups = StoredCheckups(checkups[0], len(self._vectors), in_memory=False) if checkups else None

    def __len__(self) -> int:
        """Return the number of episodes."""
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Episode: ...
    @overload
    def __getitem__(self, index: slice) -> StoredEpisodes: ...
    def __getitem__(self, index: int | slice) -> Episode | StoredEpisodes:
        """Return one episode, or those of a slice.

        Raises:
            ValueError: Its line is damaged.
        """
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        row = int(self._rows[index])
        line = self._lines[self._starts[row] : self._starts[row + 1]]
        try:
            return from_line(line, self._vectors[row].view(np.ndarray), self.checkups_of(index))
        except ValueError as error:
            raise ValueError(f"{self._files[0]}, line {row + 1}: {error}: {_CURE}") from error

    def take(self, indices: npt.NDArray[np.intp]) -> StoredEpisodes:
        """Return the episodes at these indices."""
        some = object.__new__(StoredEpisodes)
        some.__dict__ |= self.__dict__
        some._rows = self._rows[indices]
        for name in ("lengths", "splits", "complete"):
            setattr(some, name, getattr(self, name)[indices])
        some._labels = None
        return some

    def __getstate__(self) -> dict[str, Any]:
        """Return everything but the open files, for another process."""
        return {name: value for name, value in self.__dict__.items() if name not in _OPEN}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the files again.

        Raises:
            ValueError: They are not those any more.
        """
        self.__dict__ |= state
        for path, stamp in zip(self._files, self._stamps, strict=True):
            if _stamp(path) != stamp:
                raise ValueError(f"{path} is not the file any more that these episodes are of: load the episodes again")
        self._open()

    @property
    def vectors(self) -> npt.NDArray[np.float32]:
        """The patient vectors, shape (n, size); of all episodes, those of the file itself."""
        whole = len(self) == len(self._vectors) and bool((self._rows == np.arange(len(self))).all())
        return self._vectors if whole else np.asarray(self._vectors[self._rows])

    @property
    def labels(self) -> set[str]:
        """All true, predicted and peers' labels."""
        if self._labels is None:
            self._labels = {label for e in self for label in (e.label, e.predicted, *e.peers) if label}
        return self._labels

    @property
    def has_checkups(self) -> bool:
        """Whether there is a file of check-ups."""
        return self._checkups is not None

    def checkups_of(self, index: int) -> Checkups | None:
        """Return the check-ups of one episode; None if there are none."""
        return None if self._checkups is None else self._checkups[int(self._rows[index])]


_OPEN = ("_lines", "_vectors", "_checkups")


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return size and time of a file, which all machines that share it see; None if it is missing."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns


class CheckupsOf(Sequence[Checkups]):
    """The check-ups of stored episodes, each of which is read when it is asked for.

    Args:
        episodes: The episodes, which have check-ups.
    """

    def __init__(self, episodes: StoredEpisodes) -> None:
        """Read nothing yet."""
        self._episodes = episodes

    def __len__(self) -> int:
        """Return the number of patients."""
        return len(self._episodes)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        """Return one patient's check-ups, or those of a slice."""
        return CheckupsOf(self._episodes[index]) if isinstance(index, slice) else self._episodes.checkups_of(index)
