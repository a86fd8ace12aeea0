"""The results of a data set: whose they are, and how many were left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.schema import Cohort, Schema
from pmlm_env.cohort.sources.assembly import Reading, assemble
from pmlm_env.cohort.sources.cells import Cells
from pmlm_env.cohort.sources.data_folder import DataFolder
from pmlm_env.cohort.sources.histories import PatientTable, Person, StayFinder, moment_of
from pmlm_env.cohort.sources.report import ReadReport
from pmlm_env.cohort.sources.results import decimal_mark
from pmlm_env.cohort.sources.streams import Columns
from pmlm_env.cohort.sources.table_files import Table
from pmlm_env.cohort.wording import tally

if TYPE_CHECKING:
    import pyarrow as pa

#: Columns of a batch of results. ``person`` and ``stay`` are identifiers; the others are as in a long table.
COLUMNS = ("person", "stay", "date", "indicator", "value", "unit", "code")
#: A number, or a limit of detection.
NUMBER = r"^\s*(?:[<>≤≥]=?\s*)?[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?\s*$"
#: Characters that are kept of a result: a schema's words have no more.
_LONGEST = 200
#: Why results are left out.
UNDATED, UNNAMED, EMPTY = "without a date", "without the name of a test", "without a value"
#: The kinds that mean that the files are damaged, or that the reader misunderstands them.
_FAULTS = (UNDATED, UNNAMED)


class Measurements:
    """Collects the results of the chosen people, batch by batch.

    Args:
        name: What the data set calls its results, for messages.
        people: The chosen people; results of others are left out. ``Person.last`` is kept up to date.

    Attributes:
        left_out: Why results of the chosen people were left out -> how many.
        strangers: Number of results of others.
    """

    def __init__(self, name: str, people: Mapping[str, Person]) -> None:
        """Start without results."""
        self.name = name
        self.left_out: Counter[str] = Counter()
        self.strangers = 0
        self._people = people
        self._columns = Columns(COLUMNS)

    def add(self, batch: Mapping[str, Any]) -> None:
        """Append results: numbers, limits of detection, and words, to which a schema may give numbers.

        Args:
            batch: The ``COLUMNS``, each a sequence of text or an Arrow array of text without null; ``stay``, ``unit``
                and ``code`` may be missing.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        n = len(batch["person"])
        table = pa.table({name: _text(batch[name]) if name in batch else pa.repeat("", n) for name in COLUMNS})
        table = table.filter(pc.is_in(table["person"], pa.array(list(self._people), pa.string())))
        self.strangers += n - len(table)
        for kind, column in ((UNDATED, "date"), (UNNAMED, "indicator"), (EMPTY, "value")):
            good = table.filter(pc.match_substring_regex(table[column], r"\S"))
            self.left_out[kind] += len(table) - len(good)
            table = good
        latest = table.group_by("person").aggregate([("date", "max")])
        for name, date in zip(latest["person"].to_pylist(), latest["date_max"].to_pylist(), strict=True):
            self._people[name].last = max(self._people[name].last, date)
        table = table.set_column(
            COLUMNS.index("value"), "value", pc.utf8_slice_codeunits(table["value"], 0, _LONGEST + 1)
        )
        self._columns.add({name: table[name] for name in COLUMNS})

    def records(self, patients: PatientTable) -> Table:
        """Return the results of the patients as a long table; those of others are left out and counted.

        Raises:
            CohortError: More than half of the results of the chosen people have a fault.
        """
        faulty = {kind: self.left_out[kind] for kind in _FAULTS if self.left_out[kind]}
        total = self._columns.n_rows + self.left_out.total()
        if 2 * sum(faulty.values()) > total:
            raise CohortError(
                f"{self.name}: {sum(faulty.values()):,} of {total:,} results of the chosen people would be left out "
                f"({tally(faulty)}): that is too much to drop; check the files"
            )
        cells = self._columns.cells()
        ours = np.array([name in self._people for name in cells["person"].texts], dtype=np.bool_)
        if not ours.all():  # people may have been found to be strangers, or not drawn, only later
            inside = cells["person"].spread(ours)
            self.strangers += int(np.sum(~inside))
            cells = {name: column.take(inside) for name, column in cells.items()}
        if patients.unit == "moment":
            cells = _up_to(cells, patients)
        ids = cells["stay"] if patients.unit == "moment" else cells["person"]
        if patients.unit == "stay":
            ids = self._stays(cells)
        listed = set(patients.columns["patient_id"])
        kinds = np.array([0 if text in listed else 2 if text else 1 for text in ids.texts], dtype=np.int8)
        found = kinds[ids.codes]
        self.left_out["outside any stay"] += int(np.sum(found == 1))
        self.left_out["of patients who were left out"] += int(np.sum(found == 2))
        used = found == 0
        columns = {"patient_id": ids.take(used)}
        columns |= {name: cells[name].take(used) for name in COLUMNS[2:]}
        # Only if no result has a decimal point: one garbled text must not make thousands of the others' 1.234.
        mark = "," if decimal_mark([columns["value"].texts]) == "," else "."
        return replace(Table.made(self.name, columns), row_word="result", decimal=mark)

    def line(self, used: int) -> str:
        """Return how many results were left out and why; "" if none were.

        Args:
            used: How many were not.
        """
        left_out = Counter({kind: n for kind, n in self.left_out.items() if n})
        if self.strangers:
            left_out["of other people"] = self.strangers
        if not left_out:
            return ""
        kinds = tally(dict(left_out.most_common()))
        return f"{self.name}: {used:,} of {used + left_out.total():,} results are of the patients; left out: {kinds}"

    def _stays(self, cells: Mapping[str, Cells]) -> Cells:
        """Return the stay of each result; where the result does not name it, the person's stay at that time."""
        stays = cells["stay"]
        unnamed = np.flatnonzero(np.array([not text for text in stays.texts], dtype=np.bool_)[stays.codes])
        if not len(unnamed):
            return stays
        finder = StayFinder(self._people)
        persons, dates = cells["person"].take(unnamed), cells["date"].take(unnamed)
        found = Cells.of(map(finder.find, persons, dates))
        codes = stays.codes.copy()
        codes[unnamed] = found.codes + len(stays.texts)
        return Cells([*stays.texts, *found.texts], codes)


