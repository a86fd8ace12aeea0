"""Making a schema of what tables measure: which indicators, in which units, and what is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.indicator import MAX_BOUND, RESERVED, Indicator
from pmlm_env.cohort.schema import MAX_IGNORED, Schema
from pmlm_env.cohort.schema_checks import check_name
from pmlm_env.cohort.sources.measured import Measured
from pmlm_env.cohort.sources.medians import likely_unit
from pmlm_env.cohort.sources.recognition import Catalogue, common
from pmlm_env.cohort.units import Conversion, conversion
from pmlm_env.cohort.wording import SHOWN, bare, folded, named, tidy
from pmlm_env.core.labels import Label

#: Indicators that fewer of the patients have are left out; and of the others, beyond this number, the rarest.
MIN_SHARE, MAX_KEPT = 0.02, 200
#: Spellings of an indicator's name, and its codes, that its schema keeps.
_MAX_SYNONYMS = 30
#: Digits of a catalogue's limits that are converted to another unit.
_DIGITS = 4
#: Labels in everyday words that mean that nothing was found: they do not name a diagnosis in a reply.
_NO_FINDING = frozenset(
    ("normal", "healthy", "none", "control", "controls", "no disease", "no finding", "no findings", "no diagnosis",
     "unremarkable", "正常", "健康", "无异常")
)  # fmt: skip


class Proposal(NamedTuple):
    """A schema, the name in it of each group of values (None = left out), and lines that say what was done."""

    schema: Schema
    names: Sequence[str | None]
    notes: tuple[str, ...]


@dataclass
class _Found:
    """An indicator in the making: what a catalogue says of it, and its values by their names in the table."""

    known: Indicator | None
    parts: list[Measured] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.parts[0].name if self.known is None else self.known.name

    @property
    def cells(self) -> int:
        return sum(part.cells for part in self.parts)

    @property
    def numbers(self) -> int:
        """How many cells are numbers, or should be: problems that whoever reads the table names.

        Of what no catalogue has, and without any number, only what is certainly one counts: ``120/80`` and dates are
        not damaged numbers.
        """
        numbers = sum(len(part.values) for part in self.parts)
        if self.known or numbers:
            return numbers + sum(len(part.unread) for part in self.parts)
        return sum(part.ambiguous for part in self.parts)

    @cached_property
    def people(self) -> npt.NDArray[np.int64]:  # when all parts are known
        """The patients who have it, shape (n,), ascending."""
        return np.unique(np.concatenate([each for part in self.parts for each in (part.patients, part.unread)]))

    @property
    def patients(self) -> int:
        return len(self.people)

    @property
    def unit(self) -> str:
        """The unit that most of its values are stated in; "" if none is."""
        units: Counter[str] = Counter()
        for part in self.parts:
            units[part.unit] += part.cells
        del units[""]
        return max(units, key=lambda unit: (units[unit], unit), default="")

    def takes(self, part: Measured) -> bool:
        """Whether values with the part's unit can be converted to this unit; stated units and none do not mix."""
        return isinstance(conversion(part.unit, Indicator("indicator", self.unit)), Conversion)


