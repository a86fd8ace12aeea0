"""EpisodeSet: everything that the pipeline passes to the envs."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pmlm_env.core.arrays import SafetensorError, loaded
from pmlm_env.core.checkups import CheckupForm, Checkups, StoredCheckups, check_alike, padded
from pmlm_env.core.episode import Episode, Split, from_line, unusual
from pmlm_env.core.episode_files import (
    CHECKUPS_FILE,
    LABELS_FILE,
    NO_EPISODE,
    VECTORS_FILE,
    WORDS_FILE,
    writing_episodes,
)
from pmlm_env.core.labels import Label, label_from
from pmlm_env.core.stored_episodes import CheckupsOf, StoredEpisodes
from pmlm_env.io.checked_files import read_object

__all__ = ["CHECKUPS_FILE", "LABELS_FILE", "VECTORS_FILE", "WORDS_FILE", "Episode", "EpisodeSet", "Split"]

logger = logging.getLogger(__name__)

#: Episodes whose words take at least so many bytes stay in their files (about 100,000 of the default template).
STORED_FROM = 2**28


class EpisodeSet(Sequence[Episode]):
    """Episodes in a fixed order: ``reset(options={"episode": i})`` picks the i-th.

    Args:
        episodes: The episodes.
        known_labels: Labels with their aliases, to decide which conditions a reply names. They need not occur in the
            episodes; a label of the episodes that is not among them is named by its name alone.
        conditions: The conditions that a reply may name, of a set that is part of a larger one; by default, those of
            the episodes.
    """

    def __init__(
        self,
        episodes: Iterable[Episode],
        known_labels: Iterable[Label] = (),
        conditions: Iterable[Label] | None = None,
    ) -> None:
        """Store the episodes.

        Raises:
            ValueError: There are none, or their patient vectors differ in length.
        """
        self._stored = episodes if isinstance(episodes, StoredEpisodes) else None
        self._episodes: Sequence[Episode] = tuple(episodes) if self._stored is None else self._stored
        self.known_labels = tuple(known_labels)
        self._conditions = None if conditions is None else tuple(conditions)
        if not self._episodes:
            raise ValueError(NO_EPISODE)
        if self._stored is None and len(lengths := {episode.vector.shape for episode in self._episodes}) > 1:
            raise ValueError(f"all patient vectors must have the same shape, found {sorted(lengths)}")

    def __len__(self) -> int:
        """Return the number of episodes."""
        return len(self._episodes)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        """Return one episode, or an EpisodeSet for a slice."""
        if isinstance(index, slice):
            return self.part(self._episodes[index])
        return self._episodes[index]

    def __iter__(self) -> Iterator[Episode]:
        """Iterate in order."""
        return iter(self._episodes)

    def of(self, split: Split, *, include_unscored: bool = False) -> EpisodeSet:
        """Return the episodes of one split that can be scored, in order: those with a label and a reference.

        Args:
            split: The split.
            include_unscored: Whether to include episodes without a label or a reference.

        Raises:
            ValueError: There are none.
        """
        if self._stored is None:
            members = np.array([episode.split == split for episode in self._episodes])
            complete = np.array([bool(episode.label and episode.reference) for episode in self._episodes])
        else:
            members, complete = self._stored.splits == split, self._stored.complete
        chosen = np.flatnonzero(members if include_unscored else members & complete)
        if not len(chosen) and members.any():
            raise ValueError(
                f"none of the {members.sum()} {split} patients has both a label and a doctor's reply: "
                "add them to the patients' table and prepare it again with `pmlm prepare`"
            )
        if not len(chosen):
            raise ValueError(f"no episode belongs to split {split!r}")
        if self._stored is not None:
            return self.part(self._stored.take(chosen))
        return self.part(self._episodes[i] for i in chosen.tolist())

    @property
    def max_words(self) -> int:
        """Number of words of the longest prompt."""
        return int(self.lengths.max())

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of words of each prompt, shape (number of episodes,)."""
        if self._stored is not None:
            return self._stored.lengths
        return np.array([len(episode.words) for episode in self._episodes])

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """All true, predicted and peers' labels, sorted."""
        if self._stored is not None:
            return tuple(sorted(self._stored.labels))
        return tuple(sorted({label for e in self._episodes for label in (e.label, e.predicted, *e.peers) if label}))

    @cached_property
    def conditions(self) -> tuple[Label, ...]:
        """The ``labels`` with their aliases, as far as they are known: the conditions that a reply may name.

        Splits and slices have those of the whole set, so that what a reply names does not depend on who is in them.
        """
        if self._conditions is not None:
            return self._conditions
        known = {label.name: label for label in self.known_labels}
        return tuple(known.get(name, Label(name)) for name in self.labels)

    def part(self, episodes: Iterable[Episode]) -> EpisodeSet:
        """Return a set of some of the episodes, perhaps changed, that knows the labels and conditions of this one."""
        return EpisodeSet(episodes, self.known_labels, self.conditions)

    @cached_property
    def vectors(self) -> npt.NDArray[np.float32]:
        """The patient vectors, shape (number of episodes, size)."""
        if self._stored is not None:
            return self._stored.vectors
        return np.stack([episode.vector for episode in self._episodes])

    @property
    def has_checkups(self) -> bool:
        """Whether the check-ups of all patients are here."""
        if self._stored is not None:
            return self._stored.has_checkups
        return all(episode.checkups is not None for episode in self._episodes)

    @cached_property
    def checkups(self) -> Sequence[Checkups]:
        """The patients' check-ups, all of the same form and standardized in the same way.

        Raises:
            ValueError: A patient has none here, or they are not.
        """
        if self._stored is not None and self._stored.has_checkups:
            return CheckupsOf(self._stored)  # a file has one form
        found = tuple(e.checkups for e in self._episodes if e.checkups is not None) if self._stored is None else ()
        if len(found) < len(self):
            raise ValueError("these episodes lack their patients' check-ups: prepare them again with `pmlm prepare`")
        for each in found:
            check_alike(each, found[0])
        return found

    @property
    def checkup_form(self) -> CheckupForm:
        """What the patients' check-ups measure; see ``checkups``."""
        return self.checkups[0].form

    def padded_checkups(self, indices: Iterable[int]) -> npt.NDArray[np.float32]:
        """Return some patients' check-ups, padded (``pmlm_env.core.checkups.padded``) and flat, shape (B, size)."""
        form, chosen = self.checkup_form, [self.checkups[i].values for i in indices]
        return padded(chosen, form.max_checkups, len(form.indicators)).reshape(len(chosen), form.size)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the episodes' contents, in order; independent of where they are stored.

        The known labels are left out: no agent learns from them, so a run may go on after an alias was added. So are
        the check-ups: the vectors depend on them, and a folder that was made without them keeps its digest.
        """
        hashed = hashlib.sha256()
        for e in self._episodes:
            parts = (e.patient_id, e.split, e.words, e.roles, e.reference, e.label, e.predicted, e.peers)
            hashed.update(json.dumps([*parts, *unusual(e).items()]).encode())
            hashed.update(np.ascontiguousarray(e.vector, dtype="<f4").tobytes())
        return hashed.hexdigest()

    def save(self, folder: str | Path) -> None:
        """Write ``episodes.jsonl`` (one line per patient), ``vectors.safetensors`` and ``labels.json`` into ``folder``.

        If the patients' check-ups are known, they are written into ``checkups.safetensors``.

        Only the owner can read them. If writing fails, the earlier files stay.

        Raises:
            ValueError: ``folder`` is a file.
            OSError: The files cannot be written.
        """
        with writing_episodes(folder, self.known_labels, checkups=self.has_checkups) as writer:
            writer.add(self._episodes)

    @classmethod
    def load(cls, folder: str | Path) -> EpisodeSet:
        """Read what ``save`` wrote.

        Raises:
            ValueError: A file is missing or invalid; the message names it and says what to do.
        """
        if Path(folder).is_file():
            raise ValueError(f"{folder} is a file: give the folder that `pmlm prepare` made")
        text, arrays = Path(folder) / WORDS_FILE, Path(folder) / VECTORS_FILE
        for path in (text, arrays):
            if not path.is_file():
                raise ValueError(f"{path} is missing: make it with `pmlm prepare`")
        checkups = Path(folder) / CHECKUPS_FILE
        labels = _read_labels(Path(folder) / LABELS_FILE)
        try:
            if text.stat().st_size >= STORED_FROM:
                return cls(StoredEpisodes(text, arrays, checkups if checkups.exists() else None), labels)
            vectors = loaded(arrays, "vectors")
        except (SafetensorError, KeyError):
            raise ValueError(f"{arrays} is damaged: prepare it again with `pmlm prepare`") from None
        lines = text.read_bytes().removesuffix(b"\n").split(b"\n")
        if len(lines) != len(vectors):
            raise ValueError(f"{text} has {len(lines)} lines, {arrays} {len(vectors)} rows: prepare both again")
        known: Sequence[Checkups | None] = [None] * len(lines)
        if checkups.exists():
            known = StoredCheckups(checkups, len(lines))
        episodes = []
        for number, (line, vector, of_patient) in enumerate(zip(lines, vectors, known, strict=True), start=1):
            try:
                episodes.append(from_line(line, vector, of_patient))
            except ValueError as error:
                raise ValueError(f"{text}, line {number}: {error}: prepare it again with `pmlm prepare`") from error
        return cls(episodes, labels)


def _read_labels(path: Path) -> tuple[Label, ...]:
    cure = "prepare it again with `pmlm prepare`"
    if not path.is_file():
        logger.warning("%s is missing, so replies are searched for the conditions' own names only: %s", path, cure)
        return ()
    entries = read_object(path, cure).get("labels")
    if not isinstance(entries, list):
        raise ValueError(f'{path} has no list "labels": {cure}')
    try:
        return tuple(map(label_from, entries))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
