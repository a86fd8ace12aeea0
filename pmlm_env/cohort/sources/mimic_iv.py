"""Reading MIMIC-IV (hosp) with the discharge summaries of MIMIC-IV-Note.

Johnson et al., MIMIC-IV (physionet.org/content/mimiciv/3.1) and MIMIC-IV-Note
(physionet.org/content/mimic-iv-note/2.2). A patient is a stay in hospital; the reply is what the discharge summary tells
the patient.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.schema import Cohort, Schema
from pmlm_env.cohort.sections import keep_sections
from pmlm_env.cohort.sources.assembly import Reading
from pmlm_env.cohort.sources.histories import (
    LABELS,
    PEOPLE,
    Diagnosis,
    Letter,
    Person,
    Stay,
    StayFinder,
    Tally,
    Unit,
    drawn,
    drawn_line,
    part_of,
    tabulate,
)
from pmlm_env.cohort.sources.hospital import finish
from pmlm_env.cohort.sources.icd import chapter
from pmlm_env.cohort.sources.report import ReadReport
from pmlm_env.cohort.sources.results import Results
from pmlm_env.cohort.sources.streams import DataFolder, require_pyarrow, whole_numbers

if TYPE_CHECKING:
    import pyarrow as pa

#: The section of a discharge summary that is written for the patient.
INSTRUCTIONS = ("Discharge Instructions",)
#: The headings of the discharge summaries, at which a section ends.
HEADINGS = (
    "Name",
    "Unit No",
    "Admission Date",
    "Discharge Date",
    "Date of Birth",
    "Sex",
    "Service",
    "Allergies",
    "Attending",
    "Chief Complaint",
    "Major Surgical or Invasive Procedure",
    "History of Present Illness",
    "Past Medical History",
    "Social History",
    "Family History",
    "Physical Exam",
    "Pertinent Results",
    "Brief Hospital Course",
    "Medications on Admission",
    "Discharge Medications",
    "Discharge Disposition",
    "Facility",
    "Discharge Diagnosis",
    "Discharge Condition",
    "Discharge Instructions",
    "Followup Instructions",
    "Follow-up Instructions",
)
#: Versions of diagnosis-related groups in drgcodes, the one that is used first.
_DRG_TYPES = ("HCFA", "MS", "APR")
#: Kinds of lost results that would mean that the files are damaged, or that this reader misunderstands them.
_FAULTS = ("of an unknown test", "without a date")
_NOT_GIVEN = "of no stay (before, after, or as an outpatient)"

Labels = Literal["chapter", "diagnosis", "drg"]


def read_mimic_iv(
    folder: str | PathLike[str],
    schema: Schema | None = None,
    *,
    reading: Reading | None = None,
    patient: Unit = "stay",
    label: Labels = "chapter",
    labels: int | None = LABELS,
    people: int | None = PEOPLE,
    sections: Sequence[str] | None = INSTRUCTIONS,
    without_reply: bool = False,
) -> tuple[Cohort, ReadReport]:
    """Read a folder with tables of MIMIC-IV and MIMIC-IV-Note, in subfolders as they are published, or flat.

    Used are ``patients``, ``admissions``, ``diagnoses_icd``, ``d_icd_diagnoses`` (for ``label="diagnosis"``),
    ``drgcodes`` (for ``label="drg"``), ``labevents``, ``d_labitems`` and, if it is there, ``discharge``. Dates in MIMIC
    are shifted by person, so people are split at random, always in the same way. An indicator is a test of
    ``d_labitems``, with its fluid unless that is blood.

    Args:
        folder: The folder.
        schema: What the cohort measures; None = inferred.
        reading: How to read it.
        patient: ``stay``: one of ``admissions``, with its diagnoses and the results of the stay and of the emergency
            department before it, up to discharge. ``person``: with all results up to the latest letter or discharge.
        label: ``chapter``: the ICD chapter of the first diagnosis. ``diagnosis``: its title. ``drg``: the description
            of the diagnosis-related group.
        labels: Number of labels to keep, the most frequent ones; None = all.
        people: Number of people to read, drawn at random; None = all.
        sections: Sections of the discharge summary that are the reply; None = all of it.
        without_reply: Whether to keep stays without a discharge summary although others have one.

    Raises:
        CohortError: A table or a column is missing or damaged, too much would be lost, or ``assemble`` cannot use it.
    """
    require_pyarrow()
    reading, files = reading or Reading(), DataFolder(folder)
    everybody = _people(files)
    chosen = drawn(everybody, people)
    histories = {name: everybody[name] for name in everybody if name in chosen}
    notes = [drawn_line(chosen, everybody, people)]
    owners = {stay.id: name for name, person in histories.items() for stay in person.stays}
    for stay, diagnosis in _diagnoses(files, label, owners):
        histories[owners[stay]].diagnoses.append(diagnosis)
    notes.append(_add_letters(files, histories, owners, sections))
    table = tabulate(
        histories,
        patient,
        labels=labels,
        without_reply=without_reply or reading.new_patients,
        parts={name: part_of(name) for name in histories},
    )
    results = Results(table.columns, patient, histories)
    read_labs(files, results, owners)
    notes += [*table.notes, "dates are shifted by person: people were split at random (column split)", *results.notes()]
    return finish(files.path, "mimic-iv", table.columns, results, notes, schema, reading)


def _people(files: DataFolder) -> dict[str, Person]:
    """Return everybody who was admitted, with their stays."""
    found: defaultdict[str, Person] = defaultdict(Person)
    admissions = files.need("admissions", why="the stays")
    columns = ("subject_id", "hadm_id", "admittime", "dischtime")
    for person, stay, start, end, emergency, kind in admissions.rows(columns, ("edregtime", "admission_type")):
        extra = {"admission_type": kind.lower()} if kind else {}
        begin = min(filter(None, (start, emergency)), default="")
        found[_id(person)].stays.append(Stay(_id(stay), begin, end, extra))
    patients = files.need("patients", why="sex and age")
    for name, gender, age, year in patients.rows(("subject_id",), ("gender", "anchor_age", "anchor_year")):
        if (person := found.get(_id(name))) is not None:
            if gender:
                person.extra["sex"] = {"M": "male", "F": "female"}.get(gender.upper(), gender)
            if (age := _id(age)).isdigit() and (year := _id(year)).isdigit():
                person.born = int(year) - int(age)
    return dict(found)


def _diagnoses(files: DataFolder, label: Labels, stays: Collection[str]) -> list[tuple[str, Diagnosis]]:
    """Return (stay, diagnosis) of the given stays."""
    if label not in ("chapter", "diagnosis", "drg"):
        raise CohortError(f"label is {label!r}: use chapter, diagnosis or drg")
    found = []
    if label == "drg":
        drgs = files.need("drgcodes", why="the diagnosis-related groups")
        for stay, kind, code, title in drgs.rows(("hadm_id", "drg_type", "drg_code"), ("description",)):
            if (stay := _id(stay)) in stays:
                rank = _DRG_TYPES.index(kind.upper()) if kind.upper() in _DRG_TYPES else len(_DRG_TYPES)
                found.append((stay, Diagnosis(_title(title) or f"DRG {code}", rank, stay=stay)))
        return found
    titles: dict[tuple[str, str], str] = {}
    if label == "diagnosis":
        dictionary = files.need("d_icd_diagnoses", why="the titles of the diagnoses")
        rows = dictionary.rows(("icd_code", "icd_version", "long_title"))
        titles = {(code, _id(version)): title for code, version, title in rows}
    diagnoses = files.need("diagnoses_icd", why="the diagnoses")
    for stay, number, code, version in diagnoses.rows(("hadm_id", "seq_num", "icd_code", "icd_version")):
        if (stay := _id(stay)) in stays:
            version = _id(version)
            name = titles.get((code, version), code) if label == "diagnosis" else chapter(code, version)
            rank = int(number) if (number := _id(number)).isdigit() else 1_000
            found.append((stay, Diagnosis(name, rank, stay=stay)))
    return found


def _title(description: str) -> str:
    """Return a description of a DRG, which MIMIC writes in capitals, as words."""
    return description.lower() if description.isupper() else description


def _add_letters(
    files: DataFolder, people: Mapping[str, Person], owners: Mapping[str, str], sections: Sequence[str] | None
) -> str:
    """Add the discharge summaries' sections to the people; return a line for the report."""
    notes = files.table("discharge")
    if notes is None:
        return "there is no table discharge (MIMIC-IV-Note): the patients have no reply"
    read = without = 0
    for stay, number, time, text in notes.rows(("hadm_id", "text"), ("note_seq", "charttime")) if False else _letters(notes):
        if (owner := owners.get(stay)) is None:
            continue
        kept = text if sections is None else keep_sections(text, sections, HEADINGS)
        read += 1
        without += not kept
        if kept:
            people[owner].letters.append(Letter(kept, date=f"{time}{number:>8}", stay=stay))
    wanted = ", ".join(sections or ())
    return f"discharge summaries: {read:,}; without the section {wanted}: {without:,}" if without else ""


def _id(text: str) -> str:
    """Return an identifier or whole number without the ".0" that pandas may add."""
    return text[:-2] if text.endswith(".0") else text
