"""benchmarks.offline: deletions read off prompts, and models on effects that are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.offline import Tried, belonging, deleted_from, measure, table, tried, weights_of
from pmlm_env.core.episodes import EpisodeSet
from tests.standins import make_episodes


class _Lengths:
    """A scorer that needs no model: 1 % for each letter of the reply."""

    def f1(self, replies: list[str], references: list[str]) -> np.ndarray:
        return np.asarray([len(reply) / 100 for reply in replies])


def _episodes(n_train: int = 40, n_test: int = 40) -> EpisodeSet:
    episodes = [
        replace(episode, split="train" if number < n_train else "test", peers=("normal",))
        for number, episode in enumerate(make_episodes(n_train + n_test, n_marked=0))
    ]
    return EpisodeSet(episodes)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=8), st.data())
def test_the_slots_that_turn_one_prompt_into_another(initial: list[str], data: st.DataObject) -> None:
    gone = data.draw(st.sets(st.integers(0, len(initial) - 1)))
    words = [word for slot, word in enumerate(initial) if slot not in gone]
    found = deleted_from(initial, words)
    assert found is not None
    assert [word for slot, word in enumerate(initial) if slot not in found] == words
    assert deleted_from(initial, [*words, "d"]) is None


def test_a_prompt_that_may_belong_to_two_patients_is_left_out_unless_it_is_one_of_theirs() -> None:
    first, second = make_episodes(2, n_marked=0)
    pair = EpisodeSet(
        [replace(first, words=(*"abc", *first.words[3:])), replace(first, words=(*"abd", *first.words[3:]))]
    )
    rest = " ".join(first.words[3:])
    texts = {"both": f"a b {rest}", "first": f"a c {rest}", "whole": f"a b d {rest}", "neither": f"b a {rest}"}
    found = belonging(texts.values(), pair)
    assert found == {
        texts["first"]: (pair[0].words, (1,)),
        texts["whole"]: (pair[1].words, ()),
    }
    assert second.words != first.words


def test_changes_are_those_of_every_patient_with_the_prompt() -> None:
    one, other = make_episodes(2, n_marked=0)
    episodes = EpisodeSet([one, replace(one, patient_id="twin"), other])
    replies = {
        " ".join(one.words): "four",
        " ".join(one.words[1:]): "eleven chars",
        " ".join(other.words[2:]): "no whole",
    }
    rows = tried(episodes, replies, _Lengths())
    assert [(row.patient, row.gone) for row in rows] == [(0, (0,)), (1, (0,))]
    assert [row.change for row in rows] == pytest.approx([8.0, 8.0])
    assert weights_of(rows, episodes).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("effect", [2.0, 0.0])
def test_models_find_an_effect_and_gain_nothing_where_there_is_none(effect: float) -> None:
    """Deleting the third word changes the score by a known amount, plus noise."""
    episodes, rng = _episodes(), np.random.default_rng(0)
    rows = []
    for patient in range(len(episodes)):
        for _ in range(20):
            gone = tuple(sorted(rng.choice(12, 3, replace=False).tolist()))
            rows.append(Tried(patient, gone, effect * (2 in gone) - 1 + float(rng.normal(0, 0.5))))
    found = measure(episodes, rows, n_trees=30)
    assert found["prompts"] == {
        part: len({(episodes[r.patient].words, r.gone) for r in rows if episodes[r.patient].split == part})
        for part in ("train", "test")
    }
    models = found["models"]
    assert list(models) == [
        *(f"linear, {name}" for name in ("places", "words", "places and words")),
        *("trees", "trees, with the patient vector"),
    ]
    for name in ("linear, places", "trees"):
        result = models[name]["all"]
        assert result["patients"] == 40
        mean, low, high = result["gain"]
        assert low <= mean <= high <= result["best_in_hindsight"] + 1e-9
        if effect:
            assert low > 0.7  # of 1, the expected gain of deleting the third word
            assert result["r2"] > 0.6
        else:
            assert mean == 0  # every deletion is predicted to harm, so that the prompt is kept whole
            assert result["kept_whole"] == 1
        assert models[name]["new_prompts"] == result  # no test patient has a training patient's prompt


def test_a_model_never_sees_test_patients_rewards() -> None:
    episodes, rng = _episodes(), np.random.default_rng(1)
    rows = [
        Tried(patient, tuple(sorted(rng.choice(12, 3, replace=False).tolist())), float(rng.normal()))
        for patient in range(len(episodes))
        for _ in range(20)
    ]
    negated = [row if episodes[row.patient].split == "train" else row._replace(change=-row.change) for row in rows]
    for name, model in measure(episodes, rows, n_trees=30)["models"].items():
        other = measure(episodes, negated, n_trees=30)["models"][name]
        assert other["all"]["gain"][0] == pytest.approx(-model["all"]["gain"][0])


def test_the_page_has_the_committed_results() -> None:
    folder = Path(__file__).parents[1]
    results = json.loads((folder / "benchmarks/results/offline.json").read_text())
    page = (folder / "docs/learning.md").read_text()
    assert "\n".join(f"    {line}" for line in table(results)) in page
    assert f"the {results['prompts']['train']:,} from prompts of training patients" in page
