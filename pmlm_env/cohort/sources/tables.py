"""Reading a cohort from a folder of CSV or Parquet files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from os import PathLike
from os.path import lexists
from pathlib import Path

import numpy as np

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.parsing import has_value, parse_datetimes
from pmlm_env.cohort.schema import OBSTETRIC, Cohort, Patient, Schema
from pmlm_env.cohort.sources.checks import Problems, require
from pmlm_env.cohort.sources.checkups import DROPPED, CheckUps, DropCount, from_long, from_wide, not_a_date
from pmlm_env.cohort.sources.labels import LabelSpellings, unify_spelling
from pmlm_env.cohort.sources.report import ReadReport
from pmlm_env.cohort.sources.table_files import SUFFIXES, Table, read_table
from pmlm_env.cohort.wording import named, quoted
from pmlm_env.io.text import printable

PATIENT_COLUMNS = ("patient_id", "label", "reference", "split_date")
#: All values of an indicator may be dropped if it has fewer than these.
_MIN_VALUES = 10

_logger = logging.getLogger(__name__)


def read_cohort(
    folder: str | PathLike[str],
    schema: Schema | None = None,
    *,
    patients: str | None = None,
    labs: str | None = None,
    checkups: str | None = None,
    references: bool = True,
    new_patients: bool = False,
    drop_bad_rows: bool = False,
) -> tuple[Cohort, ReadReport]:
    """Read a cohort: a table of patients and one of check-ups, long or wide.

    The tables are CSV (UTF-8, commas) or Parquet:

    - patients: patient_id, label, reference, split_date; further columns go to ``Patient.extra``. The label and the
      reference of a new patient may be empty cells.
    - labs (long): patient_id, date, indicator, value and optionally unit.
    - checkups (wide): patient_id, date or day, and one column per indicator; an empty cell = not measured.

    Indicators have their names or synonyms of the schema, in any letter case; the report has those that differ from the
    names. A check-up is a calendar day; values measured several times in a day are averaged. Dates are YYYY-MM-DD, with
    or without a time of day. Identifiers are text: "007" stays "007". "Not measured" is an empty cell; "<0.5" and "inf"
    are problems. Labels that differ only in letter case, whitespace or Unicode form are merged, in the schema's
    spelling if it has the label. Check-up rows of people who are not in the patients' table are left out and counted.
    Everything else is checked, and all problems are reported together. There is no limit on the number of check-ups;
    later stages use the latest ``schema.max_checkups``.

    Args:
        folder: The folder of the files.
        schema: What the cohort measures and diagnoses; by default ``schema_of(folder)``.
        patients: Name of the patients' file in ``folder``; by default patients.csv or patients.parquet.
        labs: Name of a long table; by default labs.csv or labs.parquet, if present.
        checkups: Name of a wide table; by default checkups.csv or checkups.parquet, if present.
        references: Whether the reference column is required; its cells may be empty in any case.
        new_patients: Whether the patients are new, so that their label, reference, and split_date may be missing, as
            columns or as cells.
        drop_bad_rows: Leave out and count bad rows, and bad single values of a wide table, instead of raising; but
            never more than half of the patients or of the values, nor more than nine tenths of an indicator's values.

    Returns:
        The cohort, with patients in file order and check-ups sorted by date, and a report of what was left out.
        Patients without any value are left out and named in the report and in one logged warning. A missing split_date
        is NaT.

    Raises:
        CohortError: The folder's schema is not valid; a file or column is missing; there are problems and
            ``drop_bad_rows`` is false, or too many problems; or no patient has a check-up.
    """
    folder = Path(folder)
    schema = schema_of(folder) if schema is None else schema
    command = "refine" if new_patients else "prepare"
    patients_path = _find(folder, "patients", patients, command)
    checkups_path, long = _find_checkups(folder, labs, checkups, command)
    people = read_table(patients_path)

    problems = Problems()
    spelling, index = _check_patients(people, references, new_patients, schema, problems)
    records = read_table(checkups_path)
    problems.add_malformed(records)
    found = (from_long if long else from_wide)(records, index, schema, problems)
    if problems.counts and not drop_bad_rows:
        advice = f"Correct the files, or leave out the bad rows with `pmlm {command} --drop-bad-rows`."
        raise CohortError(f"{problems.message(folder)}\n{advice}")
    rows = [row for row in index.values() if row != DROPPED]
    listed = len(people.rows) + len(people.malformed)
    if too_much := _too_much(people.name, DropCount(listed - len(rows), listed), records.name, found):
        raise CohortError(f"{problems.message(folder)}\n{too_much}; correct the files: that is too much to drop.")
    if not len(found.patient):
        dropped_message = f"\nWhat was dropped: {problems.message(folder)}" if problems.counts else ""
        outside = f" {found.outside_rows:,} rows are of people who are not in it." if found.outside_rows else ""
        raise CohortError(
            f"{records.name} has no check-up with a value of any patient in {people.name}.{outside}{dropped_message}"
        )

    starts = np.searchsorted(found.patient, rows, side="left")
    ends = np.searchsorted(found.patient, rows, side="right")
    split_dates = parse_datetimes(_column(people, "split_date")).astype("datetime64[D]")
    extra = [name for name in people.columns if name not in PATIENT_COLUMNS]
    ids = [name.strip() for name in people.columns["patient_id"]]
    replies = _column(people, "reference")
    answered = has_value(replies)
    cohort = Cohort(
        tuple(
            Patient(
                patient_id=ids[row],
                label=spelling.labels[row],
                reference=replies[row] if answered[row] else "",
                split_date=split_dates[row],
                dates=found.day[start:end],
                values=found.values[start:end],
                extra={name: people.columns[name][row] for name in extra},
            )
            for row, start, end in zip(rows, starts.tolist(), ends.tolist(), strict=True)
            if end > start
        ),
        schema,
    )
    if found.outside_people and 2 * len(cohort) < len(rows):
        raise CohortError(
            f"{len(rows) - len(cohort):,} of {len(rows):,} patients in {people.name} have no value in {records.name}, "
            f"which has {found.outside_rows:,} rows of {found.outside_people:,} people who are not in {people.name}: "
            "use the same identifiers in both files, or remove the patients without check-ups"
        )
    without = tuple(ids[row] for row, start, end in zip(rows, starts, ends, strict=True) if end == start)
    if without:
        names = named(without, shown=100)
        _logger.warning("%s: patients without a laboratory value, left out (%d): %s", folder, len(without), names)
    dropped = dict(problems.counts)
    if found.of_dropped_patients:
        dropped["check-up of a dropped patient"] = found.of_dropped_patients
    after = found.day > split_dates[found.patient]
    report = ReadReport(
        patients=len(cohort),
        checkups=cohort.n_checkups,
        values=int(found.counts.sum()),
        values_after_index=int(found.counts[after].sum()),
        patients_after_index=len(np.unique(found.patient[after])),
        patients_without_checkups=without,
        unlabeled=sum(not patient.label for patient in cohort),
        unanswered=sum(not patient.reference for patient in cohort),
        merged_labels=spelling.merged,
        doubtful_labels=spelling.doubtful,
        outside_rows=found.outside_rows,
        outside_people=found.outside_people,
        dropped=dropped,
        examples=problems.lines(),
        empty_checkups=found.empty,
        averaged=int(found.counts[found.counts > 1].sum()),
        repeated_rows=found.repeated,
        ignored_columns=found.ignored_columns,
        read_as=found.read_as,
    )
    return cohort, report


def schema_of(folder: Path) -> Schema:
    """Return the schema in a cohort's folder, schema.toml or schema.json; ``obstetric`` if it has none.

    Raises:
        CohortError: The schema is not valid, or there are both files.
    """
    files = [path for path in (folder / "schema.toml", folder / "schema.json") if lexists(path)]
    if len(files) > 1:
        raise CohortError(f"{folder} has schema.toml and schema.json: remove one")
    try:
        return Schema.load(files[0] if files else OBSTETRIC)
    except ValueError as error:
        raise CohortError(str(error)) from None


def _check_patients(
    table: Table, references: bool, new_patients: bool, schema: Schema, problems: Problems
) -> tuple[LabelSpellings, dict[str, int]]:
    """Return the labels, and patient_id -> row of the table, or ``DROPPED`` if that row has a problem."""
    may_be_missing = ("label", "reference", "split_date") if new_patients else () if references else ("reference",)
    needed = [name for name in PATIENT_COLUMNS if name not in may_be_missing]
    require(table, needed, PATIENT_COLUMNS, "The label and the reference of a new patient may be empty cells.")
    problems.add_malformed(table)
    ids, dates = [name.strip() for name in table.columns["patient_id"]], _column(table, "split_date")

    unnamed = ~has_value(ids)
    problems.add("missing patient_id", table, unnamed, "patient_id", lambda i: "the cell is empty; name the patient")
    labels = _column(table, "label")
    spelling = unify_spelling(
        [label if given else "" for label, given in zip(labels, has_value(labels), strict=True)],
        known=[label.name for label in schema.labels],
    )
    unprintable = np.array([printable(label) != label for label in spelling.labels], dtype=np.bool_)
    undated = np.isnat(parse_datetimes(dates)) & (has_value(dates) | (not new_patients))
    bad = unnamed | unprintable | undated
    first: dict[str, int] = {}
    for row in sorted(range(len(ids)), key=lambda row: bad[row]):  # the first valid row of each patient is used
        first.setdefault(ids[row], row)
    repeated = ~unnamed & np.array([first[name] != row for row, name in enumerate(ids)], dtype=np.bool_)
    problems.add(
        "duplicate patient_id",
        table,
        repeated,
        "patient_id",
        lambda i: f"{quoted(ids[i])} is in {table.location(int(table.rows[first[ids[i]]]))} already; keep one row",
    )
    problems.add("unprintable label", table, unprintable, "label", lambda i: _unprintable(spelling.labels[i]))
    problems.add("unparsable date", table, undated, "split_date", lambda i: not_a_date(dates[i]))
    return spelling, {name: DROPPED if bad[row] else row for name, row in first.items() if not unnamed[row]}


def _column(table: Table, name: str) -> Sequence[str]:
    """Return a column's cells; empty cells if there is no such column."""
    return table.columns[name] if name in table.columns else [""] * len(table.rows)


