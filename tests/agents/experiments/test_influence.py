"""``pmlm experiment influence``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agents import registry
from agents.experiments.influence import Influence
from agents.problem import Problem
from pmlm_env.envs.lite import HashedEncoder
from pmlm_env.llm.responder import Responder
from pmlm_env.rewards.bertscore import BertScorer
from tests.agents.experiments.quick import runs
from tests.agents.experiments.quick_runs import held_out, made_up, quick, result_of, table_after
from tests.commands import pmlm
from tests.real.runs import small_bert

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("quick_stages", "hashed_sentences")]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, quick_stages: None) -> Path:
    out = tmp_path_factory.mktemp("results")
    assert quick("influence", out) == 0
    return out / "influence"


def test_the_changes_are_those_of_the_replies_to_the_prompt_without_the_word(results: Path) -> None:
    changes = result_of(results, row="words")["changes"]
    for place, episode in enumerate(held_out(results)):
        every_20th = range(0, len(episode.words), 20)
        prompts = [" ".join(episode.words[:i] + episode.words[i + 1 :]) for i in every_20th]
        before, *after = [reply.text for reply in Responder().generate([episode.prompt, *prompts])]
        found = {name: [changes[name][place][i] for i in every_20th] for name in ("other_reply", "bertscore_f1")}
        assert found["other_reply"] == [float(text != before) for text in after]
        f1 = BertScorer(str(small_bert()), device="cpu").f1([before, *after], [episode.reference] * (1 + len(after)))
        assert found["bertscore_f1"] == pytest.approx(f1[1:] - f1[0], abs=2e-5)
        others = [value for i, value in enumerate(changes["bertscore_f1"][place]) if i not in every_20th]
        assert others == [None] * (len(episode.words) - len(every_20th))
    assert {value for row in changes["other_reply"] for value in row} == {0.0, 1.0, None}


def test_words_of_few_patients_are_not_in_the_results(results: Path) -> None:
    found, patients = result_of(results, row="words"), held_out(results)
    for episode, places, roles in zip(patients, found["words"], found["roles"], strict=True):
        assert roles == list(episode.roles)
        for word, role, place in zip(episode.words, episode.roles, places, strict=True):
            n_prompts = sum((word, role) in zip(e.words, e.roles, strict=True) for e in patients)
            assert (place is None) == (n_prompts < 3)
            assert place is None or found["vocabulary"][place] == [word, role]
    assert any(place is None for places in found["words"] for place in places)


def test_agents_delete_within_their_budget_and_the_slots_are_in_order(results: Path) -> None:
    edits = registry.make("random-n", seed=0).refine(Problem(held_out(results), HashedEncoder(), None, 10))
    assert result_of(results, row="random-n")["slots"] == [[edit.slot for edit in each] for each in edits]
    assert [run["cell"]["row"] for run in runs(results)] == ["words", "echo", "leave-one-out", "random-n"]


def test_the_picture_names_words_and_agents(results: Path) -> None:
    text = (results / "words.svg").read_text()
    assert all(name in text for name in ("leave-one-out", "random-n", "change of F1"))


def test_protected_words_are_not_left_out_and_have_no_effect(tmp_path: Path) -> None:
    assert quick("influence", tmp_path, "--agents", "random-n", "--protect", "instruction") == 0
    results = tmp_path / "influence"
    found = result_of(results, row="words")
    for changes, roles in zip(found["changes"]["bertscore_f1"], found["roles"], strict=True):
        left_out = {role for change, role in zip(changes, roles, strict=True) if change is not None}
        assert left_out
        assert "instruction" not in left_out
    rows = {row["role"]: row for row in table_after((results / "table.md").read_text(), "When one word is left out")}
    assert rows["instruction"]["F1, change"] == "-"
    assert rows["instruction"]["deleted by random-n, %"] == "0 [0, 0]"


def test_a_dry_run_counts_a_call_for_each_word_that_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--quick", "--llm", "responder", "--agents", "random-n", "--dry-run", "--out", tmp_path]
    assert pmlm("experiment", "influence", *options) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "LLM calls" in line]
    calls = int(line.split(" LLM calls")[0].split()[-1].replace(",", ""))
    assert 10 * (1 + 5) + 10 <= calls <= 10 * (1 + 10) + 10  # ten patients; random deletion needs a reply for each


# Tables of runs whose numbers are known: five words, of which the third is somebody's own

PATIENTS = [f"P{i}" for i in range(12)]
F1 = [-0.02, 0.01, 0.0, 0.03, 0.02]
ROLES = ["self", "self", "self", "instruction", "instruction"]


def words(f1: list[list[float | None]]) -> dict[str, Any]:
    n = len(f1)
    zeros = [[0.0] * 5] * n
    names = ("margin", "diagnosis_named", "wrong_diagnosis_named")
    changed = [[0.0 if not value else 1.0 for value in row] for row in f1]
    return made_up(
        "words",
        {
            "patients": PATIENTS[:n],
            "changes": {"bertscore_f1": f1, **dict.fromkeys(names, zeros), "other_reply": changed},
            "roles": [ROLES] * n,
            "words": [[0, 1, None, 2, 3]] * n,
            "vocabulary": [["fever", "self"], ["high", "self"], ["Write", "instruction"], ["$x$", "instruction"]],
        },
    )


def agent(slots: list[list[int]], seed: int = 0, change: float = 0.0) -> dict[str, Any]:
    n = len(slots)
    metrics = {"bertscore_f1": [change] * n}
    return made_up("mine", {"patients": PATIENTS[:n], "slots": slots, "metrics": metrics}, seed, budget=16)


def tables(*runs: dict[str, Any]) -> str:
    echo = made_up("echo", {"patients": runs[0]["result"]["patients"]})
    return Influence().table([*runs, echo])


def last(text: str) -> dict[str, dict[str, str]]:
    return {row["prompts edited by"]: row for row in table_after(text, "The prompts that agents edited")}


def test_effects_are_means_over_the_words_of_a_role_and_then_over_patients() -> None:
    rows = table_after(tables(words([F1] * 12), agent([[3]] * 6 + [[0, 3]] * 6)), "When one word is left out")
    assert [row["role"] for row in rows] == ["self", "instruction"]
    assert [row["words"] for row in rows] == ["3.0", "2.0"]
    assert [row["F1, change"] for row in rows] == ["-0.33 [-0.33, -0.33]", "+2.50 [+2.50, +2.50]"]
    assert [row["another reply, %"] for row in rows] == ["67 [67, 67]", "100 [100, 100]"]
    assert rows[0]["deleted by mine, %"].startswith("17 [")  # one of three words, with half of the patients
    assert rows[1]["deleted by mine, %"] == "50 [50, 50]"


def test_words_are_sorted_by_their_effect_and_those_of_one_patient_are_left_out() -> None:
    rows = table_after(tables(words([F1] * 12), agent([[3, 0]] * 12)), "By word, ")
    assert [(row["word"], row["role"]) for row in rows] == [
        ("`fever`", "self"), ("`high`", "self"), ("`$x$`", "instruction"), ("`Write`", "instruction"),
    ]  # fmt: skip
    assert [row["F1, change"].split()[0] for row in rows] == ["-2.00", "+1.00", "+2.00", "+3.00"]
    assert [row["at step"] for row in rows] == ["2.0", "-", "-", "1.0"]
    assert {row["prompts"] for row in rows} == {"12"}


def test_the_rank_correlation_is_spearmans_within_each_prompt() -> None:
    # Ranks of the effects: 1, 3, 2, 5, 4. Deleted in the order of the effects, all five: a correlation of 1.
    same, other = [3, 4, 1, 2, 0], [0, 2, 1, 4, 3]
    assert last(tables(words([F1] * 12), agent([same] * 12)))["mine"]["rank correlation with the change of F1"] == (
        "+1.00 [+1.00, +1.00]"
    )
    both = last(tables(words([F1] * 12), agent([same] * 12, 0), agent([other] * 12, 1)))["mine"]
    assert both["rank correlation with the change of F1"] == "+0.00 [-1.00, +1.00]"
    # Swapped neighbors: 1 - 6 sum(d^2) / (n (n^2 - 1)) = 1 - 6 * 2 / 120
    swapped = last(tables(words([F1] * 12), agent([[4, 3, 1, 2, 0]] * 12)))["mine"]
    assert swapped["rank correlation with the change of F1"] == "+0.90 [+0.90, +0.90]"
    assert swapped["of the margin"] == "-"  # all words have the same effect on it


def test_single_changes_are_summed_over_the_deleted_words() -> None:
    row = last(tables(words([F1] * 12), agent([[0, 3, 2]] * 12, change=0.05)))["mine"]
    assert row["sum of the single changes"] == "+1.00 [+1.00, +1.00]"
    assert row["F1, change"] == "+5.00 [+5.00, +5.00]"
    assert row["deleted words that help / harm / do nothing, %"] == "33 / 33 / 33"


def test_patients_who_have_no_correlation_are_left_out() -> None:
    found = last(tables(words([F1] * 11 + [[0.0] * 5]), agent([[3, 4, 1, 2, 0]] * 11 + [[0]])))
    assert found["mine"]["rank correlation with the change of F1"] == "+1.00 [+1.00, +1.00]"


def test_the_untouched_prompts_and_the_echo_are_rows() -> None:
    found = last(tables(words([F1] * 12), agent([[0]] * 12)))
    assert list(found) == ["nobody", "mine", "*echo*"]


def test_a_word_with_dollar_signs_is_drawn_as_it_is() -> None:
    figures = Influence().figures([words([F1] * 12), agent([[4]] * 12)])
    texts = [text.get_text() for ax in figures["words"].axes for text in ax.texts]
    assert "$x$" in texts
