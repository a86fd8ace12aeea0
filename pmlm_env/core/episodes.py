"""Episode and EpisodeSet: everything that the pipeline passes to the envs."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from pmlm_env.core.checkups import CheckupForm, Checkups, padded, read_checkups, to_bytes
from pmlm_env.core.labels import Label, label_from
from pmlm_env.core.words import Prompt, Role, Word, joined, single_spaces
from pmlm_env.io.checked_files import read_object
from pmlm_env.io.files import make_folder, replacing

logger = logging.getLogger(__name__)

Split = Literal["train", "validation", "test"]

#: The files of an episode set.
WORDS_FILE, VECTORS_FILE, LABELS_FILE = "episodes.jsonl", "vectors.safetensors", "labels.json"
CHECKUPS_FILE = "checkups.safetensors"


@dataclass(frozen=True, eq=False)
class Episode:
    """One patient's prompt, ready to be edited.

    Attributes:
        patient_id: The patient's ID; never sent to an LLM.
        split: The part of the cohort that the patient belongs to.
        words: The initial prompt's words, one per slot.
        roles: The role of each word.
        vector: x_hat of Eq. 2, shape (size,), float32; read-only. The size is 128 by default.
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
            ValueError: A word is empty or contains white space, words, roles and spaces differ in number, or the
                split is unknown.
        """
        if self.spaces == single_spaces(len(self.words)):
            object.__setattr__(self, "spaces", ())
        if self.spaces and len(self.words) != len(self.spaces):
            raise ValueError(f"patient {self.patient_id}: {len(self.words)} words, but {len(self.spaces)} spaces")
        try:
            self.initial  # noqa: B018  (making the prompt checks it)
        except ValueError as error:
            raise ValueError(f"patient {self.patient_id}: {error}") from None
        if self.vector.flags.writeable:  # an agent or reward of one's own must not change it for all others, too
            object.__setattr__(self, "vector", self.vector.view())
            self.vector.flags.writeable = False
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
        self._episodes, self.known_labels = tuple(episodes), tuple(known_labels)
        self._conditions = None if conditions is None else tuple(conditions)
        if not self._episodes:
            raise ValueError("an EpisodeSet needs at least one episode")
        if len(lengths := {episode.vector.shape for episode in self._episodes}) > 1:
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
        members = [episode for episode in self._episodes if episode.split == split]
        chosen = [episode for episode in members if include_unscored or (episode.label and episode.reference)]
        if not chosen and members:
            raise ValueError(
                f"none of the {len(members)} {split} patients has both a label and a doctor's reply: "
                "add them to the patients' table and prepare it again with `pmlm prepare`"
            )
        if not chosen:
            raise ValueError(f"no episode belongs to split {split!r}")
        return self.part(chosen)

    @property
    def max_words(self) -> int:
        """Number of words of the longest prompt."""
        return int(self.lengths.max())

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of words of each prompt, shape (number of episodes,)."""
        return np.array([len(episode.words) for episode in self._episodes])

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """All true, predicted and peers' labels, sorted."""
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
        return np.stack([episode.vector for episode in self._episodes])

    @property
    def has_checkups(self) -> bool:
        """Whether the check-ups of all patients are here."""
        return all(episode.checkups is not None for episode in self._episodes)

    @cached_property
    def checkups(self) -> tuple[Checkups, ...]:
        """The patients' check-ups, all of the same form and standardized in the same way.

        Raises:
            ValueError: A patient has none here, or they are not.
        """
        found = tuple(episode.checkups for episode in self._episodes if episode.checkups is not None)
        if len(found) < len(self):
            raise ValueError("these episodes lack their patients' check-ups: prepare them again with `pmlm prepare`")
        first = found[0]
        for each in found:
            same = each.statistics is first.statistics or np.array_equal(
                each.statistics, first.statistics, equal_nan=True
            )
            if not same or each.form != first.form:
                raise ValueError("these episodes' check-ups are of different cohorts: prepare them as one")
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
            hashed.update(json.dumps([*parts, *_unusual(e).items()]).encode())
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
        known = {"labels": [asdict(label) for label in self.known_labels]}
        contents = {
            WORDS_FILE: "".join(lines).encode(errors="backslashreplace"),
            VECTORS_FILE: save({"vectors": self.vectors}),
            LABELS_FILE: (json.dumps(known, ensure_ascii=False, indent=1) + "\n").encode(errors="backslashreplace"),
        }
        if self.has_checkups:
            contents[CHECKUPS_FILE] = to_bytes(self.checkups)
        with ExitStack() as stack:  # the words are the last to be replaced
            for name, content in contents.items():
                file = stack.enter_context(replacing(folder / name))
                file.write(content)
                file.flush()
            # If the process is killed below, no old words may stay beside new files.
            (folder / WORDS_FILE).unlink(missing_ok=True)
            if CHECKUPS_FILE not in contents:
                (folder / CHECKUPS_FILE).unlink(missing_ok=True)

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
        try:
            vectors = load_file(arrays)["vectors"]
        except (SafetensorError, KeyError):
            raise ValueError(f"{arrays} is damaged: prepare it again with `pmlm prepare`") from None
        # Not splitlines: it would also split at U+2028 and similar characters, which a reply may contain.
        lines = text.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        if len(lines) != len(vectors):
            raise ValueError(f"{text} has {len(lines)} lines, {arrays} {len(vectors)} rows: prepare both again")
        known: Sequence[Checkups | None] = [None] * len(lines)
        if (Path(folder) / CHECKUPS_FILE).exists():
            known = read_checkups(Path(folder) / CHECKUPS_FILE, len(lines))
        episodes = []
        for number, (line, vector, checkups) in enumerate(zip(lines, vectors, known, strict=True), start=1):
            try:
                row = json.loads(line)
                for key in ("words", "roles", "peers", "spaces"):
                    row[key] = tuple(row[key] if key in row or key != "spaces" else ())
                episodes.append(Episode(vector=vector, checkups=checkups, **row))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{text}, line {number}: {error}: prepare it again with `pmlm prepare`") from error
        return cls(episodes, _read_labels(Path(folder) / LABELS_FILE))


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


def _unusual(episode: Episode) -> dict[str, Any]:
    """Return the fields that most prompts leave out: spaces unless single, language unless English."""
    spaces = {"spaces": episode.spaces} if episode.spaces else {}
    return {**spaces, **({"language": episode.language} if episode.language != "en" else {})}
