"""From people, stays, diagnoses and letters to the table of patients: what all data sets of a hospital have in common.

A patient is a person, at the time of their latest letter, or one stay of a person, at its end. The patient's label is
a diagnosis known by then, the reference is the letter.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from pmlm_env.cohort.errors import CohortError

#: Which kind of patient a data set is read as. A moment is a person with everything up to a time that the data set
#: names; it is kept as a stay that ends then.
Unit = Literal["person", "stay", "moment"]

#: People read by default. Stages 1 and 2 learn little from more, and data sets have up to millions.
PEOPLE = 10_000
#: Labels kept by default.
LABELS = 30
#: Shares of the people in train, and in train and validation, where no date can be trusted.
_TRAIN, _VALIDATION = 0.7, 0.85
#: Longest time, in days, between the end of a stay and a letter about it that does not name the stay.
_LETTER_DAYS = 30


@dataclass(frozen=True, slots=True)
class Stay:
    """A stay in hospital, or another visit.

    Attributes:
        id: Its identifier.
        start: When it began, as ISO 8601 text; "" = unknown.
        end: When it ended, likewise.
        extra: Further columns of the patients' table.
    """

    id: str
    start: str = ""
    end: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A diagnosis of a person.

    Attributes:
        name: What it is called.
        rank: 0 for the principal one; the higher, the less important.
        date: When it was made, as ISO 8601 text; "" = unknown.
        stay: The stay in which it was made; "" = unknown.
        reason: Whether it is only the reason for a visit.
    """

    name: str
    rank: int = 0
    date: str = ""
    stay: str = ""
    reason: bool = False


@dataclass(frozen=True, slots=True)
class Letter:
    """A text that a doctor wrote.

    Attributes:
        text: The text.
        rank: 0 for one that is meant for the patient; the higher, the less suitable as a reply.
        date: When it was written, as ISO 8601 text; "" = unknown.
        stay: The stay it is about; "" = unknown.
    """

    text: str
    rank: int = 0
    date: str = ""
    stay: str = ""


@dataclass(slots=True)
class Person:
    """What is known of a person, apart from measurements.

    Attributes:
        stays: Their stays.
        diagnoses: Their diagnoses.
        letters: Letters about them.
        born: Year of birth; None = unknown.
        extra: Further columns of the patients' table, such as ``sex``.
        last: Date of the latest measurement, as ISO 8601 text; "" = none.
    """

    stays: list[Stay] = field(default_factory=list)
    diagnoses: list[Diagnosis] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    born: int | None = None
    extra: dict[str, str] = field(default_factory=dict)
    last: str = ""


def drawn(people: Iterable[str], limit: int | None) -> set[str]:
    """Return at most ``limit`` people, the same ones whatever their order."""
    everybody = set(people)
    if limit is None or len(everybody) <= limit:
        return everybody
    return set(sorted(everybody, key=lambda person: _hash("draw", person))[:limit])


def drawn_line(chosen: Collection[str], everybody: Collection[str], limit: int | None) -> str:
    """Return a line that says that people were drawn; "" if all were taken."""
    if len(chosen) == len(everybody):
        return ""
    return (
        f"people: {len(chosen):,} of {len(everybody):,}, drawn at random; for all of them, give "
        """--source-kwargs '{"people": null}'"""
    )


def part_of(person: str) -> str:
    """Return the part that a person belongs to where no date can be trusted: always the same one, by chance."""
    share = _hash("split", person) / 2**64
    return "train" if share < _TRAIN else "validation" if share < _VALIDATION else "test"


