"""Cohorts H = {X, Y, R} and the range of their values (paper, "Data").

``X`` are the check-ups, ``Y`` the labels, ``R`` the doctors' replies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pmlm_env.core.labels import Label

#: The largest number of check-ups of one patient in the paper; Eq. 3 pads to it.
MAX_CHECKUPS = 45


@dataclass(frozen=True, slots=True)
class Indicator:
    """One laboratory indicator.

    Attributes:
        name: Column name in data files.
        unit: The unit all values are in; "" = none.
        low: Lower values are impossible in a living adult or in another unit, never merely abnormal; None = no bound.
        high: Higher values are impossible, likewise.
        synonyms: Other names that data files may use for it.
    """

    name: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    synonyms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Schema:
    """What a cohort measures and diagnoses.

    Attributes:
        indicators: The indicators; the columns of ``Patient.values``, in this order.
        labels: The labels whose aliases are known. Patients may have others.
        language: The language of the replies and prompts, as a BCP 47 tag.
        templates: The family of built-in prompt templates that suits these patients: ``general`` or ``obstetric``.
        max_checkups: The longest history that models use (the rows of Eq. 3); of more check-ups, the latest.

    Raises:
        ValueError: There is no indicator, two share a name or a synonym, two labels share a name, bounds are in the
            wrong order, or a value is empty or out of range.
    """

    indicators: tuple[Indicator, ...]
    labels: tuple[Label, ...] = ()
    language: str = "en"
    templates: str = "general"
    max_checkups: int = MAX_CHECKUPS

    @property
    def names(self) -> tuple[str, ...]:
        """The indicators' names."""
        return tuple(indicator.name for indicator in self.indicators)


#: The paper's 35 indicators, in its order. The bounds reject typing errors and wrong units
#: (a hemoglobin of 12.6 g/dL read as g/L), but admit the sickest patients.
INDICATORS: tuple[Indicator, ...] = (
    Indicator("pH", "", 4.0, 9.5),
    Indicator("albumin", "g/L", 5, 80),
    Indicator("total_protein", "g/L", 10, 150),
    Indicator("indirect_bilirubin", "umol/L", 0, 900),
    Indicator("direct_bilirubin", "umol/L", 0, 900),
    Indicator("total_bilirubin", "umol/L", 0, 1200),
    Indicator("alkaline_phosphatase", "U/L", 1, 5000),
    Indicator("alt", "U/L", 0, 20000),
    Indicator("prealbumin", "mg/L", 5, 800),
    Indicator("total_bile_acid", "umol/L", 0, 800),
    Indicator("large_platelet_count", "10^9/L", 0, 1000),
    Indicator("plateletcrit", "%", 0, 3),
    Indicator("large_platelet_ratio", "%", 0, 100),
    Indicator("mpv", "fL", 3, 30),
    Indicator("pdw", "fL", 1, 50),
    Indicator("rdw_cv", "%", 5, 60),
    Indicator("rdw_sd", "fL", 10, 200),
    Indicator("basophil_count", "10^9/L", 0, 50),
    Indicator("basophil_ratio", "%", 0, 100),
    Indicator("eosinophil_count", "10^9/L", 0, 100),
    Indicator("eosinophil_ratio", "%", 0, 100),
    Indicator("monocyte_count", "10^9/L", 0, 200),
    Indicator("monocyte_ratio", "%", 0, 100),
    Indicator("lymphocyte_count", "10^9/L", 0, 500),
    Indicator("lymphocyte_ratio", "%", 0, 100),
    Indicator("neutrophil_count", "10^9/L", 0, 200),
    Indicator("neutrophil_ratio", "%", 0, 100),
    Indicator("mchc", "g/L", 150, 600),
    Indicator("mch", "pg", 8, 70),
    Indicator("hct", "%", 5, 80),
    Indicator("wbc", "10^9/L", 0, 600),
    Indicator("plt", "10^9/L", 0, 3000),
    Indicator("hgb", "g/L", 20, 260),
    Indicator("mcv", "fL", 40, 170),
    Indicator("rbc", "10^12/L", 0.4, 12),
)
INDICATOR_NAMES: tuple[str, ...] = tuple(indicator.name for indicator in INDICATORS)
N_INDICATORS = len(INDICATORS)


