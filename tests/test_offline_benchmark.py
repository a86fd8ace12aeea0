"""benchmarks.offline: deletions read off prompts, and models on effects that are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import offline
from benchmarks.offline import Tried, belonging, by_prompt, deleted_from, measure, replies_of, table, tried
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.llm import Completion, ReplyCache
from pmlm_env.llm.base import Request
from tests.standins import make_episodes

SPLITS = ("train", "test")


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


def test_patients_with_the_same_prompt_count_as_one() -> None:
    one, other = make_episodes(2, n_marked=0)
    episodes = EpisodeSet([other, one, replace(one, patient_id="twin")])
    rows = [Tried(0, (1,), 5.0), Tried(1, (1,), 1.0), Tried(2, (1,), 2.0), Tried(2, (2,), 4.0)]
    assert by_prompt(rows, episodes) == [Tried(0, (1,), 5.0), Tried(1, (1,), 1.5), Tried(2, (2,), 4.0)]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "SIZES", (100,))
    monkeypatch.setattr(offline, "FITS", 3)
    monkeypatch.setattr(offline, "TREES", 30)


def _rows(episodes: EpisodeSet, change: Callable[[tuple[int, ...], np.random.Generator], float]) -> list[Tried]:
    rng, rows = np.random.default_rng(0), []
    for patient in range(len(episodes)):
        for _ in range(20):
            gone = tuple(sorted(rng.choice(12, 3, replace=False).tolist()))
            rows.append(Tried(patient, gone, change(gone, rng)))
    return rows


@pytest.mark.parametrize("effect", [3.0, 0.0])
def test_models_find_an_effect_and_gain_nothing_where_there_is_none(quick: None, effect: float) -> None:
    """Deleting the third word changes the score by a known amount, plus noise."""
    episodes = _episodes()
    rows = _rows(episodes, lambda gone, rng: effect * ((2 in gone) - 0.25) + float(rng.normal(0, 0.5)))
    found = measure(episodes, rows)
    deletions = {part: {(r.patient, r.gone) for r in rows if episodes[r.patient].split == part} for part in SPLITS}
    assert found["deletions"] == {
        **{part: len(each) for part, each in deletions.items()},
        "together": sum(map(len, deletions.values())),
    }
    assert found["prompts"] == {"all": 40, "unseen": 40}
    assert found["chance"]["all"][0] == pytest.approx(0, abs=0.1)
    assert [(each["model"], each["replies"]) for each in found["models"]] == [
        *(("linear", 100), ("trees", 100)),
        *(("linear", len(deletions["train"])), ("trees", len(deletions["train"]))),
    ]
    for each in found["models"]:
        mean, low, high = each["gain"]["all"]
        assert low <= mean <= high <= found["hindsight"]["all"][2]
        assert each["gain"]["unseen"] == each["gain"]["all"]
        assert mean == pytest.approx(np.mean(each["draws"]), abs=0.002)
        if effect and each["replies"] > 100:
            assert low > 1.8  # of 2.25, which deleting the third word gains
            assert each["explained"] > 0.7
            assert each["whole"] < 0.1
        elif not effect:
            assert low < 0 < high
            assert each["explained"] < 0.02


def test_a_model_never_sees_test_patients_scores(quick: None) -> None:
    episodes = _episodes()
    rows = _rows(episodes, lambda gone, rng: float(rng.normal()))
    negated = [row if episodes[row.patient].split == "train" else row._replace(change=-row.change) for row in rows]
    one, other = measure(episodes, rows)["models"], measure(episodes, negated)["models"]
    assert [each["draws"] for each in one] == [[-gain for gain in each["draws"]] for each in other]


def test_a_cache_of_others_and_one_with_two_settings_are_one_line(tmp_path: Path) -> None:
    episodes = _episodes(1, 1)
    with pytest.raises(ValueError, match="no stored reply belongs to a prompt of these episodes: give the cache"):
        tried(episodes, {"somebody else's": "reply"}, _Lengths())
    cache = ReplyCache(tmp_path / "replies.sqlite")
    for tokens in (48, 128):
        identity = json.dumps({"local": "m", "max_new_tokens": tokens})
        assert replies_of(tmp_path / "replies.sqlite", "m") == ({} if tokens == 48 else {"p": "48"})
        cache.put(identity, {Request("p"): Completion(str(tokens), 1, 1, "stop")})
    with pytest.raises(ValueError, match="has replies of m with 2 settings: keep those of one"):
        replies_of(tmp_path / "replies.sqlite", "m")


def test_the_page_has_the_committed_results() -> None:
    folder = Path(__file__).parents[1]
    results = json.loads((folder / "benchmarks/results/offline.json").read_text())
    page = (folder / "docs/learning.md").read_text()
    assert "\n".join(f"    {line}" for line in table(results)) in page
    assert f"{results['deletions']['together']:,} deletions" in page
    assert f"the {results['deletions']['train']:,} from prompts of training patients" in page
