"""Reading a cohort from a folder of CSV, Parquet or Excel files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from os.path import lexists
from pathlib import Path

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.schema import OBSTETRIC, Cohort, Schema
from pmlm_env.cohort.sources.assembly import Reading, assemble
from pmlm_env.cohort.sources.formats import SUFFIXES, read_table, suffix_of
from pmlm_env.cohort.sources.mapping import MAP_FILE, NameMap
from pmlm_env.cohort.sources.parts import joined
from pmlm_env.cohort.sources.report import ReadReport
from pmlm_env.cohort.wording import named, no_folder, quoted

#: The folder in a cohort's folder in which parts are written until all are complete.
UNFINISHED = "parts-unfinished"

#: What else a file that is not found can be named with.
_OR_MAP = "or say in map.toml which file and columns are which (docs/cohort-format.md)"


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
    keep_later: bool = False,
    encoding: str | None = None,
) -> tuple[Cohort, ReadReport]:
    """Read a cohort: a table of patients and one of check-ups, long or wide.

    The tables are CSV, Parquet or Excel workbooks. Cells of CSV are separated by commas, semicolons, tabs or vertical
    bars, as the header tells; CSV is UTF-8, or UTF-16 with a byte order mark, unless ``encoding`` names another.

    - patients: patient_id, label, reference, split_date; further columns go to ``Patient.extra``. The label and the
      reference of a new patient may be empty cells.
    - labs (long): patient_id, date, indicator, value and optionally unit and code.
    - checkups (wide): patient_id, date or day, and one column per indicator; an empty cell = not measured.

    Indicators have their names or synonyms of the schema, in any letter case; the report has those that differ from the
    names. A check-up is a calendar day; values measured several times in a day are averaged. Dates are YYYY-MM-DD, with
    or without a time of day, or of another form (docs/cohort-format.md). Identifiers are text: "007" stays "007". "Not
    measured" is an empty cell or a marker such as NA; "<0.5" is read as 0.5; "inf" and "12 g" are problems. Labels that
    differ only in letter case, whitespace or Unicode form are merged, in the schema's spelling if it has the label.
    Check-up rows of people who are not in the patients' table are left out and counted. Everything else is checked, and
    all problems are reported together. A large cohort may be in parts, the folders ``part-*`` in ``folder``; see
    ``read_parts``. There is no limit on the number of check-ups; later stages use the latest ``schema.max_checkups``.

    Args:
        folder: The folder of the files.
        schema: What the cohort measures and diagnoses; by default ``schema_in(folder)``, or else it is inferred.
        patients: Name of the patients' file in ``folder``; by default patients.csv or another form.
        labs: Name of a long table; by default labs.csv or another form, if present.
        checkups: Name of a wide table; by default checkups.csv or another form, if present.
        references: Whether the reference column is required; its cells may be empty in any case.
        new_patients: Whether the patients are new, so that their label, reference, and split_date may be missing, as
            columns or as cells.
        drop_bad_rows: Leave out and count bad rows, and bad single values of a wide table, instead of raising; but
            never more than half of the patients or of the values, nor more than nine tenths of an indicator's values.
        keep_later: Keep check-ups after a patient's index date (split_date), which are otherwise left out and counted.
        encoding: The encoding of CSV and TSV files, such as gb18030 or cp1252; None = UTF-8 or UTF-16.

    Returns:
        The cohort, with patients in file order and check-ups sorted by date, and a report of what was left out.
        Patients without any value are left out and named in the report and in one logged warning. A missing split_date
        is NaT.

    Raises:
        CohortError: The folder's schema is not valid; a file or column is missing; there are problems and
            ``drop_bad_rows`` is false, or too many problems; or no patient has a check-up.
    """
    folder = Path(folder)
    schema = schema or schema_in(folder)
    reading = Reading(references, new_patients, drop_bad_rows, keep_later)
    files = {"patients": patients, "labs": labs, "checkups": checkups}
    return read_tables(folder, schema, reading=reading, encoding=encoding, **files)


def read_parts(
    folder: str | PathLike[str],
    schema: Schema | None = None,
    *,
    references: bool = True,
    new_patients: bool = False,
    drop_bad_rows: bool = False,
    keep_later: bool = False,
    encoding: str | None = None,
) -> Iterator[tuple[Cohort, ReadReport]]:
    """Read a cohort part by part, for patients who do not all fit into memory: one part is in memory at a time.

    The parts are the folders ``part-*`` in ``folder``, in order of their names, each with the tables of some patients
    (``read_cohort``); a folder without such folders is one part, and one with tables or map.toml beside them is an
    error. All have the same schema, that of the first part unless there is another.

    Args:
        folder: The folder of the parts.
        schema: As ``read_cohort``.
        references: As ``read_cohort``.
        new_patients: As ``read_cohort``.
        drop_bad_rows: As ``read_cohort``; the limits on what may be left out are on each part.
        keep_later: As ``read_cohort``.
        encoding: As ``read_cohort``.

    Yields:
        The patients of a part, and what was left out of it. The spelling of labels that are not in the schema is
        unified within each part.

    Raises:
        CohortError: As ``read_cohort``, for a part; or a part has another schema than the first one, or a patient of an
            earlier part.
    """
    folder = Path(folder)
    reading = Reading(references, new_patients, drop_bad_rows, keep_later)
    yield from _each_part(folder, schema or schema_in(folder), reading, {}, encoding)


def read_tables(
    folder: Path,
    schema: Schema | None,
    *,
    reading: Reading,
    patients: str | None = None,
    labs: str | None = None,
    checkups: str | None = None,
    encoding: str | None = None,
) -> tuple[Cohort, ReadReport]:
    """Read a cohort as the built-in source ``tables``; see ``read_cohort``.

    Args:
        folder: The folder of the files.
        schema: What the cohort measures and diagnoses; None = inferred from the tables.
        reading: How to read them.
        patients: Name of the patients' file.
        labs: Name of a long table.
        checkups: Name of a wide table.
        encoding: The encoding of CSV and TSV files; None = UTF-8.

    Raises:
        CohortError: As ``read_cohort``.
    """
    if part_folders(folder):
        files = {"patients": patients, "labs": labs, "checkups": checkups}
        return joined(_each_part(folder, schema, reading, files, encoding))
    names = NameMap.of(folder)
    if labs is None and checkups is None:
        labs, checkups = names.files.get("labs"), names.files.get("checkups")
    patients_path = _find(folder, "patients", patients or names.files.get("patients"))
    checkups_path, long = _find_checkups(folder, labs, checkups)
    people, records = read_table(patients_path, encoding), read_table(checkups_path, encoding)
    notes = names.unused(people, records, long, reading.new_patients)
    people, records = names.people(people), names.records(records, long)
    try:
        return assemble(folder, people, records, schema, reading, long=long, notes=notes)
    except CohortError as error:  # a name that is written wrongly in the map may be the reason
        raise CohortError("\n".join([str(error), *notes])) from None


def _each_part(
    folder: Path, schema: Schema | None, reading: Reading, files: Mapping[str, str | None], encoding: str | None
) -> Iterator[tuple[Cohort, ReadReport]]:
    """Read a cohort part by part; see ``read_parts``."""
    seen: set[str] = set()
    common = schema
    for part in part_folders(folder) or [folder]:
        own = schema or schema_in(part)
        if own not in (common, None) and common is not None:
            raise CohortError(f"{part} has another schema than the first part: put one schema into {folder}")
        try:
            cohort, report = read_tables(part, common or own, reading=reading, encoding=encoding, **files)
        except CohortError as error:  # a message that only names a table would leave open of which part
            raise CohortError(str(error) if str(part) in str(error) else f"{part}: {error}") from None
        common = cohort.schema
        if twice := next((patient.patient_id for patient in cohort if patient.patient_id in seen), None):
            raise CohortError(f"{part}: patient {quoted(twice)} is in an earlier part already; keep one")
        seen.update(patient.patient_id for patient in cohort)
        yield cohort, report
        del cohort  # before the next part is read


def part_folders(folder: Path) -> list[Path]:
    """Return the folders of a cohort's parts, in order.

    Raises:
        CohortError: The folder has tables or map.toml beside them, or writing the parts was stopped.
    """
    if (folder / UNFINISHED).exists():
        raise CohortError(
            f"{folder} is incomplete: wait if another command is writing it; if that was stopped, remove {folder} and "
            "write it again"
        )
    parts = sorted(path for path in folder.glob("part-*") if path.is_dir())
    if parts and (files := files_of_tables(folder)):
        raise CohortError(
            f"{folder} has {files[0]} and {parts[0].name}: remove the tables or the parts; {MAP_FILE} of a cohort in "
            "parts belongs into each part"
        )
    return parts


def files_of_tables(folder: Path) -> list[str]:
    """Return the names of the tables and of ``map.toml`` in a folder; hidden files and Excel's locks are no tables."""
    tables = sorted(path.name for path in folder.glob("[!.~]*") if suffix_of(path) and path.is_file())
    return [*tables, *([MAP_FILE] if lexists(folder / MAP_FILE) else [])]


