"""A cohort from a folder of CSV or Parquet files."""

from __future__ import annotations

import logging
from os import PathLike
from pathlib import Path

import numpy as np

from pmlm_env.cohort.checks import Problems, ReadReport, named, quoted, require
from pmlm_env.cohort.checkups import DROPPED, from_long, from_wide
from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.parsing import DATE_FORMAT, filled, moments
from pmlm_env.cohort.schema import Cohort, Patient
from pmlm_env.cohort.tables import SUFFIXES, Table, read_table

PATIENT_COLUMNS = ("patient_id", "label", "reference", "split_date")

_logger = logging.getLogger(__name__)


def read_cohort(
    folder: str | PathLike[str],
    *,
    patients: str | None = None,
    labs: str | None = None,
    checkups: str | None = None,
    references: bool = True,
    drop_bad_rows: bool = False,
) -> tuple[Cohort, ReadReport]:
    """Read a cohort: a table of patients and one of check-ups, long or wide.

    The tables, CSV (UTF-8, commas) or Parquet:

    - patients: patient_id, label, reference, split_date; all further columns go to ``Patient.extra``.
    - labs (long): patient_id, date, indicator, value and perhaps unit. A check-up is a calendar day; what was
      measured several times in a day is averaged.
    - checkups (wide): patient_id, date or day, and one column an indicator; an empty cell = not measured.

    Dates are YYYY-MM-DD, with or without a time of day. Identifiers are text: "007" stays "007". The only way to
    say "not measured" is an empty cell: "nan", "<0.5" and "inf" are problems. Everything is checked, and all that
    is found wrong is told at once. Any number of check-ups is read; the paper's 45 is a matter of later stages.

    Args:
        folder: Where the files are.
        patients: Name of the patients' file in ``folder``; by default patients.csv or patients.parquet.
        labs: Name of a long table; by default labs.csv or labs.parquet, where there is one.
        checkups: Name of a wide table; by default checkups.csv or checkups.parquet, where there is one.
        references: Whether every patient must have a doctor's reply. If not, the reference column may be
            missing or have empty cells.
        drop_bad_rows: Leave out and count what is bad instead of raising: rows, and single values of a wide
            table. Of duplicates the first stays.

    Returns:
        The cohort, patients in the order of their file and check-ups by date, and a report of what was left
        out. Patients without any value are left out, named in the report and in one logged warning.

    Raises:
        CohortError: A file or column is missing; or anything is wrong and ``drop_bad_rows`` is false; or no
            patient has a check-up.
    """
    folder = Path(folder)
    patients_path = _find(folder, "patients", patients)
    checkups_path, long = _find_checkups(folder, labs, checkups)
    people, records = read_table(patients_path), read_table(checkups_path)

    problems = Problems()
    index = _check_patients(people, references, problems)
    problems.add_misfits(records)
    found = (from_long if long else from_wide)(records, index, problems)
    if problems.counts and not drop_bad_rows:
        advice = "Correct the files, or pass drop_bad_rows=True to read them without what is bad."
        raise CohortError(f"{problems.message(folder)}\n{advice}")
    if not len(found.patient):
        said = f"\nWhat was dropped: {problems.message(folder)}" if problems.counts else ""
        raise CohortError(f"{records.name} has no check-up with a value of any patient in {people.name}.{said}")

    rows = [row for row in index.values() if row != DROPPED]
    starts = np.searchsorted(found.patient, rows, side="left")
    ends = np.searchsorted(found.patient, rows, side="right")
    split_dates = moments(people.columns["split_date"]).astype("datetime64[D]")
    extra = [name for name in people.columns if name not in PATIENT_COLUMNS]
    empty = [""] * len(people.rows)
    cohort = Cohort(
        tuple(
            Patient(
                patient_id=people.columns["patient_id"][row],
                label=people.columns["label"][row],
                reference=people.columns.get("reference", empty)[row],
                split_date=split_dates[row],
                dates=found.day[start:end],
                values=found.values[start:end],
                extra={name: people.columns[name][row] for name in extra},
            )
            for row, start, end in zip(rows, starts.tolist(), ends.tolist(), strict=True)
            if end > start
        )
    )
    ids = people.columns["patient_id"]
    without = tuple(ids[row] for row, start, end in zip(rows, starts, ends, strict=True) if end == start)
    if without:
        names = named(without, shown=100)
        _logger.warning("%s: %d patients have no laboratory value, left out: %s", folder, len(without), names)
    orphans = {"check-up of a dropped patient": found.orphans} if found.orphans else {}
    report = ReadReport(
        patients=len(cohort),
        checkups=cohort.n_checkups,
        patients_without_checkups=without,
        dropped={**problems.counts, **orphans},
        examples=problems.lines(),
        empty_checkups=found.empty,
        averaged=found.averaged,
        ignored_columns=found.ignored_columns,
    )
    return cohort, report


