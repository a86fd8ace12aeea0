from __future__ import annotations

from agents.evaluation.cases import first_cases, worst_cases
from pmlm_env.core.edits import deletions
from pmlm_env.core.traces import Trace
from tests.agents.evaluation.made_up import EPISODE, make_trace


def _trace(patient: str, before: float, after: float, wrong: tuple[float, float] = (0.0, 0.0)) -> Trace:
    def components(f1: float, wrong_named: float) -> dict[str, float]:
        return {
            "bertscore_f1": f1,
            "bertscore_precision": f1 + 0.1,
            "bertscore_recall": f1 - 0.1,
            "wrong_diagnosis_named": wrong_named,
        }

    return make_trace(
        patient=patient,
        before=components(before, wrong[0]),
        after=components(after, wrong[1]),
        edits=deletions(EPISODE, (4, 3)),
        reply="A scar, or\nthalassemia.",
    )


def test_those_that_fell_most_come_first_and_those_that_rose_do_not_come() -> None:
    traces = [_trace("a", 0.6, 0.55), _trace("b", 0.6, 0.7), _trace("c", 0.6, 0.5, (0.0, 1.0))]
    text = worst_cases(traces, 3)
    assert text.startswith("2 of 3 patients' F1 fell; the 2 that fell most:")
    assert text.index("c, scar: F1 -10.0 points") < text.index("a, scar: F1 -5.0 points")
    assert "b, scar" not in text
    assert "the 1 that fell most" in worst_cases(traces, 1)


def test_a_case_shows_the_edits_the_replies_and_what_changed() -> None:
    text = worst_cases([_trace("c", 0.6, 0.5, (0.0, 1.0))], 1)
    assert "  prompt     Say it in [one] [sentence.]\n" in text
    assert "  before     A scar.\n" in text
    assert "  after      A scar, or thalassemia.\n" in text
    assert "  reference  A scar. Rest.\n" in text
    assert "precision -10.0, recall -10.0, ROUGE-L +0.0, 2 -> 4 words, a wrong diagnosis gained" in text


def test_where_nobody_was_harmed_the_text_says_so() -> None:
    assert worst_cases([_trace("b", 0.6, 0.7)], 3) == "0 of 1 patients' F1 fell."


def test_the_first_cases_are_the_agents_own_of_patients_with_all_replies() -> None:
    traces = [
        make_trace(patient="a", variant="random", error="the reply was filtered"),
        make_trace(patient="b", variant="random", reply="Drawn."),
        *(_trace(patient, 0.5, 0.6) for patient in "abc"),
    ]
    text = first_cases(traces, 1)
    assert text.startswith("The first 1 of 2 patients:\n\nb, scar: F1 +10.0 points")
    assert "c, scar" not in text
    assert "Drawn." not in text
