"""Folders in the form of MIMIC-IV 3.1, MIMIC-IV-Note 2.2 and Discharge Me 1.3, as published on PhysioNet."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.cohort.sources.hospital import TESTS, Person

_TIME = "%Y-%m-%d %H:%M:%S"


def write_csv(path: Path, header: str, rows: Iterable[Sequence[object]]) -> None:
    """Write CSV, compressed if the name ends in .gz, with quotes where they are needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", 1, newline="") if path.suffix == ".gz" else path.open("w", newline="") as file:
        assert isinstance(file, io.TextIOBase)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header.split(","))
        writer.writerows(rows)


def write_mimic(root: Path, people: list[Person], *, notes: bool = True, suffix: str = ".csv.gz") -> Path:
    """Write the tables that a reader needs, and rows of people who were never admitted."""
    hosp, note = root / "hosp", root / "note"
    stays = [(person, stay) for person in people for stay in person.stays]
    write_csv(
        hosp / f"patients{suffix}",
        "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod",
        [
            (p.id, p.sex[0].upper(), p.stays[0].start.year - p.born, p.stays[0].start.year, "2014 - 2016", "")
            for p in people
        ]
        + [("99999999", "F", 52, 2170, "2011 - 2013", "")],
    )
    write_csv(
        hosp / f"admissions{suffix}",
        "subject_id,hadm_id,admittime,dischtime,deathtime,admission_type,admit_provider_id,admission_location,"
        "discharge_location,insurance,language,marital_status,race,edregtime,edouttime,hospital_expire_flag",
        [
            (p.id, s.id, s.start.strftime(_TIME), s.end.strftime(_TIME), "", "EW EMER.", "P49AFC", "EMERGENCY ROOM",
             "HOME", "Medicaid", "English", "WIDOWED", "WHITE", s.start.replace(hour=7).strftime(_TIME), "", 0)
            for p, s in stays
        ],
    )  # fmt: skip
    write_csv(
        hosp / f"diagnoses_icd{suffix}",
        "subject_id,hadm_id,seq_num,icd_code,icd_version",
        [
            (p.id, s.id, number, f"{code:<7}" if number == 2 else code, version)
            for p, s in stays
            for number, (code, version, _, _) in reversed(list(enumerate(s.diagnoses, start=1)))
        ],
    )
    titles = {(code, version): title for _, s in stays for code, version, title, _ in s.diagnoses}
    write_csv(
        hosp / f"d_icd_diagnoses{suffix}",
        "icd_code,icd_version,long_title",
        [(code, version, title) for (code, version), title in titles.items()],
    )
    write_csv(
        hosp / f"drgcodes{suffix}",
        "subject_id,hadm_id,drg_type,drg_code,description,drg_severity,drg_mortality",
        [
            row
            for p, s in stays
            for row in (
                (p.id, s.id, "APR", "194", "Heart Failure", 3, 2),
                (p.id, s.id, "HCFA", "291", "HEART FAILURE & SHOCK W MCC", "", ""),
            )
        ],
    )
    write_csv(
        hosp / f"d_labitems{suffix}",
        "itemid,label,fluid,category",
        [(t.item, t.name, t.fluid, t.category) for t in TESTS] + [(50920, "Estimated GFR", "Blood", "Chemistry")],
    )
    number = iter(range(1, 10**9))
    rows: list[Sequence[object]] = [
        (next(number), p.id, s.id if r.named else "", 1, r.test.item, "P12", r.time.strftime(_TIME), "",
         r.value, r.value, r.test.unit, "", "", "", "ROUTINE", "")
        for p, s in stays
        for r in s.results
    ]  # fmt: skip
    first = min(stays, key=lambda each: each[1].id)
    day = first[1].start.strftime(_TIME)
    rows += [
        (next(number), "99999999", "", 1, 50912, "", day, day, "1.1", "1.1", "mg/dL", "", "", "", "ROUTINE", ""),
        (
            next(number),
            first[0].id,
            first[1].id,
            1,
            50920,
            "",
            day,
            day,
            "___",
            "",
            "",
            "",
            "",
            "",
            "",
            "Using, this\nage",
        ),
        (
            next(number),
            first[0].id,
            "",
            1,
            50912,
            "",
            "2100-01-01 10:00:00",
            "",
            "2.0",
            "2",
            "mg/dL",
            "",
            "",
            "",
            "",
            "",
        ),
    ]
    write_csv(
        hosp / f"labevents{suffix}",
        "labevent_id,subject_id,hadm_id,specimen_id,itemid,order_provider_id,charttime,storetime,value,valuenum,"
        "valueuom,ref_range_lower,ref_range_upper,flag,priority,comments",
        rows,
    )
    if notes:
        write_csv(
            note / f"discharge{suffix}",
            "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text",
            [
                (f"{p.id}-DS-{k}", p.id, s.id, "DS", k, s.end.strftime("%Y-%m-%d 00:00:00"), "", s.summary(p.sex))
                for p in people
                for k, s in enumerate(p.stays, start=2)
            ],
        )
    return root


