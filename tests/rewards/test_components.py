"""Components about conditions and lengths, with worked examples."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pmlm_env.core.labels import Label
from pmlm_env.envs.lite import lite_episodes
from pmlm_env.rewards.base import ScoredReply
from pmlm_env.rewards.components import Components
from tests.standins import WordScorer

PATIENT = replace(lite_episodes({"train": 1})[0], label="anemia", reference="Anemia was found today.")
CONDITIONS = [Label("anemia"), Label("asthma"), Label("gout")]


def _values(text: str, initial: str = "") -> dict[str, float]:
    names = Components(  # all but those that load weights
        ["diagnosis_named", "diagnosis_possible", "diagnosis_denied", "wrong_diagnosis_named",
         "wrong_diagnosis_possible", "new_wrong_diagnosis", "words", "length_ratio"],
        WordScorer(), None, CONDITIONS,  # type: ignore[arg-type]
    )  # fmt: skip
    found = names([ScoredReply(text, PATIENT, PATIENT.prompt, False, initial or text)])
    return {name: float(values[0]) for name, values in found.items()}


@pytest.mark.parametrize(
    ("text", "named", "possible", "denied"),
    [
        ("Anemia was found.", 1, 0, 0),
        ("Possible anemia.", 1, 1, 0),
        ("Possible anemia. Later tests confirmed anemia.", 1, 0, 0),
        ("No sign of anemia.", 0, 0, 1),
        ("No sign of anemia at first. Anemia was found later.", 1, 0, 0),
        ("All is well.", 0, 0, 0),
    ],
)
def test_the_patients_condition_is_named_considered_or_denied(
    text: str, named: float, possible: float, denied: float
) -> None:
    values = _values(text)
    assert (values["diagnosis_named"], values["diagnosis_possible"], values["diagnosis_denied"]) == (
        named,
        possible,
        denied,
    )
    assert values["wrong_diagnosis_named"] == values["wrong_diagnosis_possible"] == 0


@pytest.mark.parametrize(
    ("text", "named", "possible"),
    [
        ("She has gout.", 1, 0),
        ("Possible gout.", 1, 1),
        ("Possible gout. She has asthma.", 1, 0),
        ("Possible gout. Possible asthma.", 1, 1),
        ("No gout.", 0, 0),
    ],
)
def test_other_conditions_are_possibilities_only_if_all_of_them_are(text: str, named: float, possible: float) -> None:
    values = _values(text)
    assert (values["wrong_diagnosis_named"], values["wrong_diagnosis_possible"]) == (named, possible)
    assert values["diagnosis_named"] == 0


@pytest.mark.parametrize(
    ("initial", "new"), [("", 0), ("All is well.", 2), ("She has gout.", 1), ("She has gout and asthma.", 0)]
)
def test_new_wrong_conditions_are_those_that_the_initial_reply_does_not_name(initial: str, new: float) -> None:
    assert _values("She has anemia, gout and asthma.", initial)["new_wrong_diagnosis"] == new


def test_lengths_are_in_words_and_a_chinese_character_is_one() -> None:
    values = _values("Anemia 贫血.")
    assert (values["words"], values["length_ratio"]) == (4.0, 1.0)  # "Anemia", two characters, "."
