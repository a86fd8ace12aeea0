"""Reading MIMIC-IV (hosp) with the discharge summaries of MIMIC-IV-Note.

Johnson et al., MIMIC-IV (physionet.org/content/mimiciv/3.1) and MIMIC-IV-Note
(physionet.org/content/mimic-iv-note/2.2). A patient is a stay in hospital; the reply is what the discharge summary
tells the patient.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from os import PathLike
from typing import Literal

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.schema import Cohort, Schema
from pmlm_env.cohort.sections import keep_sections
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
    part_of,
    tabulate,
)
from pmlm_env.cohort.sources.icd import chapter
from pmlm_env.cohort.sources.measurements import Measurements, finish
from pmlm_env.cohort.sources.report import ReadReport
from pmlm_env.cohort.sources.streams import identifier, require_pyarrow, translated, whole_numbers

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
    "Pertinent Measurements",
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

Label = Literal["chapter", "diagnosis", "drg"]


def read_mimic_iv(
    folder: str | PathLike[str],
    schema: Schema | None = None,
    *,
    reading: Reading | None = None,
    patient: Unit = "stay",
    label: Label = "chapter",
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
    everybody = read_people(files)
    chosen = drawn(everybody, people)
    histories = {name: person for name, person in everybody.items() if name in chosen}
    owners = {stay.id: person for person in histories.values() for stay in person.stays}
    for stay, diagnosis in _diagnoses(files, label, owners):
        owners[stay].diagnoses.append(diagnosis)
    notes = [drawn_line(chosen, everybody, people), _add_letters(files, owners, sections)]
    patients = tabulate(
        histories,
        patient,
        labels=labels,
        without_reply=without_reply or reading.new_patients,
        parts={name: part_of(name) for name in histories},
    )
    notes.append("dates in MIMIC are shifted by person: people were split at random (column split)")
    results = Measurements("labevents", histories)
    read_labs(files, results)
    return finish(files.path, patients, results, [files], notes, schema, reading)


def read_people(files: DataFolder) -> dict[str, Person]:
    """Return everybody who was admitted, with their stays."""
    found: defaultdict[str, Person] = defaultdict(Person)
    admissions = files.need("admissions", why="the stays")
    columns = ("subject_id", "hadm_id", "admittime", "dischtime")
    for person, stay, start, end, emergency, kind in admissions.rows(columns, ("edregtime", "admission_type")):
        extra = {"admission_type": kind.lower()} if kind else {}
        begin = min(filter(None, (start, emergency)), default="")
        found[identifier(person)].stays.append(Stay(identifier(stay), begin, end, extra))
    patients = files.need("patients", why="sex and age")
    for name, gender, age, year in patients.rows(("subject_id",), ("gender", "anchor_age", "anchor_year")):
        if (known := found.get(identifier(name))) is not None:
            if gender:
                known.extra["sex"] = {"M": "male", "F": "female"}.get(gender.upper(), gender)
            if (age := identifier(age)).isdecimal() and (year := identifier(year)).isdecimal():
                known.born = int(year) - int(age)
    return dict(found)


def _diagnoses(files: DataFolder, label: Label, stays: Collection[str]) -> list[tuple[str, Diagnosis]]:
    """Return (stay, diagnosis) of the given stays."""
    if label not in ("chapter", "diagnosis", "drg"):
        raise CohortError(f"label is {label!r}: use chapter, diagnosis or drg")
    found = []
    if label == "drg":
        drgs = files.need("drgcodes", why="the diagnosis-related groups")
        for stay, kind, code, title in drgs.rows(("hadm_id", "drg_type", "drg_code"), ("description",)):
            if (stay := identifier(stay)) in stays:
                rank = _DRG_TYPES.index(kind.upper()) if kind.upper() in _DRG_TYPES else len(_DRG_TYPES)
                found.append((stay, Diagnosis(_title(title) or f"DRG {code}", rank, stay=stay)))
        return found
    titles: dict[tuple[str, str], str] = {}
    if label == "diagnosis":
        dictionary = files.need("d_icd_diagnoses", why="the titles of the diagnoses")
        rows = dictionary.rows(("icd_code", "icd_version", "long_title"))
        titles = {(code, identifier(version)): title for code, version, title in rows}
    diagnoses = files.need("diagnoses_icd", why="the diagnoses")
    for stay, number, code, version in diagnoses.rows(("hadm_id", "seq_num", "icd_code", "icd_version")):
        if (stay := identifier(stay)) in stays:
            version = identifier(version)
            name = titles.get((code, version), code) if label == "diagnosis" else chapter(code, version)
            rank = int(number) if (number := identifier(number)).isdecimal() else 1_000
            found.append((stay, Diagnosis(name, rank, stay=stay)))
    return found


def _title(description: str) -> str:
    """Return a description of a DRG, which MIMIC writes in capitals, as words."""
    return description.lower() if description.isupper() else description


def _add_letters(files: DataFolder, owners: Mapping[str, Person], sections: Sequence[str] | None) -> str:
    """Add the sections of the discharge summaries to the people; return a line for the report."""
    summaries = files.table("discharge")
    if summaries is None:
        return "there is no table discharge (MIMIC-IV-Note): the patients have no reply"
    read = without = 0
    for batch in summaries.batches(("hadm_id", "text"), ("charttime",)):
        for stay, text, time in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if (person := owners.get(identifier(stay.strip()))) is None:
                continue
            letter = text if sections is None else keep_sections(text, sections, HEADINGS)
            read += 1
            if letter.strip():
                person.letters.append(Letter(letter.strip(), date=time.strip(), stay=identifier(stay.strip())))
            else:
                without += 1
    names = " or ".join(sections or ())
    return f"discharge summaries without the section {names}: {without:,} of {read:,}" if without else ""


def read_labs(files: DataFolder, results: Measurements) -> None:
    """Add the rows of ``labevents``.

    The value is ``valuenum``, unless the text is a limit of detection ("<0.1"). Without a number it is the text, or if
    that was removed ("___") or there is none, the comment, which then has the result ("NEG.").
    """
    import pyarrow.compute as pc

    tests, codes = {}, {}
    dictionary = files.need("d_labitems", why="the names of the tests")
    for item, name, fluid, code in dictionary.rows(("itemid", "label"), ("fluid", "loinc_code")):
        tests[identifier(item)] = name if fluid.lower() in ("", "blood") else f"{name} ({fluid})"
        codes[identifier(item)] = code
    events = files.need("labevents", why="the results")
    needed, optional = ("subject_id", "itemid", "charttime"), ("hadm_id", "value", "valuenum", "valueuom", "comments")
    for batch in events.batches(needed, optional):
        number, text = batch["valuenum"], batch["value"]
        limit = pc.or_(pc.equal(number, ""), pc.match_substring_regex(text, r"^\s*[<>≤≥]"))
        comment = pc.utf8_rtrim(batch["comments"], " .\n")
        removed = pc.and_(pc.match_substring_regex(text, r"^[_\s]*$"), pc.match_substring_regex(comment, r"[^_\s]"))
        text = pc.if_else(removed, comment, text)
        items = whole_numbers(batch["itemid"])
        results.add(
            {
                "person": whole_numbers(batch["subject_id"]),
                "stay": whole_numbers(batch["hadm_id"]),
                "date": batch["charttime"],
                "indicator": translated(items, tests),
                "value": pc.if_else(limit, text, number),
                "unit": pc.utf8_trim_whitespace(batch["valueuom"]),
                "code": translated(items, codes),
            }
        )
