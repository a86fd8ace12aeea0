"""A schema made from the tables, for a cohort that has none; and the names by which a schema reads tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.indicator import RESERVED, Indicator
from pmlm_env.cohort.parsing import is_given
from pmlm_env.cohort.schema import COMMON, SCHEMAS, Schema
from pmlm_env.cohort.sources.cells import Cells
from pmlm_env.cohort.sources.checks import two_columns
from pmlm_env.cohort.sources.measured import Measured, measured
from pmlm_env.cohort.sources.medians import likely_unit
from pmlm_env.cohort.sources.proposal import propose
from pmlm_env.cohort.sources.recognition import Catalogue, common
from pmlm_env.cohort.sources.table_files import Table
from pmlm_env.cohort.units import Conversion, conversion
from pmlm_env.cohort.wording import bare, folded, named, plain, quoted, suggestion, tidy

#: Similarity (``difflib``) above which an unknown name is taken for a misspelling of a known one.
_MISSPELLED = 0.85
#: Letters of a text, and texts, that tell a language.
_SAMPLE = 200


def infer_schema(people: Table, records: Table, long: bool) -> tuple[Schema, tuple[str, ...]]:
    """Make a schema from what the tables have.

    If most labels and all indicators are those of a built-in schema, it is that schema. Otherwise the indicators are
    those of the catalogue that the table's codes, names and units mean, and under their own names those that it does
    not have. An indicator has the unit that most of its values are stated in, or else the catalogue's; the catalogue's
    bounds and ranges are converted to it.

    Args:
        people: The patients' table: patient_id, and as far as there are any, label and reference.
        records: The check-ups: patient_id, indicator, value and optionally unit and code; or, if not ``long``,
            patient_id and one column per indicator.
        long: The form of ``records``.

    Returns:
        The schema, and lines for the report: what was recognized as what, and what was left out, with counts.

    Raises:
        CohortError: No column or row is an indicator, no row is of a patient, or the median of an indicator says that
            its values, for which no unit is given, are in another unit.
    """
    schema, _, notes = recognized(people, records, None, long)
    return schema, notes


def recognized(
    people: Table,
    records: Table,
    schema: Schema | None,
    long: bool,
    *,
    published: bool = False,
    new_patients: bool = False,
) -> tuple[Schema, Table, tuple[str, ...]]:
    """Give the indicators of a table the names of a schema, or of the schema that is inferred from the tables.

    In a schema that somebody made, an indicator is known by its name and synonyms, its codes (a column ``code``), and
    by a name that contains them ("Hemoglobin [Mass/volume] in Blood"). What the schema does not have keeps its name,
    and is a problem to whoever reads the table, unless the table is published: such tables have hundreds of indicators,
    of which a schema chooses some. The others are taken out, and counted, as is what an inferred schema leaves out.
    So are those of new patients that are not similar to a name of the schema, which was made without them, and what the
    schema ignores.

    Args:
        people: As in ``infer_schema``.
        records: As in ``infer_schema``.
        schema: What the cohort measures; None = inferred.
        long: The form of ``records``.
        published: Whether the files are those of a data set that the user cannot correct.
        new_patients: Whether the patients are new, so that the schema is that of others.

    Returns:
        The schema, the records by its names, and lines for the report.

    Raises:
        CohortError: As in ``infer_schema``, or a table has no rows, or a published table has none of the schema's
            indicators.
    """
    records = _without_markers(records, ("unit", "code"))
    needed = ("patient_id", "indicator", "value") if long else ("patient_id",)
    if "patient_id" not in people.columns or any(name not in records.columns for name in needed):
        return schema or Schema.load(SCHEMAS[0]), records, ()  # whoever reads the tables says what they lack
    for table in () if published else (people, records):
        _check_rows(table)
    groups, group = measured(people, records, long, published=published)
    notes: tuple[str, ...] = ()
    if (known := schema or _built_in(people, groups)) is not None:
        catalogue = Catalogue(known)
        names: Sequence[str | None]
        names, notes = _not_ignored(known, groups, [_name(catalogue, each) for each in groups])
        if published or new_patients:
            names, more = _chosen(records.name, known, groups, names, keep_similar=not published)
            notes += more
    else:
        _check_people(people, records)
        if not any(len(each.values) + len(each.unread) for each in groups):
            raise CohortError(
                f"{records.name}: no indicator has numbers of the patients in the patients' table"
                f"{_examples(records, long)}"
            )
        labels = [tidy(text) for text in people.column("label").texts]
        proposal = propose(
            records.name,
            groups,
            _by_labels(people),
            labels,
            _language(people),
            one_each=not long,
            published=published,
        )
        known, names, notes = proposal.schema, proposal.names, proposal.notes
    _check_units(records, known, groups, names, long, published)
    if not long:
        new = {each.written: name for each, name in zip(groups, names, strict=True)}
        columns: dict[str, Cells] = {}
        renamed: dict[str, str] = {}
        before: dict[str, str] = {}
        for old, cells in records.columns.items():
            if (name := new.get(old, old)) is None:
                continue
            if name in columns:
                raise two_columns(records, before[name], old, name)
            columns[name], before[name] = cells, old
            if name != records.called(old):
                renamed[name] = records.called(old)
        units = {name: each.unit for each, name in zip(groups, names, strict=True) if name is not None and each.unit}
        return known, replace(records, columns=columns, units=units, renamed=renamed), notes
    texts = Cells.of([each.written if name is None else name for each, name in zip(groups, names, strict=True)])
    keep = np.array([name is not None for name in names], dtype=np.bool_)[group]
    if schema is None and not published:  # of rows without a patient, whoever reads the table says what they lack
        keep |= np.array([not each.cells for each in groups], dtype=np.bool_)[group] & _without_patient(people, records)
    told = replace(records, columns={**records.columns, "indicator": Cells(texts.texts, texts.codes[group])})
    return known, told if keep.all() else told.where(keep), notes


def _without_markers(table: Table, names: Sequence[str]) -> Table:
    """Return a table in which these columns, where it has them, have empty cells for missing-value markers."""
    columns = {name: table.columns[name] for name in names if name in table.columns}
    cleared = {
        name: cells.renamed(text if is_given(text) else "" for text in cells.texts) for name, cells in columns.items()
    }
    return replace(table, columns={**table.columns, **cleared})


def _check_rows(table: Table) -> None:
    """Check that a table has rows.

    Raises:
        CohortError: It has none, or all have a wrong number of cells.
    """
    if len(table.rows):
        return
    if not table.malformed:
        raise CohortError(f"{table.name} has no rows below its header")
    row, cells = table.malformed[0]
    raise CohortError(
        f"{table.name}, {table.location(row)}, {cells} cells where the header has {len(table.columns)}, and so in all "
        'rows; put cells that contain commas or line breaks in double quotes ("...")'
    )


def _check_people(people: Table, records: Table) -> None:
    """Check that there are results of a patient.

    Raises:
        CohortError: There are none; the message has an identifier of each table, of one patient if they are similar.
    """
    ours, theirs = (
        [name for name in map(str.strip, table.columns["patient_id"].texts) if name] for table in (people, records)
    )
    if {*ours} & {*theirs}:
        return
    similar = {plain(name): name for name in reversed(ours) if plain(name)}
    pair = next(((name, similar[plain(name)]) for name in theirs if plain(name) in similar), None)
    if pair:
        hint = f"{quoted(pair[0])} may be {quoted(pair[1])} there, as spreadsheets drop leading zeros; write "
        hint += "identifiers as in that table, in the same letter case"
    else:
        one, other = (quoted(names[0] if names else "") for names in (theirs, ours))
        hint = f"its identifiers are such as {one}, those of {people.name} such as {other}; use the same in both"
    raise CohortError(
        f"{records.name}, column {bare(records.called('patient_id'))}: no row is of a patient in {people.name}; {hint}"
    )


def _without_patient(people: Table, records: Table) -> npt.NDArray[np.bool_]:
    """Return which rows name no patient, or a patient of the table in another spelling."""
    ours = {name.strip() for name in people.columns["patient_id"].texts}
    similar, ids = {plain(name) for name in ours}, records.columns["patient_id"]
    names = [name.strip() for name in ids.texts]
    doubtful = [name not in ours and (not name or plain(name) in similar) for name in names]
    return ids.spread(np.array(doubtful, dtype=np.bool_))


def _examples(records: Table, long: bool) -> str:
    """Return what results are like, for a message; "" if there are none."""
    names = ["value"] if long else [name for name in records.columns if name not in RESERVED]
    found = dict.fromkeys(text for name in names for text in records.columns[name].texts[:_SAMPLE] if is_given(text))
    return f"; there are values such as {named(list(found)[:3])}: write numbers as 12.5" if found else ""


def _not_ignored(
    schema: Schema, groups: Sequence[Measured], names: Sequence[str]
) -> tuple[list[str | None], tuple[str, ...]]:
    """Leave out the groups of values whose name the schema ignores; return the names, and a line if there are any."""
    left_out = [each for each in groups if schema.ignores(each.written) or schema.ignores(each.name)]
    if not left_out:
        return [*names], ()
    ids = {id(each) for each in left_out}
    kept = [None if id(each) in ids else name for each, name in zip(groups, names, strict=True)]
    return kept, (_left_out("the schema ignores", left_out),)


def _chosen(
    table: str, schema: Schema, groups: Sequence[Measured], names: Sequence[str | None], *, keep_similar: bool
) -> tuple[list[str | None], tuple[str, ...]]:
    """Leave out the groups of values whose name is not in the schema; return the names, and a line if there are any.

    A group without a name has been left out already.

    With ``keep_similar``, what is similar to a name of the schema is kept, as a problem to whoever reads the table.

    Raises:
        CohortError: That is all of them.
    """
    ours = [folded(name) for each in schema.indicators for name in (each.name, *each.synonyms)] if keep_similar else []
    kept = [
        name if name is not None and (_exact(schema, name) or suggestion(folded(name), ours, _MISSPELLED)) else None
        for name in names
    ]
    left_out = [
        each for each, before, name in zip(groups, names, kept, strict=True) if name is None and before is not None
    ]
    if not left_out:
        return kept, ()
    if not any(kept):
        others = list(dict.fromkeys(each.written for each in left_out))
        raise CohortError(
            f"{table}: none of its indicators ({named(others)}) is one of the schema's ({named(schema.names)}): give "
            "another schema, or none, so that one is made"
        )
    return kept, (_left_out("the schema does not have", left_out),)


def _left_out(why: str, groups: Sequence[Measured]) -> str:
    """Return the report's line on groups that are left out; ``why`` follows "indicators that"."""
    names, values = list(dict.fromkeys(each.written for each in groups)), sum(each.cells for each in groups)
    return f"indicators that {why}, left out ({len(names):,}, {values:,} values): {named(names)}"