def _up_to(cells: Mapping[str, Cells], patients: PatientTable) -> dict[str, Cells]:
    """Return the results of each patient's person up to the patient's moment; a person may be several patients.

    A result or a moment without a time of day is of the whole day.
    """
    order = np.argsort(cells["person"].codes, kind="stable")
    starts = np.searchsorted(cells["person"].codes[order], np.arange(len(cells["person"].texts) + 1))
    position = {name: number for number, name in enumerate(cells["person"].texts)}
    times = [moment_of(text) for text in cells["date"].texts]
    rows, owners = [np.empty(0, dtype=np.intp)], [np.empty(0, dtype=np.int32)]
    for number, (person, end) in enumerate(zip(patients.columns["person_id"], patients.ends, strict=True)):
        if (place := position.get(person)) is None:
            continue
        of_person = order[starts[place] : starts[place + 1]]
        own = (times[code] for code in cells["date"].codes[of_person].tolist())
        of_patient = of_person[np.array([time[: len(end)] <= end[: len(time)] for time in own], dtype=np.bool_)]
        rows.append(of_patient)
        owners.append(np.full(len(of_patient), number, dtype=np.int32))
    found = {name: column.take(np.concatenate(rows)) for name, column in cells.items()}
    return found | {"stay": Cells(list(patients.columns["patient_id"]), np.concatenate(owners))}


def finish(
    folder: Path,
    patients: PatientTable,
    results: Measurements,
    files: Iterable[DataFolder],
    notes: Iterable[str],
    schema: Schema | None,
    reading: Reading,
) -> tuple[Cohort, ReadReport]:
    """Make the cohort of the patients and their results.

    Bad rows are left out and counted, as with ``Reading.drop_bad_rows``, because the files of a published data set are
    not the user's to correct.

    Args:
        folder: The data set.
        patients: The patients.
        results: The results.
        files: The folders whose tables were read, to report the damaged rows of all of them.
        notes: Further lines for the report.
        schema: What the cohort measures; None = inferred.
        reading: How to read it.

    Raises:
        CohortError: As ``assemble``, or too many results have a fault.
    """
    records = results.records(patients)
    damaged = [
        f"{each.name}: rows with too few or too many cells, left out: {each.malformed:,}"
        for each in (table for folder in files for table in folder.tables.values())
        if each.malformed
    ]
    lines = [*notes, *patients.notes, results.line(len(records.rows)), *damaged]
    people = Table.made("the patients", patients.columns)
    return assemble(
        folder,
        people,
        records,
        schema,
        replace(reading, drop_bad_rows=True, published=True),
        notes=[line for line in lines if line],
    )


def _text(values: Any) -> pa.Array | pa.ChunkedArray:
    import pyarrow as pa

    if not isinstance(values, (pa.Array, pa.ChunkedArray)):
        return pa.array(values, pa.string())
    return values if pa.types.is_string(values.type) else values.cast(pa.string())
