"""Reading the OMOP Common Data Model, version 5.4 (ohdsi.github.io/CommonDataModel/cdm54.html) or 5.3."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Literal, NamedTuple

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
    Unit,
    drawn,
    drawn_line,
    letter_rank,
    tabulate,
)
from pmlm_env.cohort.sources.icd import chapter, icd_version
from pmlm_env.cohort.sources.measurements import NUMBER, Measurements, finish
from pmlm_env.cohort.sources.report import ReadReport
from pmlm_env.cohort.sources.streams import StreamedTable, identifier, require_pyarrow, translated, whole_numbers

if TYPE_CHECKING:
    import pyarrow as pa

#: Standard concepts of OHDSI's vocabularies (athena.ohdsi.org).
_SEX = {"8507": "male", "8532": "female"}
_OPERATORS = {"4171756": "<", "4171754": "<=", "4172704": ">", "4171755": ">="}
#: Status and type of a diagnosis that is the principal one.
_PRINCIPAL = frozenset(("32901", "32902", "32903", "44786627", "38000183", "38000199", "38000200", "45754805"))
_UNKNOWN = ("", "0")


class _Concept(NamedTuple):
    name: str
    vocabulary: str
    code: str


def read_omop(
    folder: str | PathLike[str],
    schema: Schema | None = None,
    *,
    reading: Reading | None = None,
    patient: Unit = "person",
    label: Literal["diagnosis", "chapter"] = "diagnosis",
    labels: int | None = LABELS,
    people: int | None = PEOPLE,
    without_reply: bool = False,
) -> tuple[Cohort, ReadReport]:
    """Read the tables of a database in the OMOP Common Data Model.

    Used are ``person``, ``measurement``, ``condition_occurrence`` and, where they are there, ``visit_occurrence``,
    ``note`` and ``concept``. An indicator is named by its concept, or without the table ``concept``, or where it was
    mapped to none, by ``measurement_source_value``; LOINC codes come from ``concept``.

    Args:
        folder: The folder.
        schema: What the cohort measures; None = inferred.
        reading: How to read it.
        patient: ``person``: a row of ``person``, with everything up to their letter. ``stay``: a row of
            ``visit_occurrence``.
        label: ``diagnosis``: the name of the condition, or without the table ``concept`` its ICD chapter, or else its
            code. ``chapter``: the ICD chapter of its source code, or else its name.
        labels: Number of labels to keep, the most frequent ones; None = all.
        people: Number of people to read, drawn at random; None = all.
        without_reply: Whether to keep patients without a note although others have one.

    Raises:
        CohortError: A table or a column is missing or damaged, too much would be lost, or ``assemble`` cannot use it.
    """
    require_pyarrow()
    if label not in ("diagnosis", "chapter"):
        raise CohortError(f"label is {label!r}: use diagnosis or chapter")
    reading, files = reading or Reading(), DataFolder(folder)
    everybody = {identifier(name) for (name,) in files.need("person", why="the people").rows(("person_id",))}
    chosen = drawn(everybody, people)
    histories = {name: Person() for name in sorted(chosen)}
    _add_people(files, histories)
    conditions = _conditions(files, histories)
    measurement = files.need("measurement", why="the results")
    wanted = _used(measurement) | {key for each in conditions for key in (each.concept, *each.status)}
    concepts = _concepts(files, wanted)
    for each in conditions:
        histories[each.person].diagnoses.append(each.diagnosis(concepts, by_chapter=label == "chapter"))
    notes = [drawn_line(chosen, everybody, people)]
    if not _add_notes(files, histories):
        notes.append("there is no table note: the patients have no reply")
    if not concepts:
        notes.append(
            "there is no table concept: indicators have the names of the source, and conditions those of their ICD "
            "chapters, or else their codes"
        )
    results = Measurements("measurement", histories)
    _add_results(measurement, results, concepts)
    patients = tabulate(histories, patient, labels=labels, without_reply=without_reply or reading.new_patients)
    return finish(files.path, patients, results, [files], notes, schema, reading)


class _Condition(NamedTuple):
    """A row of ``condition_occurrence``, before its concepts are known."""

    person: str
    concept: str
    source: str
    date: str
    stay: str
    status: tuple[str, str]

    def diagnosis(self, concepts: Mapping[str, _Concept], *, by_chapter: bool) -> Diagnosis:
        found = concepts.get(self.concept)
        of_chapter = chapter(self.source, icd_version(self.source))
        name = found.name if found else of_chapter or self.source
        if by_chapter:
            name = of_chapter or name
        names = " ".join(concepts[each].name for each in self.status if each in concepts).casefold()
        return Diagnosis(name, 0 if _PRINCIPAL & {*self.status} or "primary" in names else 1, self.date, self.stay)


def _add_people(files: DataFolder, people: Mapping[str, Person]) -> None:
    """Add sex, year of birth and visits."""
    columns = ("gender_concept_id", "year_of_birth", "gender_source_value")
    for name, gender, year, source in files.need("person", why="the people").rows(("person_id",), columns):
        if (person := people.get(identifier(name))) is not None:
            if sex := _SEX.get(identifier(gender), source):
                person.extra["sex"] = sex
            if (year := identifier(year)).isdecimal():
                person.born = int(year)
    if (visits := files.table("visit_occurrence")) is None:
        return
    needed = ("visit_occurrence_id", "person_id", "visit_start_date")
    optional = ("visit_start_datetime", "visit_end_date", "visit_end_datetime")
    for stay, name, start, start_time, end, end_time in visits.rows(needed, optional):
        if (person := people.get(identifier(name))) is not None:
            person.stays.append(Stay(identifier(stay), start_time or start, end_time or end))


def _conditions(files: DataFolder, people: Collection[str]) -> list[_Condition]:
    table = files.need("condition_occurrence", why="the diagnoses")
    needed = ("person_id", "condition_concept_id", "condition_start_date")
    optional = (
        "condition_source_value",
        "visit_occurrence_id",
        "condition_status_concept_id",
        "condition_type_concept_id",
    )
    found = []
    for name, concept, date, source, stay, status, kind in table.rows(needed, optional):
        if (name := identifier(name)) in people:
            states = (identifier(status), identifier(kind))
            found.append(_Condition(name, identifier(concept), source, date, identifier(stay), states))
    return found


def _add_notes(files: DataFolder, people: Mapping[str, Person]) -> bool:
    """Add the notes to the people; return whether there is a table of them."""
    if (notes := files.table("note")) is None:
        return False
    optional = ("note_datetime", "note_title", "note_source_value", "visit_occurrence_id")
    for batch in notes.batches(("person_id", "note_date", "note_text"), optional):
        for name, date, body, time, title, source, stay in zip(*map(_cells, batch.columns), strict=True):
            if (person := people.get(identifier(name.strip()))) is not None and body.strip():
                rank = letter_rank(f"{title} {source}")
                person.letters.append(Letter(body.strip(), rank, (time or date).strip(), identifier(stay.strip())))
    return True


def _cells(column: pa.ChunkedArray) -> list[str]:
    found: list[str] = column.to_pylist()
    return found


def _used(measurement: StreamedTable) -> set[str]:
    """Return the concepts of tests, results and units, which are few beside the millions of the vocabularies."""
    import pyarrow.compute as pc

    found: set[str] = set()
    optional = ("measurement_source_concept_id", "value_as_concept_id", "unit_concept_id")
    for batch in measurement.batches(("measurement_concept_id",), optional):
        for column in batch.columns:
            found |= {identifier(text.strip()) for text in pc.unique(column).to_pylist()}
    return found


def _concepts(files: DataFolder, wanted: Collection[str]) -> dict[str, _Concept]:
    """Return the wanted concepts; ``2b_concept`` has those that a data set adds to the vocabularies."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = pa.array(sorted(set(wanted) - {*_UNKNOWN}), pa.string())
    found = {}
    for table in (files.table("concept"), files.table("2b_concept")):
        for batch in (
            () if table is None else table.batches(("concept_id", "concept_name"), ("vocabulary_id", "concept_code"))
        ):
            ids = whole_numbers(batch["concept_id"])
            rows = batch.set_column(0, "concept_id", ids).filter(pc.is_in(ids, values))
            for name, *concept in zip(*map(_cells, rows.columns), strict=True):
                found[name] = _Concept(*(text.strip() for text in concept))
    return found