def schema_in(folder: Path) -> Schema | None:
    """Return the schema in a cohort's folder, schema.toml or schema.json; None if it has none.

    Raises:
        CohortError: The schema is not valid, or there are both files.
    """
    files = [path for path in (folder / "schema.toml", folder / "schema.json") if lexists(path)]
    if len(files) > 1:
        raise CohortError(f"{folder} has schema.toml and schema.json: remove one")
    try:
        return Schema.load(files[0]) if files else None
    except ValueError as error:
        raise CohortError(str(error)) from None


def schema_of(folder: Path) -> Schema:
    """Return the schema in a cohort's folder; ``obstetric`` if it has none.

    Raises:
        CohortError: As ``schema_in``.
    """
    return schema_in(folder) or Schema.load(OBSTETRIC)


def _find_checkups(folder: Path, labs: str | None, checkups: str | None) -> tuple[Path, bool]:
    """Return the path of the check-ups and whether the table is long; see ``_find``."""
    if labs is not None and checkups is not None:
        raise CohortError(f"--labs-file {labs} (long) and --checkups-file {checkups} (wide) exclude each other")
    if labs is not None:
        return _find(folder, "labs", labs), True
    if checkups is not None:
        return _find(folder, "checkups", checkups), False
    long, wide = with_stem(folder, "labs"), with_stem(folder, "checkups")
    if long and wide:
        raise CohortError(
            f"{folder} has {long[0].name} (long) and {wide[0].name} (wide); choose one: "
            f"--labs-file {long[0].name} or --checkups-file {wide[0].name}"
        )
    if not long and not wide:
        raise CohortError(
            f"{folder} has neither labs.csv (long) nor checkups.csv (wide), nor another form of either name; "
            f"name the file with --labs-file or --checkups-file, {_OR_MAP}. {_files_found(folder)}"
        )
    return _find(folder, "labs" if long else "checkups", None), bool(long)


