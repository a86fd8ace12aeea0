"""Traces: one record per episode, stored as a line of JSON. Tables, cases and figures are made from them."""

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

#: Version of the trace format; the first field of every line.
VERSION = 2

#: Fields that a trace copies from the episode.
_OF_PATIENT = ("split", "patient_id", "label", "predicted", "words", "spaces", "roles", "reference")

#: Fields that hold one string per word.
_TEXTS = ("words", "spaces", "roles")


@dataclass(frozen=True)
class TracedPeer:
    """One peer of the patient. In traces of ``pmlm evaluate``, all fields but the label are None.

    Attributes:
        label: The peer's true condition.
        patient_id: The peer's ID.
        similarity: Cosine of the two patients' vectors (Eq. 4).
    """

    label: str
    patient_id: str | None = None
    similarity: float | None = None


@dataclass(frozen=True)
class TracedReply:
    """One reply, with its usage and origin. All fields but the text are None if no LLM replied.

    Attributes:
        text: The reply.
        prompt_tokens: Number of tokens of the prompt, as the LLM counts them.
        completion_tokens: Number of tokens of the reply.
        finish_reason: ``"stop"``, or ``"length"`` if the limit on new tokens ended the reply.
        cached: Whether the reply came from the reply cache, without a call.
    """

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    cached: bool | None = None


#: Fields that hold several records.
_PARTS: Mapping[str, Any] = {"peers": TracedPeer, "edits": Edit, "replies": TracedReply}


@dataclass(frozen=True)
class Trace:
    """One episode: a patient's prompt, its edits, the replies, and their scores.

    A trace contains patient texts, so it is stored only on this machine, in files that only their owner can read.

    Attributes:
        run: The name of the run folder.
        agent: The run's agent, by its name in the registry.
        variant: How the prompt was edited, such as ``"agent"`` (by that agent) or ``"random"``; or the control that
            replied, such as ``"echo"``.
        seed: The random seed.
        split: The part of the cohort that the patient belongs to.
        patient_id: The patient's ID.
        label: The patient's true condition; "" = unknown.
        predicted: The condition that stage 1 predicts.
        probabilities: The probability of each condition according to stage 1; empty if not recorded.
        peers: The peers, nearest first.
        words: The words of the initial prompt, one per slot.
        spaces: The white space after each word, "" after the last; () = single spaces.
        roles: The role of each word.
        edits: The edits in order, each with the probability that the policy gave it, or None if it gives none.
        prompt: The refined prompt.
        initial_reply: The (first) reply to the initial prompt; "" if there is none.
        replies: The replies to the refined prompt, one per sample; failed ones are left out.
        reference: The doctor's reply.
        before: Score components of the replies to the initial prompt, by name: means over samples, or None if a
            component has no value. Empty if there is no reply.
        after: The same for the replies to the refined prompt.
        reward: What the edits earn: the change of BERTScore F1 (Eq. 9), or what another reward pays; None if it was not
            computed.
        error: Why a reply is missing; "" if none is.
    """

    run: str
    agent: str
    variant: str
    seed: int
    split: str
    patient_id: str
    label: str
    predicted: str
    probabilities: Mapping[str, float]
    peers: tuple[TracedPeer, ...]
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
        """Return a trace with the patient's fields copied from ``episode``; ``rest`` are all other fields.

        An episode has only the peers' labels and no probabilities, so ``rest`` may contain both.
        """
        known: dict[str, Any] = {name: getattr(episode, name) for name in _OF_PATIENT}
        known |= {"probabilities": {}, "peers": tuple(map(TracedPeer, episode.peers))}
        return cls(**{**known, **rest})

    def to_json(self) -> str:
        """Return the trace as one line of JSON, without the line break."""
        parts = {name: [asdict(part) for part in getattr(self, name)] for name in _PARTS}
        return json.dumps({"version": VERSION, **vars(self), **parts}, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, line: str | bytes) -> Trace:
        """Read what ``to_json`` returned.

        Raises:
            ValueError: The line is not a trace, or has another version.
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
            for name, kind in _PARTS.items():
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
    """Return whether a trace's field has a value of the right type; peers, edits and replies are not checked inside."""
    if name in _TEXTS:
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    if name in _PARTS:
        return isinstance(value, list) and all(isinstance(each, dict) for each in value)
    if name in ("before", "after", "probabilities"):
        return isinstance(value, dict) and all(each is None or _is_number(each) for each in value.values())
    if name == "reward":
        return value is None or _is_number(value)
    return type(value) is (int if name == "seed" else str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class TraceFile:
    """A file of traces, one line of JSON each, that only its owner can read.

    Args:
        path: The file; it is created when the first trace is written.
    """

    def __init__(self, path: str | Path) -> None:
        """Store the path; nothing is read yet."""
        self.path = Path(path)
        self._end_checked = False

    def append(self, traces: Iterable[Trace]) -> None:
        """Add the traces of episodes that have ended: all or none. When this returns, they are on disk.

        An incomplete last line, left by a crash, is removed first.

        Raises:
            OSError: The file cannot be written.
        """
        lines = [trace.to_json() for trace in traces]
        if not lines:
            return
        if not self._end_checked:
            self._remove_incomplete_line()
        append(self.path, "\n".join(lines))
        self._end_checked = True

    def replace(self, traces: Iterable[Trace], earlier: Callable[[Trace], bool]) -> None:
        """Remove earlier traces and add new ones at the end; nothing is removed before all new ones are on disk.

        Args:
            traces: The new traces.
            earlier: Whether a trace in the file is to be removed.

        Raises:
            ValueError: The file is damaged.
            OSError: The file cannot be written.
        """
        with replacing(self.path) as file:
            for trace in chain((trace for trace in self if not earlier(trace)), traces):
                file.write((trace.to_json() + "\n").encode(errors="backslashreplace"))
        self._end_checked = True

    def read(self) -> list[Trace]:
        """Return all traces, in the order they were written; none if there is no file.

        An incomplete last line, left by a crash, is skipped.

        Raises:
            ValueError: Another line is damaged, or has another version.
        """
        return list(self)

    def __iter__(self) -> Iterator[Trace]:
        """Iterate over the traces; see ``read``."""
        if not self.path.is_file():
            return
        # Read as bytes: str.splitlines would also split at U+2028 and similar characters, which a reply may contain.
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

    def _remove_incomplete_line(self) -> None:
        """Remove a last line without a line break."""
        if self.path.is_file():
            os.truncate(self.path, self.path.read_bytes().rfind(b"\n") + 1)
