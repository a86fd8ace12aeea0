"""``pmlm experiment figure-6``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from agents import registry
from agents.experiments.figure_6 import Figure6
from agents.problem import Problem
from pmlm_env.core.edits import apply_edits
from pmlm_env.envs.lite import HashedEncoder
from pmlm_env.llm.responder import Responder
from tests.agents.experiments.quick import runs
from tests.agents.experiments.quick_runs import held_out, made_up, quick, result_of, table_after

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("quick_stages", "hashed_sentences")]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, quick_stages: None) -> Path:
    out = tmp_path_factory.mktemp("results")
    assert quick("figure-6", out) == 0
    return out / "figure-6"


def test_there_are_runs_of_the_controls_and_of_the_default_agent(results: Path) -> None:
    assert [run["cell"]["row"] for run in runs(results)] == ["echo", "keep-all", "leave-one-out", "random-n"]


def test_the_slots_are_those_that_the_agent_deletes_in_order_and_the_metrics_those_of_the_replies(
    results: Path,
) -> None:
    patients = held_out(results)
    edits = registry.make("random-n", seed=0).refine(Problem(patients, HashedEncoder(), None, 10))
    found = result_of(results, row="random-n")
    assert found["slots"] == [[edit.slot for edit in each] for each in edits]
    replies = Responder().generate(list(apply_edits(patients, range(len(patients)), edits)))
    assert found["metrics"]["words"] == [len(reply.text.split()) for reply in replies]


def test_what_stands_at_a_position_is_the_most_common_role_and_its_most_common_word(results: Path) -> None:
    patients = held_out(results)
    positions = result_of(results, row="keep-all")["positions"]
    assert len(positions) == min(100, patients.max_words)
    role, word, n = positions[2]
    assert (role, word, n) == ("background", "woman", 10)
    for place, (role, word, n) in enumerate(positions):
        there = [(e.roles[place], e.words[place]) for e in patients if place < len(e.words)]
        assert Counter(r for r, _ in there)[role] == max(Counter(r for r, _ in there).values())
        assert n == max(Counter(w for r, w in there if r == role).values())
        if word is not None:
            assert sum((word, role) in zip(e.words, e.roles, strict=True) for e in patients) >= 3


def test_words_of_few_patients_are_not_in_the_results(results: Path) -> None:
    patients = held_out(results)
    listed = {word for _, word, _ in result_of(results, row="keep-all")["positions"]}
    rare = {word for e in patients for word in e.words if sum(word in other.words for other in patients) < 3}
    assert rare
    assert not rare & listed


def test_the_table_has_the_positions_that_are_deleted_most_often(results: Path) -> None:
    slots = result_of(results, row="random-n")["slots"]
    counts = Counter(slot for of_prompt in slots for slot in of_prompt)
    rows = table_after((results / "table.md").read_text(), "The positions that random-n deletes most often")
    assert len(rows) == 10
    for row in rows:
        slot = int(row["position"]) - 1
        assert row["prompts in which it is deleted, %"].split()[0] == f"{10 * counts[slot]}"
        steps = [1 + of_prompt.index(slot) for of_prompt in slots if slot in of_prompt]
        assert row["step"] == f"{np.mean(steps):.1f}"
    assert counts[int(rows[0]["position"]) - 1] == max(counts.values())


def test_the_heat_maps_have_the_agents_and_the_roles(results: Path) -> None:
    text = (results / "heat-map.svg").read_text()
    assert all(name in text for name in ("leave-one-out", "random-n", "background", "peer", "instruction", "step"))
    assert "keep-all" not in text


def test_seeds_are_averaged_and_changes_have_intervals() -> None:
    patients = [f"P{i}" for i in range(40)]
    f1 = np.linspace(0.5, 0.7, 40)
    positions = [["self", "Her", 40], ["self", None, 1], ["peer", "Of", 40]]
    slots = [[[0, 1]] * 40, [[1, 0]] * 20 + [[2, 0]] * 20]
    runs = [
        made_up("keep-all", {"patients": patients, "metrics": {"bertscore_f1": f1.tolist()}, "positions": positions}),
        *(
            made_up(
                "mine", {"patients": patients, "metrics": {"bertscore_f1": (f1 + 0.01).tolist()}, "slots": each}, seed
            )
            for seed, each in enumerate(slots)
        ),
        made_up("echo", {"patients": patients, "metrics": {"bertscore_f1": (f1 - 0.02).tolist()}}),
    ]
    text = Figure6().table(runs)
    rows = {row["prompts edited by"]: row for row in table_after(text, "| prompts edited by")}
    assert rows["mine"]["F1, change"] == "+1.00 [+1.00, +1.00]"
    assert rows["*echo*"]["F1, change"] == "-2.00 [-2.00, -2.00]"
    assert rows["mine"]["seeds"] == "2"
    assert rows["mine"]["different edits"] == "2"  # 1 with the first seed, 2 with the second, rounded half to even
    assert rows["mine"]["positions with half of the deletions"] == "1"
    first, second, third = table_after(text, "The positions that mine deletes most often")
    assert (first["position"], first["word"], first["step"]) == ("1", "`Her`", "1.5")
    assert first["prompts in which it is deleted, %"] == "100 [100, 100]"
    assert (second["position"], second["word"]) == ("2", "(varies)")
    assert second["prompts in which it is deleted, %"].startswith("75 [")
    assert third["prompts in which it is deleted, %"].startswith("25 [")


@pytest.mark.filterwarnings("error")
def test_an_agent_that_deletes_nothing_has_an_empty_heat_map_and_no_table() -> None:
    unedited = {"patients": ["P0", "P1"], "slots": [[], []]}
    some = [
        made_up("keep-all", {**unedited, "positions": [["self", "gout", 2]] * 3}),
        made_up("leave-one-out", unedited, budget=16),
    ]
    assert Figure6().table(some).rstrip().endswith("It deletes none.")
    (drawn,) = Figure6().figures(some).values()
    assert not np.asarray(drawn.axes[0].images[0].get_array()).any()
    drawn.draw_without_rendering()