def _check_patients(table: Table, references: bool, problems: Problems) -> dict[str, int]:
    """Return patient_id -> row of the table, or ``DROPPED`` where that row has a problem."""
    needed = PATIENT_COLUMNS if references else ("patient_id", "label", "split_date")
    lacking = references and "reference" not in table.columns
    advice = "If the cohort has no doctors' replies, pass references=False." if lacking else ""
    require(table, needed, optional=PATIENT_COLUMNS, advice=advice)
    problems.add_misfits(table)
    ids, dates = table.columns["patient_id"], table.columns["split_date"]

    nameless = ~filled(ids)
    problems.add("missing patient_id", table, nameless, "patient_id", lambda i: "the cell is empty; name the patient")
    first: dict[str, int] = {}
    for row, name in enumerate(ids):
        first.setdefault(name, row)
    repeated = ~nameless & np.array([first[name] != row for row, name in enumerate(ids)], dtype=np.bool_)
    problems.add(
        "duplicate patient_id",
        table,
        repeated,
        "patient_id",
        lambda i: f"{quoted(ids[i])} is in {table.place(int(table.rows[first[ids[i]]]))} already; keep one of them",
    )
    unlabelled = ~filled(table.columns["label"])
    problems.add(
        "missing label", table, unlabelled, "label", lambda i: f"patient {ids[i]} has none; give the condition"
    )
    bad = nameless | unlabelled
    if references:
        unanswered = ~filled(table.columns["reference"])
        reply = "has no reply; give the doctor's reply, or pass references=False if the cohort has none"
        problems.add("missing reply", table, unanswered, "reference", lambda i: f"patient {ids[i]} {reply}")
        bad |= unanswered
    undated = np.isnat(moments(dates))
    problems.add(
        "unparsable date",
        table,
        undated,
        "split_date",
        lambda i: f"{quoted(dates[i])} is not a date; write {DATE_FORMAT}",
    )
    bad |= undated
    return {name: DROPPED if bad[row] else row for name, row in first.items() if not nameless[row]}


def _find_checkups(folder: Path, labs: str | None, checkups: str | None) -> tuple[Path, bool]:
    """Return the table of check-ups and whether it is long."""
    if labs is not None and checkups is not None:
        raise CohortError(f"labs={labs!r} (long) and checkups={checkups!r} (wide) were both given; give one")
    if labs is not None:
        return _find(folder, "labs", labs), True
    if checkups is not None:
        return _find(folder, "checkups", checkups), False
    long, wide = _with_stem(folder, "labs"), _with_stem(folder, "checkups")
    if long and wide:
        raise CohortError(
            f"{folder} has {long[0].name} (long) and {wide[0].name} (wide); say which to read: "
            f"labs={long[0].name!r} or checkups={wide[0].name!r}"
        )
    if not long and not wide:
        raise CohortError(
            f"{folder} has neither labs.csv (long) nor checkups.csv (wide), nor a .parquet of either name; "
            f"name the file with labs=... or checkups=.... {_present(folder)}"
        )
    return _find(folder, "labs" if long else "checkups", None), bool(long)


def _find(folder: Path, stem: str, name: str | None) -> Path:
    """Return the path of the file told, or of the one that has the stem."""
    if not folder.is_dir():
        raise CohortError(f"there is no folder {folder}")
    if name is None:
        paths = _with_stem(folder, stem)
        if len(paths) > 1:
            raise CohortError(
                f"{folder} has {' and '.join(path.name for path in paths)}; say which to read: {stem}={paths[0].name!r}"
            )
        if not paths:
            raise CohortError(
                f"{folder} has no {stem}.csv or {stem}.parquet; name the file with {stem}=.... {_present(folder)}"
            )
        return paths[0]
    path = folder / name
    if path.suffix.lower() not in SUFFIXES:
        raise CohortError(f"{stem}={name!r}: the name must end in .csv or .parquet")
    if not path.is_file():
        raise CohortError(f"{folder} has no file {name!r}. {_present(folder)}")
    return path


def _with_stem(folder: Path, stem: str) -> list[Path]:
    return [path for path in (folder / f"{stem}{suffix}" for suffix in SUFFIXES) if path.is_file()]


def _present(folder: Path) -> str:
    names = sorted(path.name for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    return f"It has: {named(names)}" if names else "It has no CSV or Parquet file."