def propose(
    table: str,
    groups: Sequence[Measured],
    base: Schema | None,
    labels: Sequence[str],
    language: str,
    *,
    one_each: bool,
    published: bool = False,
) -> Proposal:
    """Make a schema.

    Args:
        table: Name of the table of check-ups, for messages.
        groups: What it measures.
        base: The built-in schema whose labels most patients have; None = none. Its indicators come first.
        labels: The distinct labels of the patients.
        language: The language of their replies.
        one_each: Whether two groups cannot be one indicator, because they are two columns.
        published: Whether the table is that of a data set that the user cannot correct.

    Raises:
        CohortError: No group has numbers; or the rows of those that have none are more than half of the user's rows.
    """
    found, left_out = _sorted_out(groups, [Catalogue(base)] if base else [], one_each)
    having = [*(part.patients for part in groups), *(each.people for each in found)]
    everybody = np.unique(np.concatenate([np.empty(0, np.int64), *having]))
    order = sorted(found, key=lambda each: (-each.patients, folded(each.name)))
    kept = [each for each in order if each.patients >= MIN_SHARE * len(everybody)]
    left_out[f"measured in less than {MIN_SHARE:.0%} of the patients"] = order[len(kept) :]
    left_out[f"beyond the {MAX_KEPT} that most patients have"] = kept[MAX_KEPT:]
    kept = kept[:MAX_KEPT]
    if not kept:
        raise CohortError(f"{table}: no indicator has numbers of the patients in the patients' table")
    wordy, total = left_out["without numbers"], sum(part.cells for part in groups)
    if 2 * (n_wordy := sum(each.cells for each in wordy)) > total and not (one_each or published):
        raise CohortError(
            f"{table}: {n_wordy:,} of {total:,} values are of indicators without numbers "
            f"({named([each.name for each in wordy])}), which is too much to leave out; correct or remove their rows"
        )
    names: dict[int, str] = {}
    indicators = _indicators(kept, groups, names)
    schema = Schema(
        tuple(indicators),
        base.labels if base else tuple(Label(name, no_finding=True) for name in labels if folded(name) in _NO_FINDING),
        base.language if base else language,
        base.templates if base else "general",
        base.max_checkups if base else 45,
        () if published else tuple(_ignored(left_out, indicators)),  # only a table of one's own must be known wholly
    )
    notes = _notes(kept, schema, len(everybody), left_out)
    return Proposal(schema, [names.get(id(part)) for part in groups], tuple(notes))


def _sorted_out(
    groups: Sequence[Measured], catalogues: list[Catalogue], one_each: bool
) -> tuple[list[_Found], dict[str, list[_Found]]]:
    """Join the groups that are one indicator; return the indicators, and those that cannot be used, by the reason."""
    found: dict[str, _Found] = {}
    left_out: dict[str, list[_Found]] = {"without a value": [], "without numbers": [], "without a usable name": []}
    for part in sorted(groups, key=lambda part: (-part.cells, part.written, part.unit, part.code)):
        if not part.cells:
            left_out["without a value"].append(_Found(None, [part]))
            continue
        known = next((each for each in (_known(c, part) for c in (*catalogues, common())) if each), None)
        if known is not None:  # a built-in schema's own form of an indicator goes before the catalogue's
            known = next((each for c in catalogues for each in c.schema.indicators if each.name == known.name), known)
        if known is not None and one_each and f"known {known.name}" in found:
            known = None
        key = f"known {known.name}" if known else f"own {part.name if one_each else folded(part.name)}"
        if not known and key in found and not found[key].takes(part):
            key += f" in {part.unit}"
        found.setdefault(key, _Found(known)).parts.append(part)
    for each in list(found.values()):
        if 2 * each.numbers < each.cells:
            left_out["without numbers"].append(each)
        elif not _usable(each.name):
            left_out["without a usable name"].append(each)
    unused = {id(each) for several in left_out.values() for each in several}
    return [each for each in found.values() if id(each) not in unused], left_out


def _known(catalogue: Catalogue, part: Measured) -> Indicator | None:
    """Return what a catalogue takes values for: of several indicators, the one whose range has their median."""
    meant = catalogue.all(part.name, part.unit, part.code)
    if not part.unit and len(part.values):
        median = float(np.median(part.values))
        for each in meant:
            if (each.reference_low or 0.0) <= median <= (each.reference_high or -1.0):
                return each
        meant = [each for each in meant if not likely_unit(part.values, each)] or meant
    return meant[0] if meant else None


def _usable(name: str) -> bool:
    try:
        check_name("name", name, "")
    except ValueError:
        return False
    return folded(name) not in RESERVED


def _indicators(kept: Sequence[_Found], groups: Sequence[Measured], names: dict[int, str]) -> list[Indicator]:
    """Return the indicators, and note in ``names`` which group of values is which."""
    used = {folded(each.known.name) for each in kept if each.known}
    made = []
    for each in kept:
        indicator = _own(each, used) if each.known is None else in_unit(each.known, each.unit)
        used.add(folded(indicator.name))
        names.update((id(part), indicator.name) for part in each.parts)
        made.append(indicator)
    # Synonyms last: the name of one indicator must not be a synonym of another. They and the codes are the table's own;
    # the catalogue knows the others.
    own_codes = _own_codes(groups, names)
    for k, (each, indicator) in enumerate(zip(kept, made, strict=True)):
        synonyms: list[str] = []
        for text in dict.fromkeys(tidy(part.written) for part in each.parts):
            if folded(text) not in used and len(synonyms) < _MAX_SYNONYMS and _usable(text):
                used.add(folded(text))
                synonyms.append(text)
        codes = dict.fromkeys(part.code for part in each.parts if part.code in own_codes and _usable(part.code))
        made[k] = replace(indicator, synonyms=tuple(synonyms), codes=tuple(codes)[:_MAX_SYNONYMS])
    return made


