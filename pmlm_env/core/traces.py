"""Traces: one record of each episode, kept as a line of JSON, from which tables, cases and figures are made."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import chain
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

from pmlm_env.core.edits import Edit
from pmlm_env.core.episodes import Episode
from pmlm_env.io.files import append, replacing

#: The version of a trace's fields, which every line begins with.
VERSION = 1

#: Fields that a trace has from the episode.
_OF_PATIENT = ("split", "patient_id", "label", "words", "spaces", "roles", "reference")

#: Fields that hold a text for each word.
_TEXTS = ("words", "spaces", "roles")


@dataclass(frozen=True)
class TracedReply:
    """One reply, with what is known of how it came about.

    Attributes:
        text: The reply.
        prompt_tokens: Tokens of the prompt, as the LLM counts them; None where no LLM replied.
        completion_tokens: Tokens of the reply, likewise.
        finish_reason: ``"stop"``, or ``"length"`` where the limit on new tokens ended the reply; None likewise.
        cached: Whether it was in the reply cache already, so that no call was made for it; None likewise.
    """

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    cached: bool | None = None


@dataclass(frozen=True)
class Trace:
    """One episode: a patient's prompt, its edits, the replies, and their scores.

    It holds texts of a patient: it stays on the machine, in files for their owner alone.

    Attributes:
        run: The name of the run folder.
        agent: The agent of the run, by its name in the registry.
        variant: How the prompt was edited, such as ``"agent"`` (by that agent) or ``"random"``; or the control that
            replied, such as ``"echo"``.
        seed: The seed of what was drawn.
        split: The part of the cohort that the patient belongs to.
        patient_id: The patient.
        label: The patient's true condition; "" = unknown.
        words: The words of the initial prompt, one for each slot.
        spaces: The white space after each word; () = single spaces, and none after the last word.
        roles: The role of each word.
        edits: The edits in order, each with the probability that the policy gave it; None where it gives none.
        prompt: The refined prompt.
        initial_reply: The (first) reply to the initial prompt; "" where there is none.
        replies: The replies to the refined prompt, one for each sample; those that could not be had are left out.
        reference: The doctor's reply.
        before: Every score component of the replies to the initial prompt, by name: means over samples; None where a
            component has no value. Empty where there is no reply.
        after: Likewise of the replies to the refined prompt.
        reward: The change of BERTScore F1 (Eq. 9); None where there was an error.
        error: Why there is no reward; "" where there is one.
    """

    run: str
    agent: str
    variant: str
    seed: int
    split: str
    patient_id: str
    label: str
    words: tuple[str, ...]
    spaces: tuple[str, ...]
    roles: tuple[str, ...]
    edits: tuple[Edit, ...]
    prompt: str
    initial_reply: str
    replies: tuple[TracedReply, ...]
    reference: str
    before: Mapping[str, float | None]
    after: Mapping[str, float | None]
    reward: float | None
    error: str = ""

    @classmethod
    def of(cls, episode: Episode, **rest: Any) -> Trace:
        """Return a trace whose fields about the patient are those of ``episode``; ``rest`` are all other fields."""
        known = {name: getattr(episode, name) for name in _OF_PATIENT}
        return cls(**known, **rest)

    def to_json(self) -> str:
        """Return the trace as one line of JSON, without the end of the line."""
        parts = {name: [asdict(part) for part in getattr(self, name)] for name in ("edits", "replies")}
        return json.dumps({"version": VERSION, **vars(self), **parts}, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, line: str | bytes) -> Trace:
        """Read what ``to_json`` returned.

        Raises:
            ValueError: It is not a trace, or one of another version.
        """
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            raise ValueError("it is damaged (not JSON)") from None
        version = content.pop("version", None) if isinstance(content, dict) else None
        if version is None:
            raise ValueError("it is damaged (not an object with a version)")
        if version != VERSION:
            raise ValueError(f"it is of version {shortened(version)}, and this pmlm-env reads version {VERSION}")
        names = {field.name for field in fields(cls)}
        wrong = sorted(content.keys() ^ names) or [name for name in content if not _is_valid(name, content[name])]
        if wrong:
            raise ValueError(f"it is damaged (in {shortened(wrong[0])})")
        try:
            for name, kind in (("edits", Edit), ("replies", TracedReply)):
                content[name] = tuple(kind(**part) for part in content[name])
        except TypeError:
            raise ValueError(f"it is damaged (in {name!r})") from None
        trace = cls(**{**content, **{name: tuple(content[name]) for name in _TEXTS}})
        for name in ("roles", *(["spaces"] if trace.spaces else [])):
            if len(getattr(trace, name)) != len(trace.words):
                raise ValueError(f"it is damaged (in {name!r})")
        if not all(type(edit.slot) is int and 0 <= edit.slot < len(trace.words) for edit in trace.edits):
            raise ValueError("it is damaged (in 'edits')")
        return trace


def _is_valid(name: str, value: Any) -> bool:
    """Whether a field of a trace has a value of the right type; the parts of edits and replies are not looked at."""
    if name in _TEXTS:
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    if name in ("edits", "replies"):
        return isinstance(value, list) and all(isinstance(each, dict) for each in value)
    if name in ("before", "after"):
        return isinstance(value, dict) and all(each is None or _is_number(each) for each in value.values())
    if name == "reward":
        return value is None or _is_number(value)
    return type(value) is (int if name == "seed" else str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class TraceFile:
    """A file of traces, one line of JSON each, for its owner alone.

    Args:
        path: The file; it is made with the first trace.
    """

    def __init__(self, path: str | Path) -> None:
        """Read nothing yet."""
        self.path = Path(path)
        self._ends_whole = False

    def append(self, traces: Iterable[Trace]) -> None:
        """Add the traces of episodes that have ended, all or none; they are on the disk afterwards.

        A last line that a crash cut short is removed first.

        Raises:
            OSError: The file cannot be written.
        """
        lines = [trace.to_json() for trace in traces]
        if not lines:
            return
        if not self._ends_whole:
            self._remove_part()
        append(self.path, "\n".join(lines))
        self._ends_whole = True

    def replace(self, traces: Iterable[Trace], earlier: Callable[[Trace], bool]) -> None:
        """Put traces at the end of the file, in place of earlier ones; until all are on the disk these stay.

        Args:
            traces: The new ones.
            earlier: Whether a trace of the file is one of those that the new ones replace.

        Raises:
            ValueError: The file is damaged.
            OSError: It cannot be written.
        """
        with replacing(self.path) as file:
            for trace in chain((trace for trace in self if not earlier(trace)), traces):
                file.write((trace.to_json() + "\n").encode(errors="backslashreplace"))
        self._ends_whole = True

    def read(self) -> list[Trace]:
        """Return all traces, in the order they were written; none where there is no file.

        A last line that a crash cut short is left out.

        Raises:
            ValueError: Another line is damaged, or of another version.
        """
        return list(self)

    def __iter__(self) -> Iterator[Trace]:
        """Iterate over the traces; see ``read``."""
        if not self.path.is_file():
            return
        # Not text lines: a reply may hold U+2028 and its like, which end no line of JSON Lines.
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return
                try:
                    yield Trace.from_json(line)
                except ValueError as error:
                    raise ValueError(
                        f"{self.path}, line {number}: {error}: restore the file from a copy, or remove it and make "
                        "its traces again with `pmlm evaluate`, which asks for no cached reply again"
                    ) from None

    def _remove_part(self) -> None:
        """Remove a last line that has no end."""
        if self.path.is_file():
            os.truncate(self.path, self.path.read_bytes().rfind(b"\n") + 1)
