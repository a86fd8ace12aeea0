"""What `pmlm prepare` says of stages 1 and 2, and of the patients that they learn from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.schema import Cohort
from pmlm_env.cohort.wording import bare, quoted
from pmlm_env.predictors import PredictorReport

#: Number of indicators that the report names, those that fewest patients have; and of labels.
_NAMED = 5


@dataclass(frozen=True)
class Coverage:
    """How much of what the schema lists was measured.

    Attributes:
        patients: Number of patients.
        indicators: Indicator -> share of the patients who have a value of it.
        max_checkups: The longest history that the network of stage 2 and predictors of time series read; of more
            check-ups, the latest.
        cut_patients: Number of patients with a longer one.
        cut_checkups: Number of their check-ups that are not read.
    """

    patients: int
    indicators: Mapping[str, float]
    max_checkups: int
    cut_patients: int = 0
    cut_checkups: int = 0

    @classmethod
    def of(cls, cohort: Cohort) -> Coverage:
        """Return the coverage of a cohort."""
        measured = np.array([(~np.isnan(patient.values)).any(axis=0) for patient in cohort], dtype=np.bool_)
        shares = measured.mean(axis=0).tolist() if len(cohort) else [0.0] * len(cohort.schema.names)
        most = cohort.schema.max_checkups
        extra = [max(0, len(patient.dates) - most) for patient in cohort]
        return cls(
            len(cohort),
            dict(zip(cohort.schema.names, shares, strict=True)),
            most,
            sum(n > 0 for n in extra),
            sum(extra),
        )

    def __str__(self) -> str:
        """Return one line, or two if histories are cut."""
        shares = sorted(self.indicators.items(), key=lambda item: item[1])
        least = ", ".join(f"{bare(name)} {share:.0%}" for name, share in shares[:_NAMED] if share < 1)
        mean = sum(self.indicators.values()) / len(shares)
        line = f"a patient has {mean:.0%} of the {len(shares):,} indicators on average"
        lines = [f"{line}; fewest patients have {least}" if least else line]
        if self.cut_patients:
            lines.append(
                f"histories of more than {self.max_checkups} check-ups (max_checkups of the schema), of which the "
                f"network of stage 2 and predictors of time series read the latest: {self.cut_patients:,} of "
                f"{self.patients:,} patients, {self.cut_checkups:,} check-ups not read"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class PipelineReport:
    """Metrics of stages 1 and 2; splits in which no patient has a label are left out.

    Attributes:
        predictor: Metrics of stage 1 by split; out of fold for train.
        peer_agreement: Share of peers with the patient's label, by split.
        chance_agreement: The same for peers drawn at random from the stays of other people in train, by split.
        unseen: The labels of a split that no training patient has, with the number of patients, by split: they are
            never predicted.
        coverage: What was measured; None if it was not counted.
        split: How the patients were split, and into how many.
    """

    predictor: dict[str, PredictorReport] = field(default_factory=dict)
    peer_agreement: dict[str, float] = field(default_factory=dict)
    chance_agreement: dict[str, float] = field(default_factory=dict)
    unseen: dict[str, dict[str, int]] = field(default_factory=dict)
    coverage: Coverage | None = None
    split: str = ""

    def __str__(self) -> str:
        """Return lines on what was measured, on the splits, and on labels that were not seen in training."""
        lines = [] if self.coverage is None else [str(self.coverage)]
        lines += [f"split: {self.split}"] if self.split else []
        for split, report in self.predictor.items():
            peers, chance = self.peer_agreement[split], self.chance_agreement[split]
            lines.append(f"{split}: {report}; peers with the patient's label {peers:.2f} (by chance {chance:.2f})")
            if unseen := self.unseen.get(split):
                names = [f"{quoted(label)} ({count:,})" for label, count in list(unseen.items())[:_NAMED]]
                more = f" and {len(unseen) - _NAMED:,} more" if len(unseen) > _NAMED else ""
                lines.append(
                    f"{split}: labels that no training patient has, so that they are never predicted (patients): "
                    f"{', '.join(names)}{more}"
                )
        return "\n".join(lines)


def unseen_labels(labels: npt.NDArray[np.str_], training: Iterable[str]) -> dict[str, int]:
    """Return the labels that no training patient has, the most frequent first, with their numbers of patients.

    Args:
        labels: The labels of a split, shape (N,); "" = unknown.
        training: The labels of the training patients.
    """
    seen = {"", *training}
    return dict(Counter(label for label in labels.tolist() if label not in seen).most_common())
