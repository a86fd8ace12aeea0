"""What a patient's own values are worth in a reply: python -m benchmarks.personal_letters --json FILE.

Letters of cohorts simulated with ``--personal`` are compared with replies that are the letter of a training patient
with the same label, with that patient's remarks, without remarks, and with the right ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import tyro

from agents.evaluation.bootstrap import mean_interval
from agents.report.tables import in_points
from pmlm_env.cohort import Cohort, split_by_date
from pmlm_env.cohort.schema import Patient
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.io.files import write_json
from pmlm_env.rewards.bertscore import BertScorer
from pmlm_env.rewards.components import N_CONTRASTS

#: The replies, in the order of the table, by what remarks the other patient's letter has.
REPLIES = ("none", "the other patient's", "the patient's findings, the other's advice", "the patient's")


@dataclass(frozen=True)
class Options:
    """Options of the measurement.

    Attributes:
        json: Output file.
        patients: Number of test patients.
        shares: Shares of the letters that are about the patient's own values.
    """

    json: Path | None = None
    patients: int = 96
    shares: tuple[float, ...] = (0.25, 0.5, 1.0)


def replies_to(patient: Patient, other: Patient) -> dict[str, str]:
    """Return the replies for a patient, made of the letter of another patient.

    Args:
        patient: The patient, of a cohort with the column ``personal``.
        other: The other patient, of the same cohort.
    """
    text, findings, advice, n = _parts(other)
    _, own_findings, own_advice, n_own = _parts(patient)
    own_findings, own_advice = own_findings[len(own_findings) - n_own :], own_advice[len(own_advice) - n_own :]
    rest, pieces = findings[: len(findings) - n], advice[: len(advice) - n]

    def letter(findings: Sequence[str], advice: Sequence[str]) -> str:
        return " ".join([*text, *findings, *([f"Advice: {'; '.join(advice)}."] if advice else [])])

    made = (
        letter(rest, pieces),
        letter(findings, advice),
        letter([*rest, *own_findings], advice),
        letter([*rest, *own_findings], [*pieces, *own_advice]),
    )
    return dict(zip(REPLIES, made, strict=True))


def measure(cohort: Cohort, n_patients: int, scorer: BertScorer) -> dict[str, dict[str, list[float]]]:
    """Return the F1 and the margin of each reply to some test patients.

    Args:
        cohort: A simulated cohort with the column ``personal``.
        n_patients: Number of test patients.
        scorer: BERTScore.
    """
    split, rng = split_by_date(cohort), np.random.default_rng(0)
    references: list[str] = []
    contrasts: list[str] = []
    replies: dict[str, list[str]] = {name: [] for name in REPLIES}
    for index in np.sort(rng.permutation(len(split.test))[:n_patients]).tolist():
        patient = split.test[index]
        same, others = ([p for p in split.train if (p.label == patient.label) == is_same] for is_same in (True, False))
        for name, reply in replies_to(patient, same[int(rng.integers(len(same)))]).items():
            replies[name].append(reply)
        references.append(patient.reference)
        contrasts += [others[int(i)].reference for i in rng.permutation(len(others))[:N_CONTRASTS]]
    found = {}
    for name, texts in replies.items():
        f1 = scorer.f1(texts, references)
        to_others = scorer.f1(np.repeat(texts, N_CONTRASTS).tolist(), contrasts).reshape(-1, N_CONTRASTS)
        found[name] = {"f1": f1.round(5).tolist(), "margin": (f1 - to_others.mean(axis=1)).round(5).tolist()}
    return found


def table(results: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> str:
    """Return a Markdown table of the means and of the gains over the other patient's remarks.

    Args:
        results: What ``measure`` returned for each share.
    """
    lines = ["| share | remarks in the reply | F1 | gain | margin | gain |", "|---|---|---|---|---|---|"]
    for share, replies in results.items():
        for name in REPLIES:
            cells = []
            for metric in ("f1", "margin"):
                values = np.array(replies[name][metric])
                gain = in_points(mean_interval(values - replies[REPLIES[1]][metric], np.random.default_rng(0)))
                cells += [f"{100 * values.mean():.2f}", "" if name == REPLIES[1] else gain]
            lines.append(f"| {share} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _parts(patient: Patient) -> tuple[list[str], list[str], list[str], int]:
    """Return the two sentences that open a letter, its findings, its pieces of advice, and its number of remarks."""
    text, _, advice = patient.reference.partition(" Advice: ")
    ends = [0, *(i + 2 for i in range(len(text) - 2) if text[i : i + 2] == ". " and text[i + 2].isupper()), len(text)]
    sentences = [text[start:end].strip() for start, end in pairwise(ends)]
    n_remarks = len([name for name in patient.extra["personal"].split("; ") if name])
    return sentences[:2], sentences[2:], advice.removesuffix(".").split("; "), n_remarks


def main() -> None:
    """Measure, and print the table."""
    options = tyro.cli(Options)
    scorer = BertScorer()
    results = {
        f"{share:g}": measure(simulate_cohort(personal=share), options.patients, scorer) for share in options.shares
    }
    if options.json is not None:
        write_json(options.json, results)
    print(table(results))


if __name__ == "__main__":
    main()