def _find(folder: Path, stem: str, name: str | None) -> Path:
    """Return the path of the named file or, without a name, of the one with the stem."""
    if not folder.is_dir():
        raise CohortError(no_folder(folder))
    if name is None:
        paths = with_stem(folder, stem)
        if len(paths) > 1:
            raise CohortError(
                f"{folder} has {' and '.join(path.name for path in paths)}; choose one: --{stem}-file {paths[0].name}"
            )
        if not paths:
            raise CohortError(
                f"{folder} has no {stem}.csv, nor {stem}.parquet or another form; "
                f"name the file with --{stem}-file, {_OR_MAP}. {_files_found(folder)}"
            )
        return paths[0]
    path = folder / name
    if not suffix_of(path):
        raise CohortError(f"--{stem}-file {quoted(name)}: the name must end in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise CohortError(f"{folder} has no file {quoted(name)}. {_files_found(folder)}")
    return path


def with_stem(folder: Path, stem: str) -> list[Path]:
    """Return the files of this name in a folder, in any form that is read."""
    return [path for path in (folder / f"{stem}{suffix}" for suffix in SUFFIXES) if path.is_file()]


def _files_found(folder: Path) -> str:
    names = sorted(path.name for path in folder.glob("*") if suffix_of(path))
    return f"It has: {named(names)}" if names else "It has no table (CSV, TSV, Parquet or Excel)."