def _unprintable(label: str) -> str:
    return f"{quoted(label)} contains a control character; remove it"


def _too_much(patients: str, listed: DropCount, checkups: str, found: CheckUps) -> str:
    """Describe what would be dropped if it is too much; otherwise return ""."""
    if 2 * listed.dropped > listed.total:
        return f"{listed.dropped:,} of {listed.total:,} patients in {patients} would be left out"
    dropped, total = found.dropped_values
    if 2 * dropped > total:
        return f"{dropped:,} of {total:,} values in {checkups} would be left out"
    for name, (dropped, total) in found.dropped_by_indicator.items():
        if total >= _MIN_VALUES and 10 * dropped > 9 * total:
            return f"{dropped:,} of {total:,} values of {name} in {checkups} would be left out"
    return ""


def _find_checkups(folder: Path, labs: str | None, checkups: str | None, command: str) -> tuple[Path, bool]:
    """Return the path of the check-ups and whether the table is long; see ``_find``."""
    if labs is not None and checkups is not None:
        raise CohortError(f"--labs-file {labs} (long) and --checkups-file {checkups} (wide) exclude each other")
    if labs is not None:
        return _find(folder, "labs", labs, command), True
    if checkups is not None:
        return _find(folder, "checkups", checkups, command), False
    long, wide = _with_stem(folder, "labs"), _with_stem(folder, "checkups")
    if long and wide:
        raise CohortError(
            f"{folder} has {long[0].name} (long) and {wide[0].name} (wide); choose one: "
            f"`pmlm {command} --labs-file {long[0].name}` or `--checkups-file {wide[0].name}`"
        )
    if not long and not wide:
        raise CohortError(
            f"{folder} has neither labs.csv (long) nor checkups.csv (wide), nor a .parquet of either name; "
            f"name the file with `pmlm {command} --labs-file` or `--checkups-file`. {_files_found(folder)}"
        )
    return _find(folder, "labs" if long else "checkups", None, command), bool(long)


