"""Cohorts H = {X, Y, R}, and the schema of their values (paper, "Data").

``X`` are the check-ups, ``Y`` the labels, ``R`` the doctors' replies.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.indicator import MAX_BOUND, Indicator, check_indicator
from pmlm_env.cohort.patient_checks import as_days, as_values, check_text
from pmlm_env.cohort.schema_checks import check_name, checked_values
from pmlm_env.cohort.wording import folded, quoted, suggestion, tidy
from pmlm_env.core.labels import Label
from pmlm_env.io.checked_files import read_object
from pmlm_env.io.files import write_json
from pmlm_env.io.toml import MAX_BYTES, read_toml

#: The paper's cohort: 35 indicators, 12 labels.
OBSTETRIC = "obstetric"
#: The same in Chinese.
OBSTETRIC_ZH = "obstetric-zh"
#: Indicators that are common anywhere, without labels: the catalogue by which names in tables are recognized.
COMMON = "common"
#: Names of the schemas in this package.
SCHEMAS = (OBSTETRIC, OBSTETRIC_ZH, COMMON)

#: Limits of a schema. The last is on ``max_checkups`` times the number of indicators: the inputs of the patient
#: encoder, whose weights and inputs must fit into memory.
MAX_INDICATORS, MAX_LABELS, MAX_INPUTS = 2_000, 1_000, 100_000
MAX_IGNORED = 10_000
_MAX_CHECKUPS = 1_000
_LANGUAGE = re.compile("[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")
_FAMILY = re.compile("[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class Schema:
    """What a cohort measures and diagnoses.

    Attributes:
        indicators: The indicators; the columns of ``Patient.values``, in this order.
        labels: The labels whose aliases are known. Patients may have others.
        language: The language of the replies and prompts, as a BCP 47 tag.
        templates: The family of built-in prompt templates that suits these patients: ``general`` or ``obstetric``.
        max_checkups: The longest history that models use (the rows of Eq. 3); of more check-ups, the latest.
        ignored: Names in tables that are no indicators: their values are left out, and counted.

    Raises:
        ValueError: There is no indicator or are too many, two share a name or a synonym, an ignored name is one of
            theirs, two labels share a name (ignoring case), a bound is negative or the bounds are in the wrong order,
            or a value is empty, unprintable or out of range. The message names the entry, the value and what is
            allowed.
    """

    indicators: tuple[Indicator, ...]
    labels: tuple[Label, ...] = ()
    language: str = "en"
    templates: str = "general"
    max_checkups: int = 45
    ignored: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the values."""
        _check_number("indicators", len(self.indicators), 1, MAX_INDICATORS)
        _check_number("labels", len(self.labels), 0, MAX_LABELS)
        _check_number("ignored names", len(self.ignored), 0, MAX_IGNORED)
        if not 1 <= self.max_checkups <= _MAX_CHECKUPS:
            raise ValueError(f"max_checkups is {shortened(self.max_checkups)}: use 1 to {_MAX_CHECKUPS:,}")
        if self.max_checkups * len(self.indicators) > MAX_INPUTS:
            raise ValueError(
                f"max_checkups is {self.max_checkups:,}: with {len(self.indicators):,} indicators, use at most "
                f"{MAX_INPUTS // len(self.indicators):,}"
            )
        if not _LANGUAGE.fullmatch(self.language):
            raise ValueError(f"language is {quoted(self.language)}: use a BCP 47 tag, such as en or pt-BR")
        if not _FAMILY.fullmatch(self.templates):
            raise ValueError(f"templates is {quoted(self.templates)}: use lower-case letters, digits, - and _")
        owners: dict[str, str] = {}
        for number, indicator in enumerate(self.indicators, start=1):
            where = _entry("indicator", number, indicator.name)
            check_indicator(indicator, where)
            for key in dict.fromkeys(map(folded, (indicator.name, *indicator.synonyms))):
                if key in owners:
                    raise ValueError(f"{where}: {quoted(key)} is also a name of {owners[key]}: keep one")
                owners[key] = where
        for name in self.ignored:
            check_name("name", name, "ignored")
            if folded(name) in owners:
                raise ValueError(f"ignored: {quoted(name)} is a name of {owners[folded(name)]}: remove one of them")
        owners = {}
        for number, label in enumerate(self.labels, start=1):
            where = _entry("label", number, label.name)
            check_name("name", label.name, where)
            for alias in label.aliases:
                check_name("alias", alias, where)
            if (key := folded(label.name)) in owners:
                raise ValueError(f"{where}: {owners[key]} has the same name: keep one")
            owners[key] = where

    @classmethod
    def load(cls, name: str | os.PathLike[str]) -> Schema:
        """Read a schema.

        Args:
            name: One of ``SCHEMAS``, or the path of a .toml or .json file; see docs/schema.md.

        Raises:
            ValueError: There is no such schema, or it is not valid; the message names the file, the entry, the value
                found and what is allowed.
        """
        if name in SCHEMAS:
            return _built_in(str(name))
        path = Path(name)
        if path.suffix not in (".toml", ".json"):
            hint = suggestion(str(name), SCHEMAS)
            raise ValueError(
                f"there is no schema {quoted(str(name))}{hint}: use {', '.join(SCHEMAS)}, or a .toml or .json file"
            )
        if not path.is_file():
            raise ValueError(f"schema {path} {'is not a file' if path.exists() else 'does not exist'}")
        return _read(path)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the schema as JSON, which ``load`` reads back as an equal schema.

        Args:
            path: The file, which is replaced atomically; its name ends in .json.

        Raises:
            ValueError: The name does not end in .json.
        """
        path = Path(path)
        if path.suffix != ".json":
            raise ValueError(f"cannot save a schema as {path}: the name must end in .json")
        write_json(path, _plain(self))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The indicators' names."""
        return tuple(indicator.name for indicator in self.indicators)

    @cached_property
    def bounds(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The lowest and the highest possible values, each of shape (n_indicators,), float64."""
        highs = [MAX_BOUND if each.high is None else each.high for each in self.indicators]
        return np.array([each.low or 0.0 for each in self.indicators]), np.array(highs)

    def index(self, name: str) -> int:
        """Return the position of the indicator with this name or synonym; case, width and outer spaces do not matter.

        Raises:
            KeyError: There is none.
        """
        return self._positions[folded(tidy(name))]

    def ignores(self, name: str) -> bool:
        """Whether the name is one of ``ignored``; case, width and outer spaces do not matter."""
        return folded(tidy(name)) in self._ignored

    @cached_property
    def _ignored(self) -> frozenset[str]:
        return frozenset(map(folded, self.ignored))

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {
            folded(name): position
            for position, indicator in enumerate(self.indicators)
            for name in (indicator.name, *indicator.synonyms)
        }


@cache
def _built_in(name: str) -> Schema:
    with resources.as_file(resources.files(__package__) / "schemas" / f"{name}.toml") as path:
        return _read(path)


def _read(path: Path) -> Schema:
    if path.suffix == ".toml" and path.stat().st_size > MAX_BYTES:
        raise ValueError(f"schema {path} is larger than {MAX_BYTES:,} bytes: write it as JSON, which may be larger")
    content = read_object(path) if path.suffix == ".json" else read_toml(path)
    try:
        values = checked_values(Schema, content, "")
        values["indicators"] = tuple(_entries(Indicator, "indicator", values.get("indicators", ())))
        values["labels"] = tuple(_entries(Label, "label", values.get("labels", ())))
        return Schema(**values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _entries(kind: type, word: str, entries: Iterable[dict[str, Any]]) -> Iterator[Any]:
    for number, entry in enumerate(entries, start=1):
        name = entry.get("name")
        where = _entry(word, number, name if isinstance(name, str) else "")
        values = checked_values(kind, entry, f"{where}: ")
        if "name" not in values:
            raise ValueError(f"{where} has no name: add one")
        if isinstance(values.get("words"), Mapping):
            values["words"] = tuple(values["words"].items())
        yield kind(**values)


def _plain(schema: Schema) -> dict[str, Any]:
    """Return the content of a JSON file."""
    content = asdict(schema) | {"indicators": [indicator.plain() for indicator in schema.indicators]}
    return {name: value for name, value in content.items() if name != "ignored" or value}


def _entry(word: str, number: int, name: str) -> str:
    return f"{word} {number}" + (f" ({quoted(name)})" if name else "")


def _check_number(what: str, number: int, low: int, high: int) -> None:
    if not low <= number <= high:
        raise ValueError(f"there are {number:,} {what}: use {low:,} to {high:,}")


@dataclass(frozen=True, eq=False)
class Patient:
    """One patient: check-ups, label and doctor's reply.

    Attributes:
        patient_id: Unique within the cohort; never sent to a remote service.
        label: The true condition.
        reference: The reply that the patient's own doctor wrote; "" if there is none.
        split_date: The index date, used to split the cohort into train, validation and test.
        dates: Check-up days in ascending order, shape (n,), datetime64[D].
        values: Indicator values, shape (n, n_indicators), float64, in the order and units of ``Schema.indicators``;
            NaN = not measured; read-only.
        extra: Any further columns of the patients' table, as read (age, weeks, history, ...).
        person_id: The human, if one has several stays, each of which is a "patient"; "" = ``patient_id``.
    """

    patient_id: str
    label: str
    reference: str
    split_date: np.datetime64
    dates: npt.NDArray[np.datetime64]
    values: npt.NDArray[np.float64]
    extra: Mapping[str, str] = field(default_factory=dict)
    person_id: str = ""

    @property
    def person(self) -> str:
        """The human: ``person_id``, or ``patient_id`` if that is empty."""
        return self.person_id or self.patient_id

    def __post_init__(self) -> None:
        """Check the values, and convert numbers and dates.

        Raises:
            ValueError: A text is none, ``values`` are no numbers, infinite, or not one row per date, or the dates are
                not ascending days.
        """
        for name in ("patient_id", "label", "reference", "person_id"):
            check_text(self.patient_id, name, getattr(self, name))
        for name, value in self.extra.items():
            check_text(self.patient_id, f"extra[{shortened(name)}]", value)
        object.__setattr__(self, "dates", as_days(self.patient_id, self.dates))
        object.__setattr__(self, "values", as_values(self.patient_id, self.values))
        if self.values.ndim != 2 or len(self.values) != len(self.dates):
            raise ValueError(
                f"patient {self.patient_id}: values have shape {self.values.shape}, "
                f"expected ({len(self.dates)}, number of indicators)"
            )
        if self.values.flags.writeable:  # a predictor of one's own must not fill the gaps for all later stages, too
            object.__setattr__(self, "values", self.values.view())
            self.values.flags.writeable = False


@dataclass(frozen=True, eq=False)
class Cohort(Sequence[Patient]):
    """Patients in a fixed order: H = {X, Y, R}.

    Attributes:
        patients: The patients.
        schema: What was measured and diagnosed.
    """

    patients: tuple[Patient, ...]
    schema: Schema

    def __post_init__(self) -> None:
        """Check the shapes; patients from a generator become a tuple.

        Raises:
            ValueError: A patient's values do not have one column per indicator.
        """
        object.__setattr__(self, "patients", tuple(self.patients))
        for patient in self.patients:
            if patient.values.shape[1] != len(self.schema.indicators):
                raise ValueError(
                    f"patient {patient.patient_id}: values have {patient.values.shape[1]} columns, "
                    f"but the schema has {len(self.schema.indicators)} indicators"
                )

    def __len__(self) -> int:
        """Return the number of patients, N."""
        return len(self.patients)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        """Return one patient, or the cohort of a slice."""
        if isinstance(index, slice):
            return Cohort(self.patients[index], self.schema)
        return self.patients[index]

    def __iter__(self) -> Iterator[Patient]:
        """Iterate over the patients in order."""
        return iter(self.patients)

    def take(self, indices: Iterable[int]) -> Cohort:
        """Return the cohort of the patients at ``indices``, in that order."""
        return Cohort(tuple(self.patients[int(i)] for i in indices), self.schema)

    @cached_property
    def y(self) -> npt.NDArray[np.str_]:
        """Labels, one per patient, shape (N,)."""
        return np.array([patient.label for patient in self.patients], dtype=np.str_)

    @property
    def n_checkups(self) -> int:
        """The total number of check-ups."""
        return sum(len(patient.dates) for patient in self.patients)
