"""Reading the data of the shared task "Discharge Me!" (BioNLP 2024): emergency visits with discharge instructions.

Xu, Discharge Me (physionet.org/content/discharge-me/1.3), made of MIMIC-IV-ED and MIMIC-IV-Note. It has the vital signs
at triage, but no laboratory results: these are in MIMIC-IV, whose tables may lie in the same folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
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
    drawn,
    drawn_line,
    part_of,
    tabulate,
)
from pmlm_env.cohort.sources.icd import chapter
from pmlm_env.cohort.sources.measurements import COLUMNS, Measurements, finish
from pmlm_env.cohort.sources.mimic_iv import HEADINGS, INSTRUCTIONS, read_labs
from pmlm_env.cohort.sources.report import ReadReport
from pmlm_env.cohort.sources.streams import StreamedTable, identifier, require_pyarrow

#: Folders of the published split -> our part. A person in several parts belongs to the last of these.
_PARTS = {"train": "train", "valid": "validation", "test_phase_1": "test", "test_phase_2": "test"}
_ORDER = ("train", "validation", "test")
#: Columns of triage: name of the indicator, unit, LOINC code.
_VITALS = {
    "temperature": ("Body temperature", "Cel", "8310-5"),
    "heartrate": ("Heart rate", "/min", "8867-4"),
    "resprate": ("Respiratory rate", "/min", "9279-1"),
    "o2sat": ("Oxygen saturation", "%", "59408-5"),
    "sbp": ("Systolic blood pressure", "mm[Hg]", "8480-6"),
    "dbp": ("Diastolic blood pressure", "mm[Hg]", "8462-4"),
    "pain": ("Pain severity", "", "72514-3"),
    "acuity": ("Triage acuity", "", ""),
}
#: Temperatures are in degrees Fahrenheit, apart from those that were entered in degrees Celsius: they are below this,
#: where nobody alive has a temperature in either.
_CELSIUS_BELOW = 50


def read_discharge_me(
    folder: str | PathLike[str],
    schema: Schema | None = None,
    *,
    reading: Reading | None = None,
    label: Literal["chapter", "diagnosis"] = "chapter",
    labels: int | None = LABELS,
    people: int | None = PEOPLE,
    mimic: str | None = None,
) -> tuple[Cohort, ReadReport]:
    """Read the folders train, valid, test_phase_1 and test_phase_2 as they are published, or one of them.

    A patient is a stay. The reply is ``discharge_instructions`` of ``discharge_target``, or else that section of
    ``discharge``; the measurements are the vital signs of ``triage`` and, if there is a table ``labevents``, the
    laboratory results of the stay. The split is the published one. People who have stays in several parts are left out
    of all but the last of train, validation and test, so that nobody is in two parts; where there is only one part,
    people are split at random.

    Args:
        folder: The folder.
        schema: What the cohort measures; None = inferred.
        reading: How to read it.
        label: ``chapter``: the ICD chapter of the first diagnosis. ``diagnosis``: its title.
        labels: Number of labels to keep, the most frequent ones; None = all.
        people: Number of people to read, drawn at random; None = all.
        mimic: A folder with MIMIC-IV, for ``labevents`` and ``d_labitems``, if they are not in ``folder``.

    Raises:
        CohortError: A table or a column is missing or damaged, too much would be lost, or ``assemble`` cannot use it.
    """
    require_pyarrow()
    if label not in ("chapter", "diagnosis"):
        raise CohortError(f"label is {label!r}: use chapter or diagnosis")
    reading, parts = reading or Reading(), _parts(Path(folder))
    visits = [visit for part, files in parts for visit in _visits(part, files)]
    latest: dict[str, str] = {}
    for visit in visits:
        latest[visit.person] = max(latest.get(visit.person, _ORDER[0]), visit.part, key=_ORDER.index)
    chosen = drawn(latest, people)
    of_chosen = [visit for visit in visits if visit.person in chosen]
    used = [visit for visit in of_chosen if visit.part == latest[visit.person]]
    notes = [drawn_line(chosen, latest, people)]
    if leaking := len(of_chosen) - len(used):
        notes.append(f"visits of people who also have visits in a later part of the split, left out: {leaking:,}")

    histories = {visit.person: Person() for visit in used}
    by_emergency, by_stay = ({getattr(visit, key): visit for visit in used} for key in ("emergency", "stay"))
    labs = _labs(Path(folder), mimic)
    results = Measurements("triage" if labs is None else "triage and labevents", histories)
    complaints: dict[str, str] = {}
    converted = 0
    ends: dict[str, str] = {}
    for _, files in parts:
        for stay, text, day in _letters(files):
            if (of_letter := by_stay.get(stay)) is not None:
                histories[of_letter.person].letters.append(Letter(text, stay=stay))
                ends[stay] = max(ends.get(stay, ""), day)
        diagnoses, triage = files.need("diagnosis", why="the diagnoses"), files.need("triage", why="the vital signs")
        columns = ("stay_id", "seq_num", "icd_code", "icd_version", "icd_title")
        for emergency, number, code, version, title in diagnoses.rows(columns):
            if (found := by_emergency.get(identifier(emergency))) is not None:
                name = chapter(code, identifier(version)) if label == "chapter" else title.capitalize()
                rank = int(number) if number.isdecimal() else 1_000
                histories[found.person].diagnoses.append(Diagnosis(name, rank, stay=found.stay))
        converted += _add_vitals(triage, by_emergency, results, complaints)
    for visit in used:
        extra = {"sex": visit.sex, "chief_complaint": complaints.get(visit.emergency, "")}
        end = ends.get(visit.stay) or visit.end
        histories[visit.person].stays.append(Stay(visit.stay, visit.start, end, extra))
    if converted:
        notes.append(f"temperatures of {_CELSIUS_BELOW} or more, converted from degrees Fahrenheit: {converted:,}")
    if labs is None:
        notes.append(
            "there is no table labevents (MIMIC-IV): the measurements are the vital signs at triage alone; name the "
            """folder of MIMIC-IV with --source-kwargs '{"mimic": "DIR"}'"""
        )
    else:
        read_labs(labs, results)
    split = {name: latest[name] if len(parts) > 1 else part_of(name) for name in histories}
    if len(parts) == 1:
        notes.append("dates in MIMIC are shifted by person: people were split at random (column split)")
    patients = tabulate(histories, "stay", labels=labels, without_reply=reading.new_patients, parts=split)
    read = [*(files for _, files in parts), *([labs] if labs else [])]
    return finish(Path(folder), patients, results, read, notes, schema, reading)


@dataclass(frozen=True, slots=True)
class _Visit:
    """A row of ``edstays``: a visit to the emergency department that led to a stay."""

    part: str
    person: str
    stay: str
    emergency: str
    start: str
    end: str
    sex: str


def _parts(folder: Path) -> list[tuple[str, DataFolder]]:
    """Return our name and the files of each part of the split that is there."""
    found = [(part, DataFolder(folder / name)) for name, part in _PARTS.items() if (folder / name).is_dir()]
    return found or [(_ORDER[0], DataFolder(folder))]


def _labs(folder: Path, mimic: str | None) -> DataFolder | None:
    files = DataFolder(folder if mimic is None else mimic)
    return files if mimic is not None or files.table("labevents") else None


def _visits(part: str, files: DataFolder) -> Iterator[_Visit]:
    visits = files.need("edstays", why="the visits")
    columns = ("subject_id", "hadm_id", "stay_id", "intime")
    for person, stay, emergency, start, end, gender in visits.rows(columns, ("outtime", "gender")):
        sex = {"M": "male", "F": "female"}.get(gender.upper(), gender)
        if stay := identifier(stay):
            yield _Visit(part, identifier(person), stay, identifier(emergency), start, end, sex)


def _letters(files: DataFolder) -> Iterator[tuple[str, str, str]]:
    """Yield stay, discharge instructions and, if there is the whole summary, its day."""
    days: dict[str, str] = {}
    found: dict[str, str] = {}
    targets, summaries = files.table("discharge_target"), files.table("discharge")
    if targets is not None:
        found = {identifier(stay): text for stay, text in targets.rows(("hadm_id", "discharge_instructions"))}
    if summaries is not None:
        columns = ("hadm_id", "charttime") if found else ("hadm_id", "charttime", "text")
        for stay, day, *text in summaries.rows(columns):
            days[identifier(stay)] = day
            if text and (section := keep_sections(text[0], INSTRUCTIONS, HEADINGS)):
                found[identifier(stay)] = section
    yield from ((stay, text, days.get(stay, "")) for stay, text in found.items() if text)


def _add_vitals(
    triage: StreamedTable, visits: Mapping[str, _Visit], results: Measurements, complaints: dict[str, str]
) -> int:
    """Add the vital signs, measured at the beginning of each visit, and its chief complaint.

    Returns:
        How many temperatures were converted.
    """
    converted = 0
    rows: dict[str, list[str]] = {name: [] for name in COLUMNS}
    for emergency, complaint, *values in triage.rows(("stay_id",), ("chiefcomplaint", *_VITALS)):
        if (visit := visits.get(identifier(emergency))) is None:
            continue
        complaints[visit.emergency] = complaint
        for (name, unit, code), value in zip(_VITALS.values(), values, strict=True):
            if not value:
                continue
            if unit == "Cel" and (found := _number(value)) is not None and found >= _CELSIUS_BELOW:
                value, converted = f"{(found - 32) * 5 / 9:.2f}", converted + 1
            row = (visit.person, visit.stay, visit.start, name, value, unit, code)
            for column, cell in zip(COLUMNS, row, strict=True):
                rows[column].append(cell)
    results.add(rows)
    return converted


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
