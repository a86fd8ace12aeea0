"""The templates that come with the package."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest

from pmlm_env.cohort import Cohort
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.envs.lite import lite_episodes
from pmlm_env.prompting import TEMPLATES, InitialPrompt, PeerForm
from tests.schemas import LABEL_NAMES

PREDICTED = "gestational diabetes"
PEERS = ("thalassemia", "normal", "thalassemia", "uterine scar", "normal")

#: The first template of this project, word for word.
FIRST: Mapping[str, str] = {
    "background": "A pregnant woman leaves hospital today.",
    "self": "Her laboratory tests suggest {predicted}.",
    "peer": "Of {k} similar past patients, {peers}.",
    "instruction": "State the discharge diagnosis in one sentence, and then give her medical advice.",
}


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return simulate_cohort(12, seed=4)


def _filled(name: str, cohort: Cohort, peers: PeerForm = "counted") -> tuple[str, dict[str, str]]:
    """The prompt of the first patient, whole and by role."""
    prompt = InitialPrompt(name, peers).fill(PREDICTED, PEERS, dict.fromkeys(LABEL_NAMES, 1 / 12), cohort[0])
    by_role: dict[str, list[str]] = {}
    for word, role in zip(prompt.texts, prompt.roles, strict=True):
        by_role.setdefault(role, []).append(word)
    return prompt.text, {role: " ".join(part) for role, part in by_role.items()}


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_is_filled_for_a_patient(name: str, cohort: Cohort) -> None:
    prompt, by_role = _filled(name, cohort)
    assert not {"{", "}"} & set(prompt)
    assert {"background", "self", "instruction"} <= by_role.keys()
    assert (PREDICTED in by_role["self"]) == (name != "raw")
    assert ("peer" in by_role) == (name != "raw")


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_template_needs_a_column_that_a_cohort_may_lack(name: str) -> None:
    InitialPrompt(name).check_columns(())


@pytest.mark.parametrize("name", ["default", "short"])
def test_default_and_short_take_peers_as_they_are_told(name: str, cohort: Cohort) -> None:
    assert "2 of 5 had thalassemia, 2 of 5 had normal, 1 of 5 had uterine scar" in _filled(name, cohort)[1]["peer"]
    assert "; ".join(PEERS) in _filled(name, cohort, "listed")[1]["peer"]


def test_paper_is_long_and_lists_peers_whatever_is_said(cohort: Cohort) -> None:
    counted, listed = (_filled("paper", cohort, peers) for peers in ("counted", "listed"))
    assert counted == listed
    assert len(counted[0].split()) > 100
    assert "; ".join(PEERS) in counted[1]["peer"]


def test_raw_has_the_instruction_of_the_default_and_nothing_of_stages_1_and_2(cohort: Cohort) -> None:
    prompt, by_role = _filled("raw", cohort)
    assert by_role["instruction"] == _filled("default", cohort)[1]["instruction"]
    assert not [label for label in (PREDICTED, *PEERS) if label in prompt]
    other = InitialPrompt("raw").fill("uterine rupture", ("uterine rupture",), {"uterine rupture": 1.0}, cohort[0])
    assert other.text == prompt


def test_short_is_the_first_template_and_lite_keeps_it() -> None:
    assert dict(InitialPrompt("short").parts) == FIRST
    for episode in lite_episodes({"train": 20}):
        counts = ", ".join(f"{n} of 10 had {label}" for label, n in Counter(episode.peers).most_common())
        fields = {"predicted": episode.predicted, "k": 10, "peers": counts}
        assert episode.prompt == " ".join(FIRST.values()).format(**fields)