def _name(catalogue: Catalogue, part: Measured) -> str:
    """Return the schema's name for a group of values; its own if the schema has none, or has it in the same words."""
    found = _find(catalogue, part)
    if found is not None:
        same = _exact(catalogue.schema, part.written) is found
        return part.written if same else found.name
    other = common().by_code.get(part.code)  # a code says that it is not what its name says
    return (
        f"{part.written} ({other.title or other.name})"
        if other and _exact(catalogue.schema, part.written)
        else part.written
    )


def _find(catalogue: Catalogue, part: Measured) -> Indicator | None:
    if (coded := catalogue.by_code.get(part.code)) is not None:
        return coded
    exact = _exact(catalogue.schema, part.written) or _exact(catalogue.schema, part.name)
    if (known := common().by_code.get(part.code)) is not None:
        # A schema of one's own may have it under the table's name, which means the same to the catalogue.
        agrees = exact if known in common().all(part.name, part.unit) else None
        return _same(catalogue.schema, known) or agrees
    if exact is not None and _converts(part, exact):
        return exact
    meant = [*catalogue.all(part.name, part.unit)]
    meant += [each for known in common().all(part.name, part.unit) if (each := _same(catalogue.schema, known))]
    return next((each for each in meant if _converts(part, each)), exact)


def _same(schema: Schema, known: Indicator) -> Indicator | None:
    """Return a schema's form of an indicator of the catalogue."""
    return next((each for name in (known.name, *known.synonyms) if (each := _exact(schema, name))), None)


