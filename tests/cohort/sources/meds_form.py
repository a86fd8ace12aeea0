"""A folder in the form of the Medical Event Data Standard 0.4, with codes as the ETL of MIMIC-IV writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.cohort.sources.hospital import TESTS, Person

_DATA = pa.schema(
    [
        ("subject_id", pa.int64()),
        ("time", pa.timestamp("us")),
        ("code", pa.string()),
        ("numeric_value", pa.float32()),
        ("text_value", pa.large_string()),
    ]
)
_CODES = pa.schema([("code", pa.string()), ("description", pa.string()), ("parent_codes", pa.list_(pa.string()))])
_SPLITS = pa.schema([("subject_id", pa.int64()), ("split", pa.string())])


def events(person: Person) -> list[dict[str, Any]]:
    """Return the events of a person in the order of time, static ones first."""
    from datetime import datetime

    rows: list[dict[str, Any]] = [{"code": f"GENDER//{person.sex[0].upper()}"}]
    rows.append({"code": "MEDS_BIRTH", "time": datetime(person.born, 1, 1)})
    for stay in person.stays:
        rows.append({"code": "HOSPITAL_ADMISSION//EW EMER.", "time": stay.start})
        rows += [
            {
                "code": f"LAB//{result.test.item}//{result.test.unit}",
                "time": result.time,
                "numeric_value": result.number,
            }
            for result in stay.results
        ]
        rows.append({"code": "MEDICATION//Furosemide", "time": stay.start, "numeric_value": 40.0})
        rows += [
            {"code": f"DIAGNOSIS//ICD//{version}//{code}", "time": stay.end} for code, version, _, _ in stay.diagnoses
        ]
        rows.append({"code": "NOTE//DISCHARGE_INSTRUCTIONS", "time": stay.end, "text_value": stay.instructions})
    static = [row for row in rows if "time" not in row]
    timed = sorted((row for row in rows if "time" in row), key=lambda row: row["time"])
    return [{"subject_id": int(person.id), **row} for row in static + timed]


def write_meds(root: Path, people: list[Person]) -> Path:
    """Write two shards a split, the codes and the splits."""
    parts = {"train": people[::2], "tuning": people[1::4], "held_out": people[3::4]}
    for part, members in parts.items():
        for shard, some in enumerate((members[::2], members[1::2])):
            path = root / "data" / part / f"{shard}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [row for person in some for row in events(person)]
            pq.write_table(pa.Table.from_pylist(rows, _DATA), path)
    (root / "metadata").mkdir(exist_ok=True)
    codes: list[dict[str, Any]] = [
        {
            "code": f"LAB//{test.item}//{test.unit}",
            "description": test.name + (" (Urine)" if test.fluid == "Urine" else ""),
            "parent_codes": [f"LOINC/{test.loinc}"],
        }
        for test in TESTS
    ]
    diagnoses = {diagnosis for person in people for stay in person.stays for diagnosis in stay.diagnoses}
    codes += [{"code": f"DIAGNOSIS//ICD//{v}//{c}", "description": title} for c, v, title, _ in sorted(diagnoses)]
    pq.write_table(pa.Table.from_pylist(codes, _CODES), root / "metadata" / "codes.parquet")
    splits = [{"subject_id": int(person.id), "split": part} for part, some in parts.items() for person in some]
    pq.write_table(pa.Table.from_pylist(splits, _SPLITS), root / "metadata" / "subject_splits.parquet")
    return root
