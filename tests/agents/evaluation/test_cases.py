from __future__ import annotations

from typing import Any

from agents.evaluation.cases import worst_cases


def _patient(name: str, before: float, after: float, wrong: tuple[float, float] = (0.0, 0.0)) -> dict[str, Any]:
    def arm(f1: float, named: float, reply: str, deleted: tuple[int, ...]) -> dict[str, Any]:
        return {
            "bertscore_f1": f1, "bertscore_precision": f1 + 0.1, "bertscore_recall": f1 - 0.1, "rougeL": 0.2,
            "diagnosis_named": 1.0, "wrong_diagnosis_named": named, "reply": reply, "deleted": deleted,
        }  # fmt: skip

    return {
        "patient_id": name, "label": "scar", "reference": "A scar.\nRest.",
        "words": ["Say", "it", "in", "one", "sentence."],
        "arms": {
            "keep_all": arm(before, wrong[0], "A scar.", ()),
            "policy": arm(after, wrong[1], "A scar, or\nthalassemia.", (3, 4)),
        },
    }  # fmt: skip


def test_those_that_fell_most_come_first_and_those_that_rose_do_not_come() -> None:
    patients = [_patient("a", 0.6, 0.55), _patient("b", 0.6, 0.7), _patient("c", 0.6, 0.5, (0.0, 1.0))]
    told = worst_cases({"patients": patients}, 3)
    assert told.startswith("2 of 3 patients' F1 fell; the 2 that fell most:")
    assert told.index("c, scar: F1 -10.0 points") < told.index("a, scar: F1 -5.0 points")
    assert "b, scar" not in told
    assert "the 1 that fell most" in worst_cases({"patients": patients}, 1)


def test_a_case_shows_what_went_what_came_and_what_changed() -> None:
    told = worst_cases({"patients": [_patient("c", 0.6, 0.5, (0.0, 1.0))]}, 1)
    assert "  prompt     Say it in [one] [sentence.]\n" in told
    assert "  after      A scar, or thalassemia.\n" in told
    assert "  reference  A scar. Rest.\n" in told
    assert "precision -10.0, recall -10.0, ROUGE-L +0.0, 2 -> 4 words, a wrong diagnosis gained" in told


def test_where_nobody_was_harmed_it_says_so() -> None:
    assert worst_cases({"patients": [_patient("b", 0.6, 0.7)]}, 3) == "0 of 1 patients' F1 fell; the 0 that fell most:"