def _exact(schema: Schema, name: str) -> Indicator | None:
    try:
        return schema.indicators[schema.index(name)]
    except KeyError:
        return None


def _converts(part: Measured, indicator: Indicator) -> bool:
    """Whether values can be read as an indicator's."""
    return isinstance(conversion(part.unit, indicator), Conversion)


def _built_in(people: Table, groups: Sequence[Measured]) -> Schema | None:
    """Return the built-in schema that most labels and all indicators are of; one without labels needs the latter."""
    schema = _by_labels(people)
    if schema is None:
        if any(is_given(text, words=True) for text in people.column("label").texts):
            return None
        schema = Schema.load(SCHEMAS[0])
    catalogue = Catalogue(schema)
    names = [name for each in schema.indicators for name in (each.name, *each.synonyms)]
    for part in groups:
        if _find(catalogue, part) is None and (
            common().find(part.name) is not None or not suggestion(folded(part.name), names, _MISSPELLED)
        ):
            return None
    return schema


def _by_labels(people: Table) -> Schema | None:
    """Return the built-in schema whose labels most patients have, of those who have one."""
    labels = people.column("label")
    spelled = [folded(tidy(text)) if is_given(text, words=True) else "" for text in labels.texts]
    given = labels.spread(np.array([bool(text) for text in spelled], dtype=np.bool_)).sum()
    for schema in (Schema.load(name) for name in SCHEMAS if name != COMMON):
        known = {folded(name) for label in schema.labels for name in (label.name, *label.aliases)}
        if 2 * labels.spread(np.array([text in known for text in spelled], dtype=np.bool_)).sum() > given:
            return schema
    return None


