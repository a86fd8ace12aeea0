"""The names, units and values of a cohort's tables in the words of this package: ``map.toml`` in its folder.

In every table of the file but ``[files]`` the left is what the tables have and the right is what it means::

    decimal = ","                            # decimal commas; by default as the numbers tell
    day_first = true                         # 01/02/2022 is February 1; by default as the dates tell

    [files]
    patients = "stays.xlsx"
    labs = "results.csv.gz"

    [columns]                                # of both files; [columns.patients] and [columns.checkups] of one
    PatNr = "patient_id"

    [indicators]
    "Hb (blood)" = "hgb"

    [units]                                  # of what has no unit in its row, by its name in the tables or its meaning
    hgb = "g/dL"

    [values]
    negative = 0
    "n. d." = ""                             # not measured

    [labels]
    "O24.4" = "gestational diabetes"
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from os.path import lexists
from pathlib import Path
from typing import Any

import numpy as np

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.parsing import has_value
from pmlm_env.cohort.sources.cells import Cells
from pmlm_env.cohort.sources.recognition import split_name
from pmlm_env.cohort.sources.table_files import Table
from pmlm_env.cohort.wording import folded, named, quoted, suggestion, tidy
from pmlm_env.io.toml import read_toml

MAP_FILE = "map.toml"
_FILES = ("patients", "labs", "checkups")
_SECTIONS = ("files", "columns", "indicators", "units", "values", "labels")
_NOT_MEASURED = "not measured"
#: Columns of a wide table that are not results.
_NO_RESULTS = ("patient_id", "date", "day")
#: Columns that tables of new patients need not have.
_NOT_OF_NEW_PATIENTS = ("label", "reference", "split_date")

Names = Mapping[str, str]


@dataclass(frozen=True)
class NameMap:
    """What ``map.toml`` says; without the file, nothing. Names are compared without letter case and width.

    Attributes:
        files: Names of the files ``patients``, ``labs`` and ``checkups``.
        patients_columns: Names of columns of the patients' table, folded -> meaning.
        checkups_columns: Names of columns of the table of check-ups, likewise.
        indicators: Names of indicators, likewise.
        units: Units of indicators that have none in their rows, by folded name. Without an entry, a name that has one
            in brackets ("CRP (mg/dL)") keeps it, whatever the name is translated to.
        values: Results, folded -> the numbers that they stand for as text; "" = not measured.
        labels: Labels, likewise.
        decimal: What marks the decimals; "" = as the numbers tell.
        day_first: Whether 01/02/2022 is February 1; None = as the dates tell.
    """

    files: Names = field(default_factory=dict)
    patients_columns: Names = field(default_factory=dict)
    checkups_columns: Names = field(default_factory=dict)
    indicators: Names = field(default_factory=dict)
    units: Names = field(default_factory=dict)
    values: Names = field(default_factory=dict)
    labels: Names = field(default_factory=dict)
    decimal: str = ""
    day_first: bool | None = None

    @classmethod
    def of(cls, folder: Path) -> NameMap:
        """Read the file in a cohort's folder, if there is one.

        Raises:
            CohortError: It is not valid; the message names the entry and what is allowed.
        """
        path = folder / MAP_FILE
        if not lexists(path):
            return cls()
        try:
            return _checked(read_toml(path))
        except CohortError as error:
            raise CohortError(f"{path}: {error}") from None
        except ValueError as error:
            raise CohortError(str(error)) from None

    def people(self, table: Table) -> Table:
        """Return the table of patients in the words of this package."""
        table = _renamed(table, self.patients_columns)
        columns = dict(table.columns)
        if "label" in columns:
            columns["label"] = _translated(columns["label"], self.labels)
        return replace(table, columns=columns, day_first=self.day_first)

    def records(self, table: Table, long: bool) -> Table:
        """Return the table of check-ups in the words of this package.

        Args:
            table: The table.
            long: Whether it is long.
        """
        table = _renamed(table, self.checkups_columns)
        columns, units, renamed = dict(table.columns), dict[str, str](), dict(table.renamed)
        if not long:
            columns, units = self._wide(table)
            pairs = zip(columns, table.columns, strict=True)
            renamed |= {meaning: table.called(name) for meaning, name in pairs if meaning != name}
        else:
            if "indicator" in columns:
                indicators = columns["indicator"]
                columns["indicator"] = _translated(indicators, self.indicators)
                if self.units or self.indicators:
                    columns["unit"] = self._with_units(table.column("unit"), indicators, columns["indicator"])
            if "value" in columns:
                # A row of a long table says that something was measured, so that an empty cell would be a problem.
                values = {name: text or _NOT_MEASURED for name, text in self.values.items()}
                columns["value"] = _translated(columns["value"], values)
        table = replace(table, columns=columns, units=units, renamed=renamed)
        return replace(table, decimal=self.decimal, day_first=self.day_first)

    def unused(self, people: Table, records: Table, long: bool, new_patients: bool = False) -> tuple[str, ...]:
        """Return a line on the entries for names that the tables, as read, do not have, and should have."""
        in_people, in_records = ({*map(_key, table.columns)} for table in (people, records))
        columns = {**self.patients_columns, **self.checkups_columns}
        may_be_missing = _NOT_OF_NEW_PATIENTS if new_patients else ()
        missing = [
            name for name, ours in columns.items() if name not in in_people | in_records and ours not in may_be_missing
        ]
        measured = {*map(_key, records.column(_before(self.checkups_columns, records, "indicator")).texts)}
        missing += [name for name in self.indicators if name not in (measured if long else in_records)]
        labels = {*map(_key, people.column(_before(self.patients_columns, people, "label")).texts)}
        missing += [] if new_patients else [name for name in self.labels if name not in labels]
        tests = measured if long else in_records
        meanings = {_key(meaning) for meaning in (*self.indicators.values(), *self.checkups_columns.values())}
        missing += [name for name in self.units if name not in tests | meanings]
        results = (
            [records.column(_before(self.checkups_columns, records, "value"))] if long else records.columns.values()
        )
        texts = {_key(text) for cells in results for text in cells.texts} if self.values else set()
        missing += [] if new_patients else [name for name in self.values if name not in texts]
        return (f"names in {MAP_FILE} that the tables do not have: {named(missing)}",) if missing else ()

    def _wide(self, table: Table) -> tuple[dict[str, Cells], dict[str, str]]:
        columns: dict[str, Cells] = {}
        units: dict[str, str] = {}
        for name, cells in table.columns.items():
            if name in _NO_RESULTS:
                columns[name] = cells
                continue
            meaning = self.indicators.get(_key(name), name)
            if meaning in columns:
                raise CohortError(f"{MAP_FILE} gives two columns of {table.name} the name {quoted(meaning)}: keep one")
            columns[meaning] = _translated(cells, self.values)
            if unit := self._unit(table.called(name), meaning):
                units[meaning] = unit
        return columns, units

    def _with_units(self, units: Cells, names: Cells, meanings: Cells) -> Cells:
        """Return a column of units in which blank cells have the units of ``self.units``."""
        known = [
            self._unit(name, meanings.texts[code])
            for name, code in zip(names.texts, _first_codes(names, meanings), strict=True)
        ]
        blank = units.spread(~has_value(units.texts))
        texts = [*units.texts, *known]
        own = names.codes + np.int32(len(units.texts))
        filled = np.where(blank & names.spread(np.array([bool(unit) for unit in known])), own, units.codes)
        return Cells(texts, filled.astype(np.int32)).renamed(texts).take(np.arange(len(filled)))

    def _unit(self, name: str, meaning: str) -> str:
        """Return the unit of what has none in its row: as an entry says, or the one in a name that is translated."""
        stated = split_name(name).unit if name != meaning else ""
        return self.units.get(_key(name)) or self.units.get(_key(meaning)) or stated


def _first_codes(names: Cells, meanings: Cells) -> list[int]:
    """Return the code of the meaning of each distinct name."""
    codes = np.zeros(len(names.texts), dtype=np.int32)
    codes[names.codes] = meanings.codes
    return codes.tolist()


def _key(text: str) -> str:
    return folded(tidy(text))


def _translated(cells: Cells, names: Names) -> Cells:
    return cells.renamed(names.get(_key(text), text) for text in cells.texts) if names else cells


def _before(names: Names, table: Table, meaning: str) -> str:
    """Return the name that a column had before ``_renamed``."""
    return next((name for name in table.columns if names.get(_key(name), name) == meaning), meaning)


def _renamed(table: Table, names: Names) -> Table:
    """Return a table with the meanings of its columns as their names.

    Raises:
        CohortError: Two columns have the same meaning.
    """
    columns: dict[str, Cells] = {}
    renamed: dict[str, str] = {}
    for name, cells in table.columns.items():
        meaning = names.get(_key(name), name)
        if meaning in columns:
            raise CohortError(f"{MAP_FILE} gives two columns of {table.name} the name {quoted(meaning)}: keep one")
        columns[meaning] = cells
        if meaning != name:
            renamed[meaning] = name
    return replace(table, columns=columns, renamed=renamed)


def _checked(content: Mapping[str, Any]) -> NameMap:
    """Return the map of a TOML file.

    Raises:
        CohortError: An entry is unknown or has a value of another type.
    """
    _check_keys("", content, (*_SECTIONS, "decimal", "day_first"))
    decimal, day_first = content.get("decimal", ""), content.get("day_first")
    if decimal not in ("", ".", ","):
        raise CohortError(f'decimal is {quoted(str(decimal))}: use "." or ","')
    if day_first is not None and not isinstance(day_first, bool):
        raise CohortError(f"day_first is {quoted(str(day_first))}: use true or false")
    sections = {name: content.get(name, {}) for name in _SECTIONS}
    for name, section in sections.items():
        if not isinstance(section, dict):
            raise CohortError(f"{name} is {quoted(str(section))}: use a table, [{name}]")
    _check_keys("[files] ", sections["files"], _FILES)
    both = {name: value for name, value in sections["columns"].items() if not isinstance(value, dict)}
    of_one = {name: value for name, value in sections["columns"].items() if isinstance(value, dict)}
    _check_keys("[columns] ", of_one, ("patients", "checkups"))
    return NameMap(
        files=_texts("files", sections["files"]),
        patients_columns=_names("columns", both | of_one.get("patients", {})),
        checkups_columns=_names("columns", both | of_one.get("checkups", {})),
        indicators=_names("indicators", sections["indicators"]),
        units=_names("units", sections["units"]),
        values=_names("values", sections["values"]),
        labels=_names("labels", sections["labels"]),
        decimal=decimal,
        day_first=day_first,
    )


def _check_keys(where: str, content: Iterable[str], known: tuple[str, ...]) -> None:
    for key in content:
        if key not in known:
            raise CohortError(f"{where}there is no key {quoted(key)}{suggestion(key, known)}: use {', '.join(known)}")


def _names(section: str, content: Mapping[str, Any]) -> Names:
    return {_key(name): text for name, text in _texts(section, content).items()}


def _texts(section: str, content: Mapping[str, Any]) -> Names:
    allowed: tuple[type, ...] = (str, int, float) if section == "values" else (str,)
    for name, value in content.items():
        if not isinstance(value, allowed) or isinstance(value, bool):
            what = 'a number, or "" for not measured' if section == "values" else "text"
            raise CohortError(f"[{section}] {quoted(name)} is {quoted(str(value))}: use {what}")
    return {name: value if isinstance(value, str) else _unmarked(value) for name, value in content.items()}


def _unmarked(number: float) -> str:
    """Return a number without a decimal mark, because the table's numbers decide which is used: 7.4 is 74e-1."""
    sign, digits, exponent = Decimal(repr(number)).as_tuple()
    text = f"{'-' if sign else ''}{''.join(map(str, digits))}"
    return f"{text}e{exponent}" if exponent else text
