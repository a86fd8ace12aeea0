"""Folders in the form of FHIR R4 bulk exports (hl7.org/fhir/uv/bulkdata) and of Synthea's bundles."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.cohort.sources.hospital import Person, Result, Stay

Resource = dict[str, Any]


def patient(person: Person) -> Resource:
    return {"resourceType": "Patient", "id": person.id, "gender": person.sex, "birthDate": f"{person.born}-03-01"}


def encounter(person: Person, stay: Stay) -> Resource:
    return {
        "resourceType": "Encounter",
        "id": stay.id,
        "status": "finished",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
        "subject": {"reference": f"Patient/{person.id}"},
        "period": {"start": f"{stay.start.isoformat()}-05:00", "end": f"{stay.end.isoformat()}-05:00"},
        "diagnosis": [
            {"condition": {"reference": f"Condition/{stay.id}-{number}"}, "rank": number}
            for number in range(1, len(stay.diagnoses) + 1)
        ],
    }


def conditions(person: Person, stay: Stay) -> list[Resource]:
    systems = {"9": "http://hl7.org/fhir/sid/icd-9-cm", "10": "http://hl7.org/fhir/sid/icd-10-cm"}
    found = [
        {
            "resourceType": "Condition",
            "id": f"{stay.id}-{number}",
            "code": {"coding": [{"system": systems[version], "code": code, "display": title}]},
            "subject": {"reference": f"Patient/{person.id}"},
            "encounter": {"reference": f"Encounter/{stay.id}"},
            "onsetDateTime": f"{stay.start.isoformat()}-05:00",
        }
        for number, (code, version, title, _) in enumerate(stay.diagnoses, start=1)
    ]
    return found[::-1]


def observation(person: Person, stay: Stay, number: int, result: Result) -> Resource:
    name = result.test.name + (" (Urine)" if result.test.fluid == "Urine" else "")
    found: Resource = {
        "resourceType": "Observation",
        "id": f"{stay.id}-{number}",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": result.test.loinc, "display": name}]},
        "subject": {"reference": f"Patient/{person.id}"},
        "effectiveDateTime": f"{result.time.isoformat()}-05:00",
        "valueQuantity": {"value": result.number, "unit": result.test.unit},
    }
    if result.named:
        found["encounter"] = {"reference": f"Encounter/{stay.id}"}
    return found


def document(person: Person, stay: Stay) -> Resource:
    data = base64.b64encode(stay.instructions.encode()).decode()
    return {
        "resourceType": "DocumentReference",
        "id": f"{stay.id}-letter",
        "status": "current",
        "type": {"coding": [{"system": "http://loinc.org", "code": "74213-0", "display": "Discharge instructions"}]},
        "subject": {"reference": f"Patient/{person.id}"},
        "date": f"{stay.end.isoformat()}-05:00",
        "content": [{"attachment": {"contentType": "text/plain; charset=utf-8", "data": data}}],
        "context": {"encounter": [{"reference": f"Encounter/{stay.id}"}]},
    }


def resources(people: list[Person]) -> dict[str, list[Resource]]:
    """Return all resources by type."""
    stays = [(person, stay) for person in people for stay in person.stays]
    return {
        "Patient": [patient(person) for person in people],
        "Encounter": [encounter(*each) for each in stays],
        "Condition": [condition for each in stays for condition in conditions(*each)],
        "Observation": [
            observation(person, stay, number, result)
            for person, stay in stays
            for number, result in enumerate(stay.results)
        ],
        "DocumentReference": [document(*each) for each in stays],
    }


def write_lines(path: Path, found: Iterable[Resource]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(each)}\n" for each in found)


def write_fhir(root: Path, people: list[Person]) -> Path:
    """Write a bulk export: one file per type, and a second one of results."""
    for kind, found in resources(people).items():
        half = len(found) // 2 if kind == "Observation" else 0
        write_lines(root / f"{kind}.000.ndjson", found[half:])
        if half:
            write_lines(root / f"{kind}.001.ndjson", found[:half])
    return root


def write_bundles(root: Path, people: list[Person]) -> Path:
    """Write one transaction bundle per person with references by UUID, as Synthea does."""
    root.mkdir(parents=True, exist_ok=True)
    for person in people:
        found = [each for kind in resources([person]).values() for each in kind]
        text = json.dumps([{"fullUrl": f"urn:uuid:{each['id']}", "resource": each} for each in found])
        for kind in ("Patient", "Encounter", "Condition"):
            text = text.replace(f'"reference": "{kind}/', '"reference": "urn:uuid:')
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": json.loads(text)}
        (root / f"person_{person.id}.json").write_text(json.dumps(bundle, indent=2), encoding="utf-8")
    return root
