"""Reading a folder of FHIR R4 resources (hl7.org/fhir/R4): a bulk export, bundles, or what Synthea writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from os import PathLike
from typing import Any, Literal

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.schema import Cohort, Schema
from pmlm_env.cohort.sources.assembly import Reading
from pmlm_env.cohort.sources.data_folder import DataFolder
from pmlm_env.cohort.sources.fhir.elements import (
    attached_text,
    diagnosis_name,
    encounter_of,
    icd_code,
    local_time,
    named_code,
    observed_time,
    plain_text,
    subject_of,
    titles,
    value_of,
)
from pmlm_env.cohort.sources.fhir.resources import Resource, Resources, items, part, reference_id, text
from pmlm_env.cohort.sources.histories import (
    LABELS,
    PEOPLE,
    Diagnosis,
    Letter,
    Person,
    Stay,
    Unit,
    drawn,
    drawn_line,
    letter_rank,
    tabulate,
)
from pmlm_env.cohort.sources.icd import chapter
from pmlm_env.cohort.sources.measurements import COLUMNS, EMPTY, Measurements, finish
from pmlm_env.cohort.sources.report import ReadReport
from pmlm_env.cohort.sources.streams import require_pyarrow
from pmlm_env.cohort.wording import tally

#: Status of results, reports and documents that hold (observation-status, diagnostic-report-status,
#: document-reference-status, composition-status); "" is what exports without it mean.
_FINAL = frozenset(("", "final", "amended", "corrected", "appended", "current", "active", "completed", "finished"))
#: Status of a resource with which all that it contains is withdrawn.
_WITHDRAWN = frozenset(("entered-in-error", "cancelled"))
#: When a result was true: what a contained one without a time has of the resource that contains it.
_EFFECTIVE = ("effectiveDateTime", "effectiveInstant", "effectivePeriod")
#: Verification status of a condition that does not hold.
_NOT_TRUE = frozenset(("entered-in-error", "refuted"))
#: References to people: a result may be in the record of one and about another.
_PEOPLE = ("Patient/", "RelatedPerson/")
#: Measurements that are added at a time.
_ROWS = 50_000
#: Rank of a diagnosis that its encounter does not list, of a mere reason for an encounter, and of what is no disorder.
_UNRANKED, _REASON, _FINDING = 100, 200, 300


def read_fhir(
    folder: str | PathLike[str],
    schema: Schema | None = None,
    *,
    reading: Reading | None = None,
    patient: Unit = "person",
    label: Literal["diagnosis", "chapter"] = "diagnosis",
    labels: int | None = LABELS,
    people: int | None = PEOPLE,
    without_reply: bool = False,
) -> tuple[Cohort, ReadReport]:
    """Read FHIR R4 resources.

    Measurements are the ``Observation`` resources that are final, amended or corrected, and their components. Replies
    are texts in ``DocumentReference``, ``DiagnosticReport.presentedForm``, ``Composition``, ``Communication`` and
    ``CarePlan``: those that are meant for the patient by their title first, then discharge summaries and letters, and
    of these the latest. Diagnoses are ``Condition`` and ``Encounter.reasonCode``; a SNOMED CT finding is taken only
    where there is no disorder.

    Args:
        folder: The folder, with files .ndjson or .json, or .gz of these.
        schema: What the cohort measures; None = inferred.
        reading: How to read it.
        patient: ``person``: a Patient, with everything up to their letter. ``stay``: an Encounter.
        label: ``diagnosis``: its name. ``chapter``: its ICD chapter, or else its name.
        labels: Number of labels to keep, the most frequent ones; None = all.
        people: Number of people to read, drawn at random; None = all.
        without_reply: Whether to keep patients without a letter although others have one.

    Raises:
        CohortError: There is no file, one is damaged, too much would be lost, or ``assemble`` cannot use it.
    """
    require_pyarrow()
    if label not in ("diagnosis", "chapter"):
        raise CohortError(f"label is {label!r}: use diagnosis or chapter")
    reading, files = reading or Reading(), DataFolder(folder)
    resources = Resources(files)
    records = _Records(by_chapter=label == "chapter")
    for kind in ("deleted", "Patient", "Encounter", "Condition", ""):
        for resource in resources.of(kind):
            records.add(resource)
    everybody = records.settle()
    chosen = drawn(everybody, people)
    for name in everybody - chosen:
        del records.people[name]
    records.closed = True
    for kind in ("Observation", "Binary"):
        for resource in resources.of(kind):
            records.add(resource)
    records.flush()
    patients = tabulate(records.finished(), patient, labels=labels, without_reply=without_reply or reading.new_patients)
    notes = [drawn_line(chosen, everybody, people), *records.lines()]
    if resources.left_out:
        left_out = resources.left_out.total()
        notes.append(
            f"resources: {resources.read:,} of {resources.read + left_out:,} were read; "
            f"left out: {tally(dict(resources.left_out.most_common()))}"
        )
    if 2 * resources.left_out["line that is not JSON"] > resources.read:
        raise CohortError(f"{files.path}: {notes[-1]}: that is too much to drop; check the files")
    return finish(files.path, patients, records.results, (), notes, schema, reading)


class _Records:
    """Sorts resources into people, their stays, diagnoses, letters and results."""

    def __init__(self, *, by_chapter: bool) -> None:
        self.people: dict[str, Person] = {}
        self.results = Measurements("Observation", self.people)
        #: Whether all people are known, so that others are strangers.
        self.closed = False
        self._by_chapter = by_chapter
        self._known: set[str] = set()
        self._names: dict[str, str] = {}
        self._batch: dict[str, list[str]] = {name: [] for name in COLUMNS}
        self._parents: dict[str, str] = {}
        self._ranks: dict[str, int] = {}
        self._conditions: list[tuple[str, str, Diagnosis]] = []
        self._elsewhere: dict[str, list[tuple[str, Letter]]] = {}
        self._unread: Counter[str] = Counter()
        self._add: dict[str, Callable[[Resource, str], None]] = {
            "Patient": self._add_patient,
            "Encounter": self._add_encounter,
            "Condition": self._add_condition,
            "Observation": self._add_observation,
            "DocumentReference": self._add_document,
            "DiagnosticReport": self._add_report,
            "Composition": self._add_composition,
            "Communication": self._add_communication,
            "CarePlan": self._add_plan,
            "Binary": self._add_binary,
        }

    def add(self, resource: Resource) -> None:
        """Add one resource, and results that are contained in it."""
        subject = subject_of(resource)
        if (add := self._add.get(text(resource, "resourceType"))) is not None:
            add(resource, subject)
        for contained in items(resource.get("contained")):
            if text(contained, "resourceType") == "Observation":
                known = ("encounter", *(() if any(key in contained for key in _EFFECTIVE) else (*_EFFECTIVE, "issued")))
                own = {key: resource[key] for key in known if key in resource} | contained
                if text(resource, "status") in _WITHDRAWN:  # a report that does not hold has no results that do
                    own["status"] = resource["status"]
                self._add_observation(own, subject_of(contained) or subject)

    def settle(self) -> set[str]:
        """Return the people; if there are Patient resources, nobody else is one."""
        for name in set(self.people) - self._known if self._known else ():
            del self.people[name]
        return set(self.people)

    def finished(self) -> dict[str, Person]:
        """Return the people, with diagnoses ranked as their encounters list them, and stays that are not parts."""
        for key, subject, diagnosis in self._conditions:
            if (person := self.people.get(subject)) is not None:
                rank = diagnosis.rank if diagnosis.rank >= _REASON else self._ranks.get(key, diagnosis.rank)
                stay = self._whole(diagnosis.stay)
                person.diagnoses.append(Diagnosis(diagnosis.name, rank, diagnosis.date, stay, rank == _REASON))
        for person in self.people.values():
            person.stays = [stay for stay in person.stays if self._whole(stay.id) == stay.id]
            if any(each.rank < _FINDING for each in person.diagnoses):
                person.diagnoses = [each for each in person.diagnoses if each.rank < _FINDING]
        return self.people

    def lines(self) -> Iterator[str]:
        """Yield lines for the report."""
        if self._unread:
            yield f"letters that could not be read: {tally(dict(self._unread.most_common()))}"
        if elsewhere := sum(map(len, self._elsewhere.values())):
            yield f"letters whose text is not in the export (attachment.url): {elsewhere:,}"

    def flush(self) -> None:
        """Hand the collected results on."""
        if self._batch["person"]:
            self._batch["stay"] = [self._whole(stay) for stay in self._batch["stay"]]
            self.results.add(self._batch)
            self._batch = {name: [] for name in COLUMNS}

    def _person(self, name: str) -> Person | None:
        if name in self.people or self.closed:
            return self.people.get(name)
        return self.people.setdefault(name, Person())

    def _whole(self, encounter: str) -> str:
        """Return the encounter that one is a part of, or itself."""
        for _ in range(10):  # a chain of parts; a file could make a circle
            if encounter not in self._parents:
                break
            encounter = self._parents[encounter]
        return encounter

    def _add_patient(self, resource: Resource, subject: str) -> None:
        if (name := text(resource, "id")) and (person := self._person(name)) is not None:
            self._known.add(name)
            if gender := text(resource, "gender"):
                person.extra["sex"] = gender
            if (year := text(resource, "birthDate")[:4]).isdecimal():
                person.born = int(year)

    def _add_encounter(self, resource: Resource, subject: str) -> None:
        name, status = text(resource, "id"), text(resource, "status")
        if status in ("cancelled", "entered-in-error") or (person := self._person(subject)) is None:
            return
        if parent := reference_id(text(part(resource, "partOf"), "reference")):
            self._parents[name] = parent
        period = part(resource, "period")
        start, end = local_time(text(period, "start")), local_time(text(period, "end"))
        kind = text(part(resource, "class"), "code").upper()
        person.stays.append(Stay(name, start, end, {"admission_type": kind} if kind else {}))
        for number, each in enumerate(items(resource.get("diagnosis"))):
            rank = text(each, "rank")
            condition = reference_id(text(part(each, "condition"), "reference"))
            self._ranks[condition] = int(rank[:3]) if rank.isdecimal() else _UNRANKED // 2 + min(number, 40)
        for reason in items(resource.get("reasonCode")):
            self._diagnose("", subject, reason, _REASON, start, name)

    def _add_condition(self, resource: Resource, subject: str) -> None:
        verified = {text(each, "code") for each in items(part(resource, "verificationStatus").get("coding"))}
        if verified & _NOT_TRUE or self._person(subject) is None:
            return
        dates = [text(resource, name) for name in ("onsetDateTime", "recordedDate")]
        dates += [text(part(resource, "onsetPeriod"), "start"), text(resource, "assertedDate")]
        date = next((found for each in dates if (found := local_time(each))), "")
        self._diagnose(text(resource, "id"), subject, resource.get("code"), _UNRANKED, date, encounter_of(resource))

    def _diagnose(self, key: str, subject: str, concept: Any, rank: int, date: str, encounter: str) -> None:
        name, disorder = diagnosis_name(concept)
        if self._by_chapter:
            name = chapter(*icd_code(concept)) or name
        if name:
            self._conditions.append((key, subject, Diagnosis(name, rank if disorder else _FINDING, date, encounter)))

    def _add_observation(self, resource: Resource, subject: str) -> None:
        status = text(resource, "status")
        if self.closed and subject not in self.people:
            self.results.strangers += 1
            return
        if status not in _FINAL:
            self.results.left_out[f"status {status}"[:40]] += 1
            return
        about = [text(each, "reference") for each in items(resource.get("focus"))]
        if any(each.startswith(_PEOPLE) and reference_id(each) != subject for each in about):
            self.results.left_out["about somebody else (focus), such as a fetus"] += 1
            return
        self._person(subject)
        time, encounter = observed_time(resource), encounter_of(resource)
        components = items(resource.get("component"))
        whole = value_of(resource)
        if whole.text or whole.why_not or not components:
            if not components and not whole.text and resource.get("hasMember"):
                self.results.left_out["panel (its members are results of their own)"] += 1
            else:
                self._append(subject, encounter, time, resource.get("code"), whole.text, whole.unit, whole.why_not)
        for component in components:
            found = value_of(component)
            self._append(subject, encounter, time, component.get("code"), found.text, found.unit, found.why_not)
        if len(self._batch["person"]) >= _ROWS:
            self.flush()

    def _append(
        self, subject: str, encounter: str, time: str, concept: Any, value: str, unit: str, why_not: str
    ) -> None:
        if why_not or not value:
            self.results.left_out[why_not or EMPTY] += 1
            return
        code, name = named_code(concept)
        if code:  # one code has one name
            name = self._names.setdefault(code, name)
        row = (subject, encounter, time, name, value, unit, code)
        for column, cell in zip(COLUMNS, row, strict=True):
            self._batch[column].append(cell)

    def _add_document(self, resource: Resource, subject: str) -> None:
        if text(resource, "status") in _FINAL and text(resource, "docStatus") in _FINAL:
            time = text(resource, "date") or text(part(part(resource, "context"), "period"), "start")
            for content in items(resource.get("content")):
                self._attach(resource, subject, part(content, "attachment"), time)

    def _add_report(self, resource: Resource, subject: str) -> None:
        if text(resource, "status") in _FINAL:
            for attachment in items(resource.get("presentedForm")):
                self._attach(resource, subject, attachment, observed_time(resource))

    def _add_composition(self, resource: Resource, subject: str) -> None:
        if text(resource, "status") in _FINAL:
            sections = list(items(resource.get("section")))
            for section in sections:  # sections may be nested; a file could nest them without end
                if len(sections) < 1_000:
                    sections += items(section.get("section"))
            texts = [(text(each, "title"), plain_text(text(part(each, "text"), "div"))) for each in sections]
            letter = "\n\n".join(f"{title}:\n{body}" if title else body for title, body in texts if body)
            self._write(resource, subject, letter, text(resource, "date"))

    def _add_communication(self, resource: Resource, subject: str) -> None:
        if text(resource, "status") in _FINAL:
            texts = [text(each, "contentString") for each in items(resource.get("payload"))]
            self._write(resource, subject, "\n\n".join(filter(None, texts)), text(resource, "sent"))

    def _add_plan(self, resource: Resource, subject: str) -> None:
        if text(resource, "status") in _FINAL:
            notes = [text(each, "text") for each in items(resource.get("note"))]
            body = "\n\n".join(filter(None, (text(resource, "description"), *notes)))
            body = body or plain_text(text(part(resource, "text"), "div"))
            time = text(resource, "created") or text(part(resource, "period"), "start")
            self._write(resource, subject, body, time, rank=letter_rank("care plan"))

    def _attach(self, resource: Resource, subject: str, attachment: Resource, time: str) -> None:
        title = f"{titles(resource)} {text(attachment, 'title')}"
        if text(attachment, "data"):
            body = attached_text(attachment)
            if body is None:
                kind = text(attachment, "contentType") or "without a contentType"
                self._unread[f"{kind[:40]} attachment"] += 1
            else:
                self._write(resource, subject, body, time, rank=letter_rank(title))
        elif url := text(attachment, "url"):
            letter = Letter("", letter_rank(title), local_time(time), encounter_of(resource))
            self._elsewhere.setdefault(reference_id(url), []).append((subject, letter))

    def _add_binary(self, resource: Resource, subject: str) -> None:
        body = attached_text(resource)
        for owner, letter in self._elsewhere.pop(text(resource, "id"), ()):
            person = self.people.get(owner)
            if body and body.strip() and person is not None:
                person.letters.append(Letter(body.strip(), letter.rank, letter.date, self._whole(letter.stay)))

    def _write(self, resource: Resource, subject: str, body: str, time: str, rank: int | None = None) -> None:
        if body.strip() and subject and (person := self._person(subject)) is not None:
            rank = letter_rank(titles(resource)) if rank is None else rank
            person.letters.append(Letter(body.strip(), rank, local_time(time), self._whole(encounter_of(resource))))
