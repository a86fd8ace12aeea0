"""A made-up hospital, from which tests write the same patients in each published format."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pmlm_env.cohort.schema import Indicator, Schema


@dataclass(frozen=True)
class Test:
    item: int
    name: str
    fluid: str
    category: str
    loinc: str
    unit: str
    mean: float
    sd: float
    decimals: int = 1


TESTS = (
    Test(50912, "Creatinine", "Blood", "Chemistry", "2160-0", "mg/dL", 1.0, 0.3),
    Test(51222, "Hemoglobin", "Blood", "Hematology", "718-7", "g/dL", 12.5, 1.5),
    Test(50983, "Sodium", "Blood", "Chemistry", "2951-2", "mEq/L", 139, 3, 0),
    Test(50971, "Potassium", "Blood", "Chemistry", "2823-3", "mEq/L", 4.1, 0.4),
    Test(51301, "White Blood Cells", "Blood", "Hematology", "6690-2", "K/uL", 8.5, 2.5),
    Test(51265, "Platelet Count", "Blood", "Hematology", "777-3", "K/uL", 230, 60, 0),
    Test(50802, "Base Excess", "Blood", "Blood Gas", "11555-0", "mEq/L", -2, 3, 0),
    Test(51478, "Glucose", "Urine", "Hematology", "5792-7", "mg/dL", 120, 40, 0),
)

#: What the tests read the hospital by, so that their names are not those of a catalogue.
SCHEMA = Schema(
    tuple(
        Indicator(f"{test.name} (Urine)", test.unit, synonyms=("urine_glucose",))  # what the catalogue calls its code
        if test.fluid == "Urine"
        else Indicator(test.name, test.unit)
        for test in TESTS
        if test.mean > 0
    )
    + tuple(
        Indicator(name, unit)
        for name, unit in (
            ("Body temperature", "Cel"),
            ("Heart rate", "/min"),
            ("Respiratory rate", "/min"),
            ("Oxygen saturation", "%"),
            ("Systolic blood pressure", "mm[Hg]"),
            ("Diastolic blood pressure", "mm[Hg]"),
            ("Triage acuity", ""),
        )
    )
)

#: ICD code, version, title, chapter.
DIAGNOSES = (
    ("I5033", "10", "Acute on chronic diastolic (congestive) heart failure", "diseases of the circulatory system"),
    ("41401", "9", "Coronary atherosclerosis of native coronary artery", "diseases of the circulatory system"),
    ("J189", "10", "Pneumonia, unspecified organism", "diseases of the respiratory system"),
    ("K5792", "10", "Diverticulitis of intestine, part unspecified", "diseases of the digestive system"),
    ("A419", "10", "Sepsis, unspecified organism", "infectious and parasitic diseases"),
)

SUMMARY = """\
 \nName:  ___                 Unit No:   ___
 \nAdmission Date:  ___              Discharge Date:   ___
 \nDate of Birth:  ___             Sex:   {sex}
 \nService: MEDICINE
 \nAllergies: \nNo Known Allergies / Adverse Drug Reactions
 \nAttending: ___.
 \nChief Complaint:
Shortness of breath
 \nMajor Surgical or Invasive Procedure:
None
 \nHistory of Present Illness:
The patient came with {title}.
 \nPertinent Results:
ADMISSION LABS:
___ 07:40AM BLOOD WBC-8.1 RBC-4.10*
 \nBrief Hospital Course:
Treated for {title}.
 \nMedications on Admission:
None
 \nDischarge Medications:
1. Furosemide 40 mg PO DAILY
 \nDischarge Disposition:
Home
 \nDischarge Diagnosis:
{title}
 \nDischarge Condition:
Mental Status: Clear and coherent.
 \nDischarge Instructions:
{instructions}
 \nFollowup Instructions:
___
"""


@dataclass(frozen=True)
class Result:
    test: Test
    time: datetime
    value: str
    #: Whether the result names its stay.
    named: bool = True

    @property
    def number(self) -> float:
        return float(self.value)


@dataclass
class Stay:
    id: str
    person: str
    start: datetime
    end: datetime
    diagnoses: list[tuple[str, str, str, str]]
    instructions: str
    results: list[Result] = field(default_factory=list)

    def summary(self, sex: str) -> str:
        return SUMMARY.format(sex=sex[0].upper(), title=self.diagnoses[0][2], instructions=self.instructions)


@dataclass
class Person:
    id: str
    sex: str
    born: int
    stays: list[Stay]


def hospital(n_people: int = 30, results_per_stay: int = 12, seed: int = 0, first_year: int = 2150) -> list[Person]:
    """Make people with one to three stays, whose values tell their diagnosis a little.

    Every eighth result is of the emergency department, before the admission, and does not name its stay.
    """
    rng = random.Random(seed)
    people, stay_id = [], 20_000_000
    for number in range(n_people):
        person = Person(str(10_000_000 + 7 * number), rng.choice(("male", "female")), 0, [])
        start = datetime(first_year + rng.randrange(20), 1 + rng.randrange(12), 1 + rng.randrange(28), 8, 30)
        person.born = start.year - rng.randrange(20, 90)
        for _ in range(1 + rng.randrange(3)):
            stay_id += 13
            first = rng.randrange(len(DIAGNOSES))
            diagnoses = [DIAGNOSES[first], DIAGNOSES[(first + 1) % len(DIAGNOSES)]]
            end = start + timedelta(days=1 + rng.randrange(9), hours=5)
            text = f"Dear patient,\n\nyou had {diagnoses[0][2].lower()}. Rest: come back if need be.\n- See a doctor."
            stay = Stay(str(stay_id), person.id, start, end, diagnoses, text)
            length = int((end - start).total_seconds() // 60)
            for k in range(results_per_stay):
                test = TESTS[rng.randrange(len(TESTS))]
                value = f"{rng.gauss(test.mean + first * test.sd / 2, test.sd):.{test.decimals}f}"
                before = k % 8 == 7
                time = start - timedelta(minutes=20) if before else start + timedelta(minutes=rng.randrange(length))
                stay.results.append(Result(test, time, value, named=not before))
            person.stays.append(stay)
            start = end + timedelta(days=30 + rng.randrange(400))
        people.append(person)
    return people


def positive(people: list[Person]) -> list[Person]:
    """Leave the base excess out, whose values are negative."""
    for person in people:
        for stay in person.stays:
            stay.results = [result for result in stay.results if result.test.mean > 0]
    return people


def expected(people: list[Person]) -> dict[tuple[str, str, str], float]:
    """Return (stay, day, test) -> mean value, by brute force."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for person in people:
        for stay in person.stays:
            for result in stay.results:
                name = result.test.name + (" (Urine)" if result.test.fluid == "Urine" else "")
                found.setdefault((stay.id, result.time.date().isoformat(), name), []).append(result.number)
    return {key: sum(values) / len(values) for key, values in found.items()}
