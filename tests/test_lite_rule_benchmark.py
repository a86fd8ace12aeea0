"""benchmarks.lite_rule: what hill climbing finds, and that the committed results are those of the committed runs."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from benchmarks.lite_rule import Options, Patients, Rule, climb, measure
from pmlm_env.envs.lite import lite_episodes

pytestmark = pytest.mark.once

PLACES = [("peer", number) for number in range(8)]
COMMITTED = Path(__file__).parents[1] / "benchmarks" / "results" / "lite_rule.json"


@pytest.mark.parametrize("most", [1, 2, 3, 8])
@pytest.mark.parametrize("seed", range(5))
def test_of_places_whose_effects_add_up_it_finds_the_best_that_fit(seed: int, most: int) -> None:
    effects = dict(zip(PLACES, np.random.default_rng(seed).normal(size=len(PLACES)), strict=True))

    def gain(rule: Rule) -> float:
        return float(sum(effects[place] for place in rule))

    every = [rule for size in range(most + 1) for rule in combinations(PLACES, size)]
    assert gain(climb(gain, PLACES, most)) == pytest.approx(max(map(gain, every)))


def test_it_exchanges_a_place_that_was_best_alone_for_two_that_are_better_together() -> None:
    first, *pair = PLACES[:3]

    def gain(rule: Rule) -> float:
        of_pair = len({*pair} & {*rule})
        return 3.0 if of_pair == 2 else 2.0 * (first in rule) + 0.1 * of_pair

    assert {*climb(gain, PLACES, 2)} == {*pair}


def test_a_rule_earns_what_its_deletions_earn_and_no_rule_earns_nothing() -> None:
    patients = Patients(lite_episodes().of("test"), 10)
    assert not patients.rewards(()).any()
    assert patients.rewards((("peer", 2),)).any()


def test_the_committed_results_are_those_of_the_committed_runs() -> None:
    assert measure(Options(COMMITTED.parent / "lite")) == json.loads(COMMITTED.read_text())
