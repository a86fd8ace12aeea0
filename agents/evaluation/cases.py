"""Prompts and replies of single held-out patients, before and after, with what can be read off them."""

from __future__ import annotations

from typing import Any

_FIGURES = {"bertscore_precision": "precision", "bertscore_recall": "recall", "rougeL": "ROUGE-L"}
_NAMED = {"diagnosis_named": "the right diagnosis", "wrong_diagnosis_named": "a wrong diagnosis"}


def first_cases(evaluation: dict[str, Any], n: int) -> str:
    """Return the first ``n`` patients, chosen by nothing, as text; see ``worst_cases``."""
    patients = evaluation["patients"][:n]
    head = f"The first {len(patients)} of {len(evaluation['patients'])} patients:"
    return "\n\n".join([head, *(_told(patient, _change(patient, "bertscore_f1")) for patient in patients)])


def worst_cases(evaluation: dict[str, Any], n: int) -> str:
    """Return the ``n`` patients whose F1 the policy lowered most, as text; fewer where it lowered fewer.

    Deleted words stand in brackets. References and replies are in it: it stays in the house.

    Args:
        evaluation: What ``evaluate_arms`` returned, or ``evaluation.json`` holds.
        n: How many.
    """
    deltas = [_change(patient, "bertscore_f1") for patient in evaluation["patients"]]
    order = sorted(range(len(deltas)), key=deltas.__getitem__)[:n]
    harmed = [index for index in order if deltas[index] < 0]
    head = f"{sum(delta < 0 for delta in deltas)} of {len(deltas)} patients' F1 fell; the {len(harmed)} that fell most:"
    return "\n\n".join([head, *(_told(evaluation["patients"][index], deltas[index]) for index in harmed)])


def _change(patient: dict[str, Any], metric: str) -> float:
    return patient["arms"]["policy"][metric] - patient["arms"]["keep_all"][metric]


def _told(patient: dict[str, Any], delta: float) -> str:
    before, after = patient["arms"]["keep_all"], patient["arms"]["policy"]
    gone = set(after["deleted"])
    prompt = " ".join(f"[{word}]" if slot in gone else word for slot, word in enumerate(patient["words"]))
    figures = [f"{name} {100 * _change(patient, metric):+.1f}" for metric, name in _FIGURES.items()]
    changes = {metric: _change(patient, metric) for metric in _NAMED}
    named = [
        f"{name} {'gained' if changes[metric] > 0 else 'lost'}" for metric, name in _NAMED.items() if changes[metric]
    ]
    lengths = f"{len(before['reply'].split())} -> {len(after['reply'].split())} words"
    return "\n".join(
        [
            f"{patient['patient_id']}, {patient['label']}: F1 {100 * delta:+.1f} points",
            f"  prompt     {prompt}",
            f"  before     {_line(before['reply'])}",
            f"  after      {_line(after['reply'])}",
            f"  reference  {_line(patient['reference'])}",
            f"  changes    {', '.join([*figures, lengths, *named])}",
        ]
    )


def _line(text: str) -> str:
    return " ".join(text.split())