#: The paper's 12 labels. No two labels share an alias, so a reply that says only "fetal distress" names neither kind.
LABELS: tuple[Label, ...] = (
    Label("normal", ("normal pregnancy", "healthy pregnancy", "no abnormality", "no abnormal findings"), no_finding=True),
    Label("uterine scar", ("scarred uterus", "previous cesarean section", "previous caesarean section")),
    Label("acute fetal distress (heart type)", ("fetal distress, heart type", "abnormal fetal heart rate")),
    Label(
        "pregnancy complicated with placental dysfunction",
        ("placental dysfunction", "placental insufficiency"),
    ),
    Label(
        "gestational hypertension",
        ("pregnancy-induced hypertension", "hypertensive disorder of pregnancy", "preeclampsia", "pre-eclampsia"),
    ),
    Label("premature rupture of membranes", ("premature rupture of the membranes", "PROM", "PPROM")),
    Label("pregnancy complicated with hypothyroidism", ("hypothyroidism",)),
    Label("uterine rupture", ("rupture of the uterus", "ruptured uterus")),
    Label(
        "acute fetal distress (amniotic fluid type)",
        ("fetal distress, amniotic fluid type", "meconium-stained amniotic fluid"),
    ),
    Label("umbilical cord entanglement", ("cord entanglement", "nuchal cord")),
    Label("thalassemia", ("thalassaemia",)),
    Label("gestational diabetes", ("gestational diabetes mellitus", "GDM")),
)
LABEL_NAMES: tuple[str, ...] = tuple(label.name for label in LABELS)


@dataclass(frozen=True, eq=False)
class Patient:
    """One patient: check-ups, label and doctor's reply.

    Attributes:
        patient_id: Unique within the cohort; never sent to a remote service.
        label: The true condition.
        reference: The reply that the patient's own doctor wrote; "" if there is none.
        split_date: The index date, used to split the cohort into train, validation and test.
        dates: Check-up days in ascending order, shape (n,), datetime64[D].
        values: Indicator values, shape (n, 35), float64, in the order and units of ``INDICATORS``;
            NaN = not measured.
        extra: Any further columns of the patients' table, as read (age, weeks, history, ...).
    """

    patient_id: str
    label: str
    reference: str
    split_date: np.datetime64
    dates: npt.NDArray[np.datetime64]
    values: npt.NDArray[np.float64]
    extra: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the shapes.

        Raises:
            ValueError: ``values`` is not (n, 35), one row per date.
        """
        if self.values.shape != (len(self.dates), N_INDICATORS):
            raise ValueError(
                f"patient {self.patient_id}: values have shape {self.values.shape}, "
                f"expected ({len(self.dates)}, {N_INDICATORS})"
            )


@dataclass(frozen=True, eq=False)
class Cohort(Sequence[Patient]):
    """Patients in a fixed order: H = {X, Y, R}."""

    patients: tuple[Patient, ...]

    def __len__(self) -> int:
        """Return the number of patients, N."""
        return len(self.patients)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        """Return one patient, or the cohort of a slice."""
        if isinstance(index, slice):
            return Cohort(self.patients[index])
        return self.patients[index]

    def __iter__(self) -> Iterator[Patient]:
        """Iterate over the patients in order."""
        return iter(self.patients)

    def take(self, indices: Iterable[int]) -> Cohort:
        """Return the cohort of the patients at ``indices``, in that order."""
        return Cohort(tuple(self.patients[int(i)] for i in indices))

    @cached_property
    def y(self) -> npt.NDArray[np.str_]:
        """Labels, one per patient, shape (N,)."""
        return np.array([patient.label for patient in self.patients], dtype=np.str_)

    @property
    def n_checkups(self) -> int:
        """The total number of check-ups."""
        return sum(len(patient.dates) for patient in self.patients)
