"""Experiments with several replies to each prompt: their scores are means over the replies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from agents import registry
from agents.problem import Problem
from pmlm_env.core.edits import apply_edits
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.envs.lite import HashedEncoder
from pmlm_env.rewards.bertscore import BertScorer
from tests.agents.experiments.quick import prepared
from tests.agents.experiments.quick_runs import held_out, quick, result_of
from tests.own_parts import Sampled
from tests.real.runs import small_bert

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("quick_stages", "hashed_sentences", "no_figures")]

LLM = ["--llm", "tests.own_parts:Sampled", "--n-samples", "3"]


def f1(patients: EpisodeSet, prompts: Sequence[str]) -> np.ndarray:
    """Return the mean F1 of three replies to each patient's prompt."""
    scorer, references = BertScorer(str(small_bert()), device="cpu"), [episode.reference for episode in patients]
    found = [scorer.f1([Sampled.sample(prompt, n) for prompt in prompts], references) for n in range(3)]
    assert np.abs(found[0] - found[1]).min() > 1e-4
    return np.mean(found, axis=0)


def refined(patients: EpisodeSet) -> list[str]:
    """Return the prompts as random deletion leaves them."""
    problem = Problem(patients, HashedEncoder(), None, 10)
    return list(apply_edits(patients, range(len(patients)), registry.make("random-n", seed=0).refine(problem)))


@pytest.fixture(scope="module")
def influence(tmp_path_factory: pytest.TempPathFactory, quick_stages: None) -> Path:
    out = tmp_path_factory.mktemp("results")
    assert quick("influence", out, "--agents", "random-n", *LLM, llm=False) == 0
    return out / "influence"


def test_an_agents_replies_and_those_to_the_untouched_prompts_count_all(influence: Path) -> None:
    patients = held_out(influence)
    for row, prompts in (("words", [episode.prompt for episode in patients]), ("random-n", refined(patients))):
        assert result_of(influence, row=row)["metrics"]["bertscore_f1"] == pytest.approx(
            f1(patients, prompts), abs=2e-5
        )


def test_the_effect_of_a_word_is_the_change_of_the_mean_and_the_share_of_replies_that_change(influence: Path) -> None:
    patients, changes = held_out(influence), result_of(influence, row="words")["changes"]
    for slot in (0, 20):
        without = [" ".join(e.words[:slot] + e.words[slot + 1 :]) for e in patients]
        change = f1(patients, without) - f1(patients, [episode.prompt for episode in patients])
        assert [row[slot] for row in changes["bertscore_f1"]] == pytest.approx(change, abs=4e-5)
        shares = [
            np.mean([Sampled.sample(shorter, n) != Sampled.sample(episode.prompt, n) for n in range(3)])
            for episode, shorter in zip(patients, without, strict=True)
        ]
        assert [row[slot] for row in changes["other_reply"]] == pytest.approx(shares, abs=1e-5)


def test_so_do_the_replies_to_raw_data_and_at_each_share_of_the_deletion_curve(tmp_path: Path) -> None:
    assert quick("table-1", tmp_path, "--agents", "random-n", "--send-values", *LLM, llm=False) == 0
    (raw,) = (episodes.of("test") for episodes in prepared(tmp_path / "table-1") if "check-up" in episodes[0].prompt)
    found = result_of(tmp_path / "table-1", row="raw-data")
    expected = f1(raw, [episode.prompt for episode in raw])
    assert found["metrics"]["bertscore_f1"] == pytest.approx(expected, abs=2e-5)
    assert quick("deletion-curve", tmp_path, "--agents", "random-n", *LLM, llm=False) == 0
    curve = result_of(tmp_path / "deletion-curve", agent="random-n")
    untouched = result_of(tmp_path / "table-1", row="keep-all")["metrics"]["bertscore_f1"]
    assert curve["metrics"]["bertscore_f1"][0] == untouched
