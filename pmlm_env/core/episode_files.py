"""Writing the files of an episode set, batch by batch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pmlm_env.core.arrays import GrowingArray
from pmlm_env.core.checkups import CheckupsFile
from pmlm_env.core.episode import Episode, to_line
from pmlm_env.core.labels import Label
from pmlm_env.io.files import make_folder, replacing

#: The files of an episode set.
WORDS_FILE, VECTORS_FILE, LABELS_FILE = "episodes.jsonl", "vectors.safetensors", "labels.json"
CHECKUPS_FILE = "checkups.safetensors"

#: The key in ``LABELS_FILE`` of what the prompts contain of the patients' records.
OF_RECORDS = "of_records"

NO_EPISODE = "an EpisodeSet needs at least one episode"


@contextmanager
def writing_episodes(
    folder: str | Path, known_labels: Iterable[Label] = (), *, checkups: bool = True, of_records: Sequence[str] = ()
) -> Iterator[EpisodeWriter]:
    """Write an episode set batch by batch, so that it need not fit into memory, as ``EpisodeSet.save`` does.

    The files, which only the owner can read, replace the earlier ones when the context ends without an error. The
    folder is created with the first batch if it is missing.

    Args:
        folder: The folder.
        known_labels: See ``EpisodeSet``.
        checkups: Whether to write the patients' check-ups, which all episodes need then.
        of_records: What the prompts contain of the patients' records; see ``InitialPrompt.of_records``.

    Yields:
        What takes the episodes.

    Raises:
        ValueError: ``folder`` is a file, there was no episode, or vectors or check-ups differ in form.
        OSError: The files cannot be written.
    """
    with ExitStack() as stack:
        writer = EpisodeWriter(Path(folder), tuple(known_labels), checkups, of_records, stack)
        yield writer
        writer.finish()


class EpisodeWriter:
    """Takes the episodes of ``writing_episodes``."""

    def __init__(
        self,
        folder: Path,
        known_labels: tuple[Label, ...],
        checkups: bool,
        of_records: Sequence[str],
        stack: ExitStack,
    ) -> None:
        """Wait for the first batch."""
        self._folder, self._known, self._with_checkups, self._stack = folder, known_labels, checkups, stack
        self._of_records = list(of_records)
        self._size: int | None = None

    def add(self, episodes: Iterable[Episode]) -> None:
        """Append episodes.

        Raises:
            ValueError: Their vectors or check-ups are of another form than the first, or check-ups are missing.
        """
        for episode in episodes:
            if self._size is None:
                self._open(episode.vector.size)
            if episode.vector.shape != (self._size,):
                found = sorted([(self._size,), episode.vector.shape])
                raise ValueError(f"all patient vectors must have the same shape, found {found}")
            self._words.write(to_line(episode).encode(errors="backslashreplace"))
            self._vectors.add(episode.vector[None])
            if self._with_checkups:
                if episode.checkups is None:
                    raise ValueError(f"patient {episode.patient_id}: the check-ups are missing")
                self._checkups.add(episode.checkups)

    def _open(self, size: int) -> None:
        make_folder(self._folder)
        # Closed in reverse order: the words are the last to be replaced.
        names = (WORDS_FILE, VECTORS_FILE, LABELS_FILE, *([CHECKUPS_FILE] if self._with_checkups else []))
        self._files = [self._stack.enter_context(replacing(self._folder / name)) for name in names]
        self._words = self._files[0]
        self._size, self._vectors = size, GrowingArray(self._files[1], "vectors", size)
        known: dict[str, Any] = {"labels": [asdict(label) for label in self._known]}
        if self._of_records:
            known[OF_RECORDS] = self._of_records
        content = json.dumps(known, ensure_ascii=False, indent=1) + "\n"
        self._files[2].write(content.encode(errors="backslashreplace"))
        if self._with_checkups:
            self._checkups = CheckupsFile(self._files[3])

    def finish(self) -> None:
        """Complete the files, before they replace the earlier ones.

        Raises:
            ValueError: There was no episode.
        """
        if self._size is None:
            raise ValueError(NO_EPISODE)
        self._vectors.close()
        if self._with_checkups:
            self._checkups.close()
        for file in self._files:  # all, before the old words go: a full disk may show only now
            file.flush()
            os.fsync(file.fileno())
        # If the process is killed before all are replaced, no old words may stay beside new files.
        (self._folder / WORDS_FILE).unlink(missing_ok=True)
        if not self._with_checkups:
            (self._folder / CHECKUPS_FILE).unlink(missing_ok=True)