def _add_results(measurement: StreamedTable, results: Measurements, concepts: Mapping[str, _Concept]) -> None:
    """Add the rows of ``measurement``."""
    import pyarrow.compute as pc

    names = {key: each.name for key, each in concepts.items()}
    codes = {key: each.code for key, each in concepts.items() if each.vocabulary.upper() == "LOINC"}
    units = {key: each.code for key, each in concepts.items() if each.vocabulary.upper() == "UCUM"}
    needed = ("person_id", "measurement_concept_id", "measurement_date", "value_as_number")
    optional = (
        "measurement_datetime",
        "measurement_source_concept_id",
        "measurement_source_value",
        "operator_concept_id",
        "value_as_concept_id",
        "value_source_value",
        "unit_concept_id",
        "unit_source_value",
        "visit_occurrence_id",
    )
    for batch in measurement.batches(needed, optional):
        concept, source = (whole_numbers(batch[f"measurement{each}_concept_id"]) for each in ("", "_source"))
        name = _first(translated(concept, names), translated(source, names), batch["measurement_source_value"])
        number = pc.utf8_trim_whitespace(batch["value_as_number"])
        operator = translated(whole_numbers(batch["operator_concept_id"]), _OPERATORS)
        results.add(
            {
                "person": whole_numbers(batch["person_id"]),
                "stay": whole_numbers(batch["visit_occurrence_id"]),
                "date": _first(batch["measurement_datetime"], batch["measurement_date"]),
                "indicator": _first(name, _numbered(concept)),
                "value": pc.if_else(
                    pc.equal(number, ""), _words(batch, names), pc.binary_join_element_wise(operator, number, "")
                ),
                "unit": _first(translated(whole_numbers(batch["unit_concept_id"]), units), batch["unit_source_value"]),
                "code": _first(translated(concept, codes), _loinc(batch["measurement_source_value"])),
            }
        )