def _ignored(left_out: Mapping[str, list[_Found]], indicators: Sequence[Indicator]) -> list[str]:
    """Return the names of what is left out, as the table has them, without those that are indicators' names, too."""
    used = {folded(name) for each in indicators for name in (each.name, *each.synonyms)}
    parts = (part for several in left_out.values() for each in several for part in each.parts)
    written = {folded(text): text for text in (tidy(part.written) for part in parts) if _usable(text)}
    return sorted(text for key, text in written.items() if key not in used)[:MAX_IGNORED]


def _own_codes(groups: Sequence[Measured], names: Mapping[int, str]) -> set[str]:
    """Return the codes that tell an indicator: not those of panels or devices, which others in the table have, too.

    Args:
        groups: All that the table measures.
        names: The indicator of each group that is kept, by its ``id``.
    """
    by_name = {folded(part.name): names[id(part)] for part in groups if id(part) in names}
    owners: dict[str, set[str]] = {}
    for part in groups:
        name = folded(part.name)
        owners.setdefault(part.code, set()).add(names.get(id(part)) or by_name.get(name, name))
    return {code for code, several in owners.items() if code and len(several) == 1}


def _own(found: _Found, used: set[str]) -> Indicator:
    """Return an indicator that no catalogue has, under its own name, or one like it if that is taken."""
    similar = [found.name, *([f"{found.name} ({found.unit})"] if found.unit else [])]
    name = next((name for name in (*similar, *(f"{found.name} ({k})" for k in range(2, len(used) + 3)))
                 if folded(name) not in used), found.name)  # fmt: skip
    negative = any((part.values < 0).any() for part in found.parts)
    return Indicator(name, found.unit, low=-MAX_BOUND if negative else None)


def in_unit(indicator: Indicator, unit: str) -> Indicator:
    """Return an indicator with its bounds and range in another unit, to four digits.

    Args:
        indicator: The indicator.
        unit: The unit; "" or one of the same size leaves the indicator as it is.
    """
    found = conversion(unit, indicator)
    if isinstance(found, str) or not found.changes:
        return indicator
    back = found.inverse()

    def converted(limit: float | None) -> float | None:
        return None if limit is None else float(f"{back.of(limit):.{_DIGITS}g}")

    return replace(
        indicator,
        unit=unit,
        low=converted(indicator.low),
        high=converted(indicator.high),
        reference_low=converted(indicator.reference_low),
        reference_high=converted(indicator.reference_high),
    )


def _notes(
    kept: Sequence[_Found], schema: Schema, n_patients: int, left_out: Mapping[str, list[_Found]]
) -> Iterator[str]:
    own = [made.name for each, made in zip(kept, schema.indicators, strict=True) if each.known is None]
    yield (
        f"schema made from the tables: {len(kept):,} indicators, prompt templates {schema.templates}; `pmlm schema` "
        "writes it to a file, in which you can change it"
    )
    shown = [
        f"{bare(made.name)}{f' ({made.unit})' if made.unit else ''} {each.patients / n_patients:.0%}"
        for each, made in zip(kept, schema.indicators, strict=True)
    ]
    more = f" and {len(shown) - SHOWN:,} more" if len(shown) > SHOWN else ""
    yield f"indicators by the share of patients who have them: {', '.join(shown[:SHOWN])}{more}"
    if own:
        yield f"indicators that the catalogue does not have, kept as the table names them, without bounds: {named(own)}"
    for why, several in left_out.items():
        if several:
            names = named([f"{each.name} ({each.unit})" if each.unit else each.name for each in several])
            values = sum(each.cells for each in several)
            yield f"indicators {why}, left out ({len(several):,}, {values:,} values): {names}"