def _find(folder: Path, stem: str, name: str | None, command: str) -> Path:
    """Return the path of the named file or, without a name, of the one with the stem; messages name the command."""
    if not folder.is_dir():
        raise CohortError(f"there is no folder {folder}")
    if name is None:
        paths = _with_stem(folder, stem)
        if len(paths) > 1:
            raise CohortError(
                f"{folder} has {' and '.join(path.name for path in paths)}; "
                f"choose one: `pmlm {command} --{stem}-file {paths[0].name}`"
            )
        if not paths:
            raise CohortError(
                f"{folder} has no {stem}.csv or {stem}.parquet; "
                f"name the file with `pmlm {command} --{stem}-file`. {_files_found(folder)}"
            )
        return paths[0]
    path = folder / name
    if path.suffix.lower() not in SUFFIXES:
        raise CohortError(f"--{stem}-file {quoted(name)}: the name must end in .csv or .parquet")
    if not path.is_file():
        raise CohortError(f"{folder} has no file {quoted(name)}. {_files_found(folder)}")
    return path


def _with_stem(folder: Path, stem: str) -> list[Path]:
    return [path for path in (folder / f"{stem}{suffix}" for suffix in SUFFIXES) if path.is_file()]


def _files_found(folder: Path) -> str:
    names = sorted(path.name for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    return f"It has: {named(names)}" if names else "It has no CSV or Parquet file."