def write_discharge_me(root: Path, people: list[Person]) -> Path:
    """Write the folders of the split; the second person has visits in two of them."""
    parts: dict[str, list[tuple[Person, int]]] = {"train": [], "valid": [], "test_phase_1": [], "test_phase_2": []}
    for number, person in enumerate(people):
        for k in range(len(person.stays)):
            part = "test_phase_1" if number == 1 and k == 0 else ("train", "train", "valid", "test_phase_2")[number % 4]
            parts[part].append((person, k))
    for part, members in parts.items():
        stays = [(person, person.stays[k]) for person, k in members]
        write_csv(
            root / part / "edstays.csv.gz",
            "subject_id,hadm_id,stay_id,intime,outtime,gender,race,arrival_transport,disposition",
            [
                (p.id, f"{s.id}.0", f"3{s.id}", s.start.replace(hour=7).strftime(_TIME), s.start.strftime(_TIME),
                 p.sex[0].upper(), "WHITE", "WALK IN", "ADMITTED")
                for p, s in stays
            ],
        )  # fmt: skip
        write_csv(
            root / part / "triage.csv.gz",
            "subject_id,stay_id,temperature,heartrate,resprate,o2sat,sbp,dbp,pain,acuity,chiefcomplaint",
            [
                (p.id, f"3{s.id}", "36.6" if k % 7 == 0 else "98.6", 80 + k % 9, "18.0", "98.0", 120, "", "uta", "3.0",
                 "Dyspnea")
                for k, (p, s) in enumerate(stays)
            ],
        )  # fmt: skip
        write_csv(
            root / part / "diagnosis.csv.gz",
            "subject_id,stay_id,seq_num,icd_code,icd_version,icd_title",
            [
                (p.id, f"3{s.id}", number, code, version, title.upper())
                for p, s in stays
                for number, (code, version, title, _) in reversed(list(enumerate(s.diagnoses, start=1)))
            ],
        )
        write_csv(
            root / part / "discharge.csv.gz",
            "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text",
            [
                (f"{p.id}-DS-1", p.id, s.id, "DS", 1, s.end.strftime("%Y-%m-%d 00:00:00"), "", s.summary(p.sex))
                for p, s in stays
            ],
        )
        write_csv(
            root / part / "discharge_target.csv.gz",
            "note_id,hadm_id,discharge_instructions,brief_hospital_course,discharge_instructions_word_count,"
            "brief_hospital_course_word_count",
            [(f"{p.id}-DS-1", s.id, s.instructions, "Treated.", 20, 1) for p, s in stays],
        )
        write_csv(
            root / part / "radiology.csv.gz",
            "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text",
            [(f"{p.id}-RR-1", p.id, s.id, "RR", 1, s.start.strftime(_TIME), "", "Clear.") for p, s in stays],
        )
    return root