def _hash(purpose: str, text: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{purpose}:{text}".encode()).digest()[:8], "big")


class StayFinder:
    """Finds the stay of a person at a time, for results that do not name it.

    Args:
        people: The people.
    """

    def __init__(self, people: Mapping[str, Person]) -> None:
        """Sort the stays."""
        self._stays = {
            name: sorted((stay.start, stay.end, stay.id) for stay in person.stays if stay.start)
            for name, person in people.items()
        }

    def find(self, person: str, time: str) -> str:
        """Return the id of the latest stay that had begun and not ended at that time or on that day; "" if none."""
        stays = self._stays.get(person, ())
        if not time:
            return ""
        until = time if time[11:].strip("0:.") else f"{time[:10]}~"  # without a time of day, the whole day
        for start, end, name in reversed(stays[: bisect_right(stays, (until, "~", ""))]):
            if time[:10] <= (end or start)[:10]:
                return name
        return ""


@dataclass(frozen=True)
class PatientTable:
    """The table of patients.

    Attributes:
        unit: What a patient is.
        columns: The columns of the table.
        ends: The time of each patient, up to which results count, as ``moment_of`` writes it.
        notes: Lines for the report.
    """

    unit: Unit
    columns: Mapping[str, Sequence[str]]
    ends: Sequence[str]
    notes: tuple[str, ...]


def moment_of(text: str) -> str:
    """Return a date in ISO 8601, with or without a time, in the one form of it that can be compared as text."""
    return text.strip().replace("T", " ")


def tabulate(
    people: Mapping[str, Person],
    unit: Unit,
    *,
    labels: int | None = LABELS,
    without_reply: bool = False,
    parts: Mapping[str, str] | None = None,
) -> PatientTable:
    """Make the table of patients.

    A patient's candidates for the label are the diagnoses of the stay, or of the person up to the index date, the
    principal and latest one first; the first that is among the ``labels`` most frequent first candidates is taken. The
    index date is the end of the stay, or the date of a person's letter; without these, of the last thing known.

    Args:
        people: The people by identifier.
        unit: What a patient is.
        labels: Number of labels to keep; None = all.
        without_reply: Whether patients without a letter are kept although others have one.
        parts: Person -> part of the split. By default the split is by date; if most index dates are in the future, as
            in de-identified data, it is at random by person.

    Raises:
        CohortError: There is no patient.
    """
    notes = []
    units = [each for name, person in people.items() for each in _units(name, person, unit)]
    if not units:
        raise CohortError(f"there is no {unit} with a date: check the tables of people and stays")
    if any(each.letter for each in units) and not without_reply:
        kept = [each for each in units if each.letter]
        if len(kept) < len(units):
            notes.append(
                f"patients without a letter, left out: {len(units) - len(kept):,} of {len(units):,}; to keep them, "
                """give --source-kwargs '{"without_reply": true}'"""
            )
        units = kept
    counts = Counter(each.candidates[0] for each in units if each.candidates)
    allowed = set(counts) if labels is None else {name for name, _ in counts.most_common(labels)}
    chosen = [next((name for name in each.candidates if name in allowed), "") for each in units]
    rare = sum(bool(each.candidates) and not label for each, label in zip(units, chosen, strict=True))
    if rare:
        notes.append(
            f"patients left without a label, as theirs is not among the {len(allowed):,} most frequent: {rare:,}; "
            """to use all, give --source-kwargs '{"labels": null}'"""
        )
    today = date.today().isoformat()
    if parts is None and 2 * sum(each.index[:10] > today for each in units) > len(units):
        parts = {each.person: part_of(each.person) for each in units}
        notes.append("dates are in the future, as in de-identified data: people were split at random (column split)")
    columns: dict[str, Sequence[str]] = {
        "patient_id": [each.id for each in units],
        "person_id": [each.person for each in units],
        "label": chosen,
        "reference": [each.letter for each in units],
        "split_date": [each.index[:10] for each in units],
    }
    if parts is not None:
        columns["split"] = [parts.get(each.person, "") for each in units]
    extra = dict.fromkeys(name for each in units for name in each.extra)
    columns |= {name: [each.extra.get(name, "") for each in units] for name in extra}
    return PatientTable(unit, columns, [moment_of(each.index) for each in units], tuple(notes))


@dataclass(frozen=True, slots=True)
class _Patient:
    id: str
    person: str
    index: str
    letter: str
    candidates: tuple[str, ...]
    extra: Mapping[str, str]


def _units(name: str, person: Person, unit: Unit) -> list[_Patient]:
    if unit != "person":
        letters = _letters_by_stay(person)
        found = (_of_stay(name, person, stay, letters.get(stay.id, ())) for stay in person.stays)
        return [patient for patient in found if patient is not None]
    letter = min(person.letters, key=lambda each: (each.rank, _reversed(each.date)), default=None)
    ends = [stay.end or stay.start for stay in person.stays]
    last = max((person.last, *ends, *(each.date for each in person.diagnoses)))
    index = (letter.date if letter else "") or last
    if not index:
        return []
    ends_of = {stay.id: stay.end or stay.start for stay in person.stays}
    dated = [(each.date or ends_of.get(each.stay, ""), each) for each in person.diagnoses]
    dated = [(day, each) for day, each in dated if day[:10] <= index[:10]]
    dated.sort(key=lambda pair: (pair[1].reason, _reversed(pair[0][:10]), pair[1].rank))
    known = [each for _, each in dated]
    return [_patient(name, name, person, index, letter, known, {})]


def _letters_by_stay(person: Person) -> dict[str, list[Letter]]:
    """Return the letters of each stay: one that names no stay is of the latest that it can be about."""
    found: dict[str, list[Letter]] = {}
    for letter in person.letters:
        about = [stay for stay in person.stays if _about(letter, stay)] if not letter.stay else []
        if letter.stay or about:
            name = letter.stay or max(about, key=lambda stay: stay.start).id
            found.setdefault(name, []).append(letter)
    return found


def _of_stay(name: str, person: Person, stay: Stay, letters: Sequence[Letter]) -> _Patient | None:
    letter = min(letters, key=lambda each: (each.rank, _reversed(each.date)), default=None)
    index = stay.end or (letter.date if letter else "") or max(stay.start, person.last)
    if not index:
        return None
    known = sorted((each for each in person.diagnoses if each.stay == stay.id), key=lambda each: each.rank)
    return _patient(stay.id, name, person, index, letter, known, stay.extra)


def _about(letter: Letter, stay: Stay) -> bool:
    """Whether a letter that names no stay was written in this one, or soon after it."""
    day, start, end = letter.date[:10], stay.start[:10], (stay.end or stay.start)[:10]
    if not (day and start) or day < start:
        return False
    try:
        return (date.fromisoformat(day) - date.fromisoformat(end)).days <= _LETTER_DAYS
    except ValueError:
        return False


def _patient(
    name: str,
    owner: str,
    person: Person,
    index: str,
    letter: Letter | None,
    known: Iterable[Diagnosis],
    extra: Mapping[str, str],
) -> _Patient:
    found = dict(person.extra) | dict(extra)
    if person.born is not None and "age" not in found and index[:4].isdecimal():
        found["age"] = str(max(int(index[:4]) - person.born, 0))
    candidates = tuple(dict.fromkeys(each.name for each in known if each.name))
    return _Patient(name, owner, index, letter.text if letter else "", candidates, found)


def _reversed(text: str) -> tuple[int, ...]:
    """Return a key that sorts text in descending order; empty text is last."""
    return tuple(-ord(character) for character in text) or (1,)


#: Words in the title of a text, from what is meant for the patient to what is not.
_TITLES = (
    (
        "discharge instruction",
        "patient instruction",
        "after visit",
        "after-visit",
        "follow-up letter",
        "letter to patient",
    ),
    ("discharge", "letter", "summary", "epicrisis"),
    ("consult", "history and physical", "progress", "evaluation", "care plan"),
)


def letter_rank(title: str) -> int:
    """Return how suitable a text of this title is as a reply to the patient, 0 = most."""
    title = " ".join(title.casefold().replace("_", " ").split())
    return next((rank for rank, words in enumerate(_TITLES) if any(word in title for word in words)), len(_TITLES))
