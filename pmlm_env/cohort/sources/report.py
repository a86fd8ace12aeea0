"""Report on reading a cohort: what was read and what was left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pmlm_env.cohort.wording import SHOWN, bare, named, quoted, tally


@dataclass(frozen=True)
class ReadReport:
    """What was read from a cohort's files and what was left out.

    Attributes:
        patients: Patients in the cohort.
        checkups: Check-ups in the cohort.
        values: Laboratory values in the cohort, before averaging those of one day.
        values_after_index: Values measured after the patient's index date.
        patients_after_index: Patients who have such values.
        kept_later: Whether these values are in the cohort.
        patients_without_checkups: Patients left out because they have no value, in file order.
        unlabeled: Patients in the cohort without a label.
        unanswered: Patients in the cohort without a doctor's reply.
        merged_labels: Label -> its other spellings in the file.
        doubtful_labels: A line for each rare label that resembles a frequent one.
        outside_rows: Check-up rows left out because the person is not in the patients' table.
        outside_people: Number of these people.
        dropped: Kind of problem -> number of rows (or single values of a wide table) dropped because of it; one with
            two problems counts for both.
        examples: Some of the problems, one per line, as ``CohortError`` lists them.
        empty_checkups: Rows of a wide table without any value.
        averaged: Values averaged with others of the same indicator and day.
        repeated_rows: Check-up rows that repeat an earlier row exactly; they count in the mean.
        ignored_columns: Columns of a long table that are not used.
        read_as: Names in the file -> the indicators that they were read as, if these have other names or spellings.
        converted: What was converted to another unit, such as "hgb from g/dL to g/L" -> number of values.
        notes: Further lines, from the source and from the inference of the schema.
        new_patients: Whether the patients are new, so that nothing is said of labels and replies, which are not used.
    """

    patients: int
    checkups: int
    values: int = 0
    values_after_index: int = 0
    patients_after_index: int = 0
    kept_later: bool = False
    patients_without_checkups: tuple[str, ...] = ()
    unlabeled: int = 0
    unanswered: int = 0
    merged_labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    doubtful_labels: tuple[str, ...] = ()
    outside_rows: int = 0
    outside_people: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    examples: tuple[str, ...] = ()
    empty_checkups: int = 0
    averaged: int = 0
    repeated_rows: int = 0
    ignored_columns: tuple[str, ...] = ()
    read_as: Mapping[str, str] = field(default_factory=dict)
    converted: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    new_patients: bool = False

    def __str__(self) -> str:
        """Return the report as a few lines of text."""
        lines = [f"patients: {self.patients:,}, check-ups: {self.checkups:,}, values: {self.values:,}"]
        total = self.values if self.kept_later else self.values + self.values_after_index
        after = f"values after the patient's index date (split_date): {self.values_after_index:,} of {total:,}"
        if self.values_after_index:
            fate = "used, though not yet known then" if self.kept_later else "left out (--keep-later uses them)"
            after += f", of {self.patients_after_index:,} patients; {fate}"
        if self.values_after_index or not self.new_patients:
            lines.append(after)
        if self.patients_without_checkups:
            names = named(self.patients_without_checkups, shown=100)
            lines.append(
                f"patients without a laboratory value, left out ({len(self.patients_without_checkups):,}): {names}"
            )
        if not self.new_patients:
            lines += self._on_labels_and_replies()
        if self.read_as:
            shown = [f"{bare(name)} was read as {bare(indicator)}" for name, indicator in self.read_as.items()]
            more = f" and {len(shown) - SHOWN:,} more" if len(shown) > SHOWN else ""
            lines.append(f"indicators with other names: {', '.join(shown[:SHOWN])}{more}")
        if self.converted:
            lines.append(f"values converted: {tally(self.converted)}")
        if self.outside_rows:
            people = f"{self.outside_people:,} people who are not in the patients' table"
            lines.append(f"rows left out, of {people}: {self.outside_rows:,}")
        if self.empty_checkups:
            lines.append(f"check-ups without any value, left out: {self.empty_checkups:,}")
        if self.averaged:
            lines.append(f"values averaged with others of the same day: {self.averaged:,}")
        if self.repeated_rows:
            lines.append(f"rows that repeat an earlier row cell by cell: {self.repeated_rows:,}")
        if self.ignored_columns:
            lines.append(f"columns not used: {named(self.ignored_columns)}")
        lines += self.notes
        if self.dropped:
            lines.append(f"dropped: {tally(self.dropped)}")
            lines.extend(f"  {example}" for example in self.examples)
        return "\n".join(lines)

    def _on_labels_and_replies(self) -> list[str]:
        lines, whole = [], f"of {self.patients:,}"
        if self.unlabeled:
            lines.append(f"patients without a label: {self.unlabeled:,} {whole}; not used to fit or judge anything")
        if self.unanswered:
            lines.append(f"patients without a reply: {self.unanswered:,} {whole}; not used to train or judge agents")
        for label, others in self.merged_labels.items():
            lines.append(f"label {quoted(label)} was also written {', '.join(map(quoted, others[:SHOWN]))}")
        return [*lines, *(f"label {line}" for line in self.doubtful_labels[:SHOWN])]
