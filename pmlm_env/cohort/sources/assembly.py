"""Making a cohort of a table of patients and a table of check-ups: where all sources meet."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.parsing import has_value, is_given, parse_datetimes
from pmlm_env.cohort.schema import Cohort, Patient, Schema
from pmlm_env.cohort.sources.cells import Scalar
from pmlm_env.cohort.sources.checks import Problems, require
from pmlm_env.cohort.sources.checkups import from_long, from_wide, not_a_date
from pmlm_env.cohort.sources.daily import DROPPED, CheckUps, DropCount
from pmlm_env.cohort.sources.inference import recognized
from pmlm_env.cohort.sources.labels import LabelSpellings, unify_spelling
from pmlm_env.cohort.sources.report import ReadReport
from pmlm_env.cohort.sources.table_files import Table
from pmlm_env.cohort.wording import SHOWN, named, plain, quoted
from pmlm_env.io.text import printable

PATIENT_COLUMNS = ("patient_id", "label", "reference", "split_date")
PERSON_COLUMN = "person_id"
#: Columns that must not be there under a similar name: with Person_ID unread, a person would be in train and in test.
_NAMED_COLUMNS = (*PATIENT_COLUMNS, PERSON_COLUMN, "split")
#: All values of an indicator may be dropped if it has fewer than these.
_MIN_VALUES = 10

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """How a cohort is read, whatever its source.

    Attributes:
        references: Whether the reference column is required; its cells may be empty in any case.
        new_patients: Whether the patients are new, so that their label, reference, and split_date may be missing, as
            columns or as cells.
        drop_bad_rows: Leave out and count bad rows, and bad single values of a wide table, instead of raising; but
            never more than half of the patients or of the values, nor more than nine tenths of an indicator's values.
        keep_later: Keep check-ups after a patient's index date (split_date), which are otherwise left out and counted:
            they were not known yet.
        published: Whether the files are those of a data set that the user cannot correct.
    """

    references: bool = True
    new_patients: bool = False
    drop_bad_rows: bool = False
    keep_later: bool = False
    published: bool = False


def assemble(
    folder: Path,
    people: Table,
    records: Table,
    schema: Schema | None,
    reading: Reading,
    *,
    long: bool = True,
    notes: Sequence[str] = (),
) -> tuple[Cohort, ReadReport]:
    """Check two tables and make a cohort of them.

    Args:
        folder: Where they come from, for messages.
        people: patient_id, label, reference, split_date and optionally person_id; further columns go to
            ``Patient.extra``.
        records: patient_id, date, indicator, value and optionally unit and code; or, if not ``long``, patient_id, date
            or day, and one column per indicator.
        schema: What the cohort measures and diagnoses; None = inferred from the tables.
        reading: How to read them.
        long: The form of ``records``.
        notes: Lines for the report, of what the source left out or converted.

    Returns:
        The cohort, with patients in the table's order and check-ups sorted by date, and a report of what was left out.

    Raises:
        CohortError: A column is missing; there are problems and ``reading.drop_bad_rows`` is false, or too many
            problems; or no patient has a check-up.
    """
    problems, forgiving = Problems(), schema is None and reading.published
    schema, records, found_out = recognized(
        people, records, schema, long, published=reading.published, new_patients=reading.new_patients
    )
    notes = (*notes, *found_out)
    spelling, index = _check_patients(people, reading, schema, problems)
    problems.add_malformed(records)
    found = (from_long if long else from_wide)(records, index, schema, problems)
    if problems.counts and not reading.drop_bad_rows:
        advice = "Correct the files, or leave out the bad rows with --drop-bad-rows."
        raise CohortError(f"{problems.message(folder)}\n{advice}")
    rows = [row for row in index.values() if row != DROPPED]
    listed = len(people.rows) + len(people.malformed)
    if too_much := _too_much(people.name, DropCount(listed - len(rows), listed), records.name, found, forgiving):
        lines = [problems.message(folder)] if problems.counts else []
        if words := found.forms.words:
            lines.append(f"{words.total():,} results in {records.name} are no numbers, such as {named(words)}")
        raise CohortError("\n".join([*lines, f"{too_much}; correct the files: that is too much to drop."]))
    if not len(found.patient):
        dropped_message = f"\nWhat was dropped: {problems.message(folder)}" if problems.counts else ""
        outside = f" {found.outside_rows:,} rows are of people who are not in it." if found.outside_rows else ""
        raise CohortError(
            f"{records.name} has no check-up with a value of any patient in {people.name}.{outside}{dropped_message}"
        )

    split_dates = _spread(people, "split_date", partial(parse_datetimes, day_first=people.day_first)).astype(
        "datetime64[D]"
    )
    after = found.day > split_dates[found.patient]
    n_after, people_after = int(found.counts[after].sum()), len(np.unique(found.patient[after]))
    if n_after and not reading.keep_later:
        found = found.take(~after)
    if not len(found.patient):
        raise CohortError(
            f"all {n_after:,} values in {records.name} are after their patients' index dates (split_date in "
            f"{people.name}): correct the dates, or keep the values with --keep-later"
        )
    starts = np.searchsorted(found.patient, rows, side="left")
    ends = np.searchsorted(found.patient, rows, side="right")
    extra = [name for name in people.columns if name not in (*PATIENT_COLUMNS, PERSON_COLUMN)]
    ids = [name.strip() for name in people.columns["patient_id"]]
    replies, answered = people.column("reference"), _spread(people, "reference", has_value)
    persons, known = people.column(PERSON_COLUMN), _spread(people, PERSON_COLUMN, has_value)
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
                person_id=persons[row].strip() if known[row] else "",
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
    report = ReadReport(
        patients=len(cohort),
        checkups=cohort.n_checkups,
        values=int(found.counts.sum()),
        values_after_index=n_after,
        patients_after_index=people_after,
        kept_later=reading.keep_later,
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
        limits=found.forms.limits,
        flagged=found.forms.flagged,
        coded=found.forms.coded,
        words=found.forms.words.total(),
        frequent_words=dict(found.forms.words.most_common(SHOWN)),
        decimal_comma=found.forms.decimal_comma,
        converted=found.converted,
        notes=tuple(notes),
    )
    return cohort, report


def _check_patients(
    table: Table, reading: Reading, schema: Schema, problems: Problems
) -> tuple[LabelSpellings, dict[str, int]]:
    """Return the labels, and patient_id -> row of the table, or ``DROPPED`` if that row has a problem."""
    may_be_missing = (
        ("label", "reference", "split_date") if reading.new_patients else () if reading.references else ("reference",)
    )
    needed = [name for name in PATIENT_COLUMNS if name not in may_be_missing]
    require(table, needed, _NAMED_COLUMNS, "The label and the reference of a new patient may be empty cells.")
    problems.add_malformed(table)
    ids, dates = [name.strip() for name in table.columns["patient_id"]], table.column("split_date")

    unnamed = ~_spread(table, "patient_id", has_value)
    problems.add("missing patient_id", table, unnamed, "patient_id", lambda i: "the cell is empty; name the patient")
    labels = table.column("label")
    spelling = unify_spelling(
        [*labels.renamed(text if is_given(text, words=True) else "" for text in labels.texts)],
        known=[label.name for label in schema.labels],
    )
    unprintable = np.array([printable(label) != label for label in spelling.labels], dtype=np.bool_)
    undated = np.isnat(_spread(table, "split_date", partial(parse_datetimes, day_first=table.day_first)))
    undated &= _spread(table, "split_date", has_value) | (not reading.new_patients)
    alike = _other_spellings(table, ids)
    doubtful = np.array([bool(name) for name in alike], dtype=np.bool_)
    bad = unnamed | unprintable | undated | doubtful
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
    persons = table.column(PERSON_COLUMN)
    problems.add(
        "person with two spellings",
        table,
        doubtful,
        PERSON_COLUMN,
        lambda i: f"{quoted(persons[i].strip())} may be the person {quoted(alike[i])}; write each person in one way",
    )
    return spelling, {name: DROPPED if bad[row] else row for name, row in first.items() if not unnamed[row]}


def _other_spellings(table: Table, ids: Sequence[str]) -> list[str]:
    """Return, for each row, the person of an earlier row whom spreadsheets may have made of its person; "" = nobody.

    Two such persons, as 007 and 7, are most likely one, whose stays would be in train and in test.
    """
    if PERSON_COLUMN not in table.columns:
        return [""] * len(ids)
    given = _spread(table, PERSON_COLUMN, has_value)
    first: dict[str, str] = {}
    found = []
    for name, person, own in zip(ids, table.column(PERSON_COLUMN), given.tolist(), strict=True):
        spelled = person.strip() if own else name
        known = first.setdefault(plain(spelled), spelled)
        found.append(known if own and known != spelled else "")
    return found


def _spread(table: Table, column: str, per_text: Callable[[Sequence[str]], npt.NDArray[Scalar]]) -> npt.NDArray[Scalar]:
    """Return what a function of texts finds in each row of a column, which may be missing."""
    cells = table.column(column)
    return cells.spread(per_text(cells.texts))


def _unprintable(label: str) -> str:
    return f"{quoted(label)} contains a control character; remove it"


def _too_much(patients: str, listed: DropCount, checkups: str, found: CheckUps, forgiving: bool) -> str:
    """Describe what would be dropped if it is too much; otherwise return "".

    If ``forgiving``, all values of an indicator may be left out: an inferred schema may take it for another one, whose
    bounds its values do not meet.
    """
    if 2 * listed.dropped > listed.total:
        return f"{listed.dropped:,} of {listed.total:,} patients in {patients} would be left out"
    dropped, total = found.dropped_values
    if 2 * dropped > total:
        return f"{dropped:,} of {total:,} values in {checkups} would be left out"
    for name, (dropped, total) in found.dropped_by_indicator.items() if not forgiving else ():
        if total >= _MIN_VALUES and 10 * dropped > 9 * total:
            return f"{dropped:,} of {total:,} values of {name} in {checkups} would be left out"
    return ""
