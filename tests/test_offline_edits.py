"""benchmarks.offline_edits: what trees and a rule choose where replies are exact, and the committed results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from agents.baselines.single_rule import RolePlace, role_places
from agents.baselines.tree_surrogate import TreeSurrogate
from agents.benchmark.patients import LitePatients
from agents.problem import Problem
from benchmarks.offline import Tried
from benchmarks.offline_edits import SIZES, best_rule, measure, table
from pmlm_env.core.edits import apply_edits, deletions

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
COMMITTED = ROOT / "benchmarks" / "results" / "offline_edits.json"


@pytest.fixture(scope="module")
def patients() -> LitePatients:
    return LitePatients("validation")


class Additive(TreeSurrogate):
    """Predicts the sum of what each place is worth."""

    def __init__(self, worth: dict[RolePlace, float]) -> None:
        super().__init__()
        self.places, self.worth = tuple(worth), worth

    def predicted(
        self, problem: Problem, patients: Sequence[int], deleted: Sequence[tuple[int, ...]]
    ) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        own = [role_places(problem.episodes[i].roles) for i in patients]
        return np.array([sum(self.worth[own[n][slot]] for slot in slots) for n, slots in enumerate(deleted)])


def test_the_rule_has_the_places_that_are_worth_most_in_the_mean_of_all_prompts(patients: LitePatients) -> None:
    worth = {("self", 0): 1.0, ("peer", 0): 3.0, ("peer", 1): -1.0, ("instruction", 2): 2.0, ("background", 9999): 9.0}
    problem = Problem(patients.train, patients.encoder, None, 10)
    assert best_rule(Additive(worth), problem, 3) == (("peer", 0), ("instruction", 2), ("self", 0))


def test_trees_learn_from_deletions_that_others_tried_and_a_rule_comes_close(patients: LitePatients) -> None:
    rng, train = np.random.default_rng(0), patients.train
    rows = []
    for number in rng.integers(len(train), size=400).tolist():
        slots = rng.permutation(train.lengths[number])[: rng.integers(1, 11)].tolist()
        rows.append((number, tuple(sorted(slots))))
    index = [number for number, _ in rows]
    edited = apply_edits(train, index, [deletions(train[number], slots) for number, slots in rows])
    changes = 100 * patients.reward("train")(index, edited).delta
    found = measure([Tried(*row, change) for row, change in zip(rows, changes.tolist(), strict=True)], patients)
    gains = {name: np.mean(of["deltas"]) for name, of in found["editors"].items()}
    assert gains["tree-surrogate"] > 0.3
    assert max(gains[f"rule of {size}"] for size in SIZES) > 0.2
    assert found["replies"] == 400


def test_the_page_has_the_committed_results() -> None:
    results = json.loads(COMMITTED.read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "learning.md").read_text(encoding="utf-8")
    assert all(line in page for line in table(results).splitlines())