def _words(batch: pa.Table, names: Mapping[str, str]) -> pa.ChunkedArray:
    """Return the results that are not in ``value_as_number``: numbers as text, or else words, by concept if any."""
    import pyarrow.compute as pc

    source, concept = pc.utf8_trim_whitespace(batch["value_source_value"]), whole_numbers(batch["value_as_concept_id"])
    words = _first(translated(concept, names), source, _numbered(concept))
    return pc.if_else(pc.match_substring_regex(source, NUMBER), source, words)


def _loinc(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the texts that have the form of a LOINC code; "" for others."""
    import pyarrow.compute as pc

    texts = pc.utf8_trim_whitespace(texts)
    return pc.if_else(pc.match_substring_regex(texts, r"^\d{1,5}-\d$"), texts, "")


def _numbered(concept: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return names for concepts of which only the number is known; "" for none."""
    import pyarrow.compute as pc

    unknown = pc.is_in(concept, value_set=_array(_UNKNOWN))
    return pc.if_else(unknown, "", pc.binary_join_element_wise("concept", concept, " "))


def _first(*columns: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the first text of each row that is not empty."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.utf8_trim_whitespace(columns[0])
    for column in columns[1:]:
        found = pc.if_else(pc.equal(found, ""), pc.utf8_trim_whitespace(column), found)
    return found if isinstance(found, pa.ChunkedArray) else pa.chunked_array([found])


def _array(texts: Collection[str]) -> pa.Array:
    import pyarrow as pa

    return pa.array(list(texts), pa.string())
