"""Reading the Medical Event Data Standard, version 0.4 (github.com/Medical-Event-Data-Standard/meds)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.schema import Cohort, Schema
from pmlm_env.cohort.sources.assembly import Reading
from pmlm_env.cohort.sources.data_folder import DataFolder
from pmlm_env.cohort.sources.histories import (
    LABELS,
    PEOPLE,
    Diagnosis,
    Letter,
    Person,
    Stay,
    drawn,
    drawn_line,
    letter_rank,
    part_of,
    tabulate,
)
from pmlm_env.cohort.sources.icd import chapter, icd_version
from pmlm_env.cohort.sources.measurements import Measurements, finish
from pmlm_env.cohort.sources.report import ReadReport
from pmlm_env.cohort.sources.streams import StreamedTable, identifier, readable, require_pyarrow, translated

if TYPE_CHECKING:
    import pyarrow as pa

#: Names that columns had in earlier versions.
_ALIASES = {"patient_id": "subject_id", "timestamp": "time", "value": "numeric_value"}
#: Columns beyond the standard that have the unit of ``numeric_value``.
_UNITS = ("unit", "units", "valueuom", "unit_source_value", "unit_of_measure")
#: What codes begin with, or have as a part, by what they stand for.
_DIAGNOSIS = re.compile(r"(^|/)(DIAGNOS[EI]S|CONDITION|PROBLEM|ICD-?(9|10)?-?(CM)?)(/|$)", re.IGNORECASE)
_TREATMENT = re.compile(
    r"(^|/)(MEDICATION|DRUG|INFUSION|PRESCRIPTION|PROCEDURE|RXNORM|NDC|ATC|DRG|HCPCS|CPT4?|TRANSFER\w*|INSURANCE)(/|$)",
    re.I,
)
#: Titles of texts; what a patient "reported", or somebody "noted", is none.
_NOTE = re.compile(r"(?:note|letter|summary|instruction|report|document)(?!d|e[dr]|ing|able)", re.IGNORECASE)
_SEX = re.compile(r"(?:GENDER|SEX)/+(.+)", re.IGNORECASE)
_LOINC = re.compile(r"LOINC/+(\d{1,7}-\d)")
_ICD = re.compile(r"ICD-?(9|10)?-?(?:CM)?/+(?:(9|10)/+)?([A-Z0-9.]+)$", re.IGNORECASE)
_BIRTH = "MEDS_BIRTH"
#: A first part of a code that says what kind of event it is, and is no part of the name.
_KIND = re.compile(r"[A-Z][A-Z_ ]*")
_NO_UNIT = frozenset(("UNK", "UNKNOWN", "NONE", "NAN", "NULL"))
#: Columns of a table of labels, the one that is used first.
_LABEL_VALUES = ("categorical_value", "integer_value", "boolean_value", "float_value")
_REPLY = ("reply", "reference", "text", "text_value")


class _Code(NamedTuple):
    """What a code stands for: ``result``, ``diagnosis``, ``note``, ``birth``, ``sex`` or ``other``.

    An event of a note that has a number is a result, too: an assessment is documented, a laboratory reports.
    """

    kind: str
    name: str = ""
    unit: str = ""
    loinc: str = ""
    rank: int = 0


def read_meds(
    folder: str | PathLike[str],
    schema: Schema | None = None,
    *,
    reading: Reading | None = None,
    label: Literal["diagnosis", "chapter"] = "diagnosis",
    task: str | None = None,
    labels: int | None = LABELS,
    people: int | None = PEOPLE,
    without_reply: bool = False,
) -> tuple[Cohort, ReadReport]:
    """Read a MEDS data set: ``data/**.parquet``, ``metadata/codes.parquet``, ``metadata/subject_splits.parquet``.

    A result is an event with a ``numeric_value`` that is no treatment, diagnosis or fact about the person. Its name is
    the code's description or else the code; its unit is in a column ``unit``, or the last part of the code
    (``LAB//50912//mg/dL``); its LOINC code is in the code or in ``parent_codes``. A reply is the ``text_value`` of a
    code of a note, such as ``NOTE//discharge summary``, in an event without a number, or a row of a table ``replies``
    (``subject_id``, ``reply``, and ``prediction_time`` if there are several of a subject). The split is that of the
    data set, if it has one.

    Args:
        folder: The folder.
        schema: What the cohort measures; None = inferred.
        reading: How to read it.
        label: ``diagnosis``: the description of the latest diagnosis up to the letter. ``chapter``: its ICD chapter.
            Without a description, the chapter, or else the code.
        task: A table of labels (``subject_id``, ``prediction_time``, and a value) by its name or folder, whose rows are
            then the patients: a person with everything up to ``prediction_time``. By default ``labels``, if there is
            one.
        labels: Number of labels to keep, the most frequent ones; None = all.
        people: Number of people to read, drawn at random; None = all.
        without_reply: Whether to keep patients without a letter although others have one.

    Raises:
        CohortError: A table or a column is missing or damaged, too much would be lost, or ``assemble`` cannot use it.
    """
    require_pyarrow()
    if label not in ("diagnosis", "chapter"):
        raise CohortError(f"label is {label!r}: use diagnosis or chapter")
    reading, files = reading or Reading(), DataFolder(folder)
    events, tasks, replies = _events(files), files.table("labels", *([task] if task else ())), files.table("replies")
    if task is not None:
        tasks = files.need(task, why="the labels")
    everybody = _subjects(events if tasks is None else tasks)
    chosen = drawn(everybody, people)
    histories = {name: Person() for name in sorted(chosen)}
    results = Measurements("data", histories)
    _add_events(events, results, histories, _Codes(_descriptions(files), by_chapter=label == "chapter"))
    moments = {} if tasks is None else _add_moments(tasks, histories)
    if replies is not None:
        _add_replies(replies, histories, moments)
    split = _split(files)
    patients = tabulate(
        histories,
        "person" if tasks is None else "moment",
        labels=labels,
        without_reply=without_reply or reading.new_patients,
        parts={name: split.get(name) or part_of(name) for name in histories} if split else None,
    )
    notes = [drawn_line(chosen, everybody, people)]
    return finish(files.path, patients, results, [files], notes, schema, reading)


class _Codes:
    """Reads codes, each once.

    Args:
        known: Code -> its description and parent codes.
        by_chapter: Whether a diagnosis is named by its ICD chapter.
    """

    def __init__(self, known: Mapping[str, tuple[str, str]], *, by_chapter: bool) -> None:
        self._known, self._by_chapter = known, by_chapter
        self.read = cache(self._read)

    def _read(self, code: str) -> _Code:
        description, parents = self._known.get(code, ("", ""))
        if code == _BIRTH:
            return _Code("birth")
        if match := _SEX.fullmatch(code):
            sex = match[1].strip()
            return _Code("sex", {"M": "male", "F": "female"}.get(sex.upper(), sex.lower()))
        if _TREATMENT.search(code):  # before diagnoses, because procedures have ICD codes too
            return _Code("other")
        if _DIAGNOSIS.search(code):
            return _Code("diagnosis", self._diagnosis(code, description))
        title = f"{code} {description}"
        kind = "note" if _NOTE.search(title) else "result"
        loinc = _LOINC.search(f"{code} {parents}")
        parts = [each for each in code.split("//") if each]
        unit = parts.pop() if len(parts) > 2 else ""
        if len(parts) > 1 and _KIND.fullmatch(parts[0]):
            parts = parts[1:]
        unit = "" if unit.upper() in _NO_UNIT else unit
        return _Code(kind, description or " ".join(parts), unit, loinc[1] if loinc else "", letter_rank(title))

    def _diagnosis(self, code: str, description: str) -> str:
        found = ""
        if match := _ICD.search(code):
            found = chapter(match[3], match[1] or match[2] or icd_version(match[3]))
        return (found or description or code) if self._by_chapter else (description or found or code)


def _events(files: DataFolder) -> StreamedTable:
    """Return the shards of the data.

    Raises:
        CohortError: There are none.
    """
    shards = [path for path in files.files if path.name.lower().endswith(".parquet")]
    inside = [path for path in shards if "data" in path.relative_to(files.path).parts[:-1]]
    flat = [path for path in shards if path.stem.lower() == "data"]
    if not (inside or flat):
        raise CohortError(f"{files.path} has no data: MEDS keeps its shards in data/, such as data/train/0.parquet")
    return files.table_of("data", inside or flat)


def _subjects(table: StreamedTable) -> set[str]:
    import pyarrow.compute as pc

    found: set[str] = set()
    for batch in table.batches(("subject_id",), aliases=_ALIASES):
        found |= {identifier(text) for text in pc.unique(batch["subject_id"]).to_pylist() if text}
    return found


def _descriptions(files: DataFolder) -> dict[str, tuple[str, str]]:
    """Return the description and the parent codes, in one text, of each code."""
    table = files.table("codes")
    found: dict[str, tuple[str, str]] = {}
    for path in () if table is None else table.paths:
        if not path.name.lower().endswith(".parquet"):
            continue
        import pyarrow.parquet as pq

        with readable(path), pq.ParquetFile(path) as file:
            columns = [name for name in ("code", "description", "parent_codes") if name in file.schema_arrow.names]
            for batch in file.iter_batches(columns=columns):
                for row in batch.to_pylist():
                    parents = row.get("parent_codes") or []
                    parents = parents if isinstance(parents, list) else [parents]
                    found[str(row.get("code"))] = (_plain(row.get("description")), " ".join(map(str, parents)))
    return found


def _plain(text: Any) -> str:
    return " ".join(text.split()) if isinstance(text, str) else ""


def _split(files: DataFolder) -> dict[str, str]:
    table = files.table("subject_splits", "patient_splits")
    rows: Iterable[tuple[str, ...]] = () if table is None else table.rows(("subject_id", "split"), aliases=_ALIASES)
    names = {"tuning": "validation", "held_out": "test"}
    return {identifier(subject): names.get(part, part) for subject, part in rows}


def _add_events(events: StreamedTable, results: Measurements, people: Mapping[str, Person], codes: _Codes) -> None:
    """Sort the events into results, diagnoses, letters and facts about the person."""
    import pyarrow as pa
    import pyarrow.compute as pc

    optional = ("numeric_value", "text_value", *_UNITS)
    ours = pa.array(list(people), pa.string())
    for batch in events.batches(("subject_id", "time", "code"), optional, _ALIASES):
        batch = batch.filter(pc.is_in(batch["subject_id"], ours))
        texts = pc.unique(batch["code"]).to_pylist()
        read = {text: codes.read(text) for text in texts}
        kinds = translated(batch["code"], {text: code.kind for text, code in read.items()})
        numeric = pc.not_equal(batch["numeric_value"], "")
        text = pc.and_(pc.not_equal(batch["text_value"], ""), pc.invert(numeric))
        is_note = pc.and_(pc.equal(kinds, "note"), pc.invert(numeric))
        is_result = pc.or_(
            pc.and_(pc.equal(kinds, "result"), pc.or_(numeric, text)), pc.and_(pc.equal(kinds, "note"), numeric)
        )
        results.left_out["treatments and other events with a number"] += _count(
            pc.and_(pc.invert(pc.is_in(kinds, pa.array(["result", "note"], pa.string()))), numeric)
        )
        found = batch.filter(is_result)
        unit = translated(found["code"], {text: code.unit for text, code in read.items()})
        for name in _UNITS:
            unit = pc.if_else(pc.equal(found[name], ""), unit, found[name])
        has_number = pc.not_equal(found["numeric_value"], "")
        results.add(
            {
                "person": found["subject_id"],
                "date": found["time"],
                "indicator": translated(found["code"], {text: code.name for text, code in read.items()}),
                "value": pc.if_else(has_number, found["numeric_value"], found["text_value"]),
                "unit": unit,
                "code": translated(found["code"], {text: code.loinc for text, code in read.items()}),
            }
        )
        facts = batch.filter(pc.or_(pc.is_in(kinds, pa.array(["birth", "sex", "diagnosis"], pa.string())), is_note))
        columns = (facts[name].to_pylist() for name in ("subject_id", "time", "code", "text_value"))
        for subject, time, code, body in zip(*columns, strict=True):
            _add_fact(people[subject], read[code], time, body)


def _add_fact(person: Person, code: _Code, time: str, body: str) -> None:
    if code.kind == "birth" and time[:4].isdecimal():
        person.born = int(time[:4])
    elif code.kind == "sex":
        person.extra["sex"] = code.name
    elif code.kind == "diagnosis":
        person.diagnoses.append(Diagnosis(code.name, date=time))
    elif code.kind == "note" and body.strip():
        person.letters.append(Letter(body.strip(), code.rank, time))


def _count(flags: pa.ChunkedArray) -> int:
    import pyarrow.compute as pc

    return int(pc.sum(flags).as_py() or 0)


def _add_moments(tasks: StreamedTable, people: Mapping[str, Person]) -> dict[tuple[str, str], str]:
    """Make a stay of each row of a table of labels, with the label as its diagnosis.

    Returns:
        (subject, time) -> the name of the moment.
    """
    rows = []
    name = tasks.paths[0].stem.replace("_", " ")
    words = {"true": "yes", "false": "no"} if name == "labels" else {"true": name, "false": f"no {name}"}
    for subject, time, *values in tasks.rows(("subject_id", "prediction_time"), _LABEL_VALUES, _ALIASES):
        if (subject := identifier(subject)) in people and time:
            value = next(filter(None, values), "")
            rows.append((subject, time, words.get(value.lower(), value)))
    letters = {name: sorted(person.letters, key=lambda each: each.date) for name, person in people.items()}
    for person in people.values():
        person.diagnoses, person.letters = [], []
    several = {subject for subject, count in _counts(subject for subject, _, _ in rows).items() if count > 1}
    found = {}
    for subject, time, value in rows:
        name = f"{subject}@{time}" if subject in several else subject
        found[subject, time] = name
        person = people[subject]
        person.stays.append(Stay(name, end=time))
        person.diagnoses.append(Diagnosis(value, stay=name))
        letter = next((each for each in letters[subject] if each.date[:10] >= time[:10]), None)
        if letter is not None:
            person.letters.append(Letter(letter.text, letter.rank, letter.date, name))
    return found


def _counts(names: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in names:
        found[name] = found.get(name, 0) + 1
    return found


def _add_replies(replies: StreamedTable, people: Mapping[str, Person], moments: Mapping[tuple[str, str], str]) -> None:
    """Replace the letters of the people by those of a table."""
    of_table: dict[str, list[Letter]] = {}
    for subject, moment, time, *texts in replies.rows(("subject_id",), ("prediction_time", "time", *_REPLY), _ALIASES):
        subject, body = identifier(subject), next(filter(None, texts), "")
        if subject in people and body:
            stay = moments.get((subject, moment), moments.get((subject, time), ""))
            stays: Collection[str] = (
                [stay] if stay else [name for (owner, _), name in moments.items() if owner == subject]
            )
            of_table.setdefault(subject, [])
            of_table[subject] += [Letter(body, date=moment or time, stay=name) for name in stays or ("",)]
    for subject, letters in of_table.items():
        people[subject].letters = letters