def _language(people: Table) -> str:
    """Return the language of the replies, or else of the labels: ``zh`` if most letters are Chinese, else ``en``."""
    for column in ("reference", "label"):
        letters = [c for text in people.column(column).texts[:_SAMPLE] for c in text[:_SAMPLE] if c.isalpha()]
        if letters:
            return "zh" if 2 * sum("\u4e00" <= c <= "\u9fff" for c in letters) > len(letters) else "en"
    return "en"


def _check_units(
    records: Table, schema: Schema, groups: Sequence[Measured], names: Sequence[str | None], long: bool, published: bool
) -> None:
    """Check that values without a unit are plausible in their indicators' units.

    Raises:
        CohortError: Some are not, and would be in another unit.
    """
    unstated: dict[str, list[Measured]] = {}
    for part, name in zip(groups, names, strict=True):
        indicator = _exact(schema, name) if name is not None and not part.unit else None
        if indicator is not None:
            unstated.setdefault(indicator.name, []).append(part)
    doubts = []
    for name, parts in unstated.items():
        indicator, values = schema.indicators[schema.index(name)], np.concatenate([part.values for part in parts])
        if unit := likely_unit(values, indicator):
            doubts.append((indicator, float(np.median(values)), unit, parts[0].written))
    if not doubts:
        return
    indicator, median, unit, written = doubts[0]
    column = f"in the column's name, {bare(f'{written} ({unit})')}" if not long else "in a column unit"
    advice = f'{column}, or in map.toml ([units] {bare(written)} = "{unit}")'
    if published:
        advice = f'in the files, or in a schema (unit = "{unit}")'
    also = ", ".join(f"{bare(each.name)} (median {middle:.4g}, {other}?)" for each, middle, other, _ in doubts[1:])
    raise CohortError(
        f"{records.name}: the median of {bare(indicator.name)} is {median:.4g}, which is not usual in {indicator.unit} "
        f"({indicator.reference_low:g} to {indicator.reference_high:g}) but is in {unit}, and no unit is given: give "
        f"it {advice}" + (f"; likewise {also}" if also else "")
    )
