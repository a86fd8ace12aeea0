"""Weights and gates of rewards, with worked examples; and the errors in their settings."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.envs.lite import lite_episodes
from pmlm_env.envs.lite.reward import word_f1
from pmlm_env.llm.base import LLM, Completion, LLMError, Reply, Request
from pmlm_env.rewards.base import ScoredReply
from pmlm_env.rewards.components import contrast_letters
from pmlm_env.rewards.delta import DeltaReward, given
from pmlm_env.rewards.guarded import GuardedReward, MarginReward
from pmlm_env.rewards.registry import load_reward
from tests.standins import WordScorer

TRAINING = lite_episodes({"train": 20, "test": 1}).of("train")


def _guarded(settings: Mapping[str, Any] | str, training: EpisodeSet | None = TRAINING) -> GuardedReward:
    return GuardedReward(settings, WordScorer(), training)  # type: ignore[arg-type]


def _values(**columns: list[float]) -> dict[str, np.ndarray]:
    return {name: np.array(column, dtype=np.float64) for name, column in columns.items()}


GATED = {
    "weights": {"bertscore_f1": 2, "words": -0.01},
    "gates": {"length_ratio": {"below": 0.5}, "cut": {"above": 0}},
    "penalty": 0.1,
}


def test_the_score_is_the_weighted_sum() -> None:
    values = _values(bertscore_f1=[0.5, 0.25], words=[10, 40], length_ratio=[0.1, 1], cut=[1, 0])
    assert _guarded(GATED).score(values) == pytest.approx([2 * 0.5 - 0.1, 2 * 0.25 - 0.4])


def test_an_edit_that_trips_no_gate_earns_the_change_of_the_sum() -> None:
    before = _values(bertscore_f1=[0.5], words=[10], length_ratio=[0.4], cut=[1])
    after = _values(bertscore_f1=[0.6], words=[20], length_ratio=[0.4], cut=[1])  # both beyond, as before
    assert _guarded(GATED).change(before, after) == pytest.approx([2 * 0.1 - 0.01 * 10])


@pytest.mark.parametrize(
    ("f1", "ratio", "cut", "earns"),
    [
        (0.6, 0.45, 0, 0.0 - 0.1),  # shorter than the limit: the gain of 0.2 is lost, and the penalty too
        (0.4, 0.45, 0, -0.2 - 0.1),  # a loss stays
        (0.6, 0.5, 0, 0.2),  # the limit itself is allowed
        (0.6, 0.9, 1, 0.0 - 0.1),  # the other gate
        (0.6, 0.4, 1, 0.0 - 0.1),  # both gates: one penalty
    ],
)
def test_an_edit_that_trips_a_gate_earns_no_gain_and_pays_the_penalty(
    f1: float, ratio: float, cut: float, earns: float
) -> None:
    before = _values(bertscore_f1=[0.5], words=[10], length_ratio=[0.9], cut=[0])
    after = _values(bertscore_f1=[f1], words=[10], length_ratio=[ratio], cut=[cut])
    assert _guarded(GATED).change(before, after) == pytest.approx([earns])


def test_a_reply_that_was_beyond_the_limit_must_not_go_further_beyond() -> None:
    before = _values(bertscore_f1=[0.5] * 3, words=[10] * 3, length_ratio=[0.3] * 3, cut=[0] * 3)
    after = _values(bertscore_f1=[0.6] * 3, words=[10] * 3, length_ratio=[0.29, 0.3, 0.4], cut=[0] * 3)
    assert _guarded(GATED).change(before, after) == pytest.approx([-0.1, 0.2, 0.2])


def test_slack_is_how_much_further_beyond_the_limit_a_reply_may_be() -> None:
    reward = _guarded({"weights": {"words": 1}, "gates": {"words": {"above": 10, "slack": 5}}, "penalty": 20})
    before, after = _values(words=[8, 8, 12, 12]), _values(words=[13, 14, 17, 18])
    assert reward.change(before, after) == pytest.approx([5, -20, 5, -20])


def test_a_component_without_a_value_before_or_after_counts_as_unchanged_and_trips_nothing() -> None:
    reward = _guarded({"weights": {"advice": 1, "words": 0.1}, "gates": {"numbers_right": {"below": 0.9}}})
    nan = float("nan")
    before = _values(advice=[nan, 0.5, 0.5], words=[1] * 3, numbers_right=[nan, 1, 1])
    after = _values(advice=[0.5, nan, 0.75], words=[2] * 3, numbers_right=[0.5, nan, 0.95])
    assert reward.change(before, after) == pytest.approx([0.1, 0.1, 0.35])
    assert reward.score(after) == pytest.approx([0.7, 0.2, 0.95])


@pytest.mark.parametrize(("side", "share"), [("above", 0.95), ("below", 0.05)])
def test_a_limit_of_letters_is_their_percentile_each_against_its_own_prompt(side: str, share: float) -> None:
    reward = _guarded({"weights": {"words": 1}, "gates": {"copy": {side: "letters"}}})
    copies = [word_f1(episode.reference, episode.prompt) for episode in TRAINING]
    assert reward.limits == {"copy": pytest.approx(np.quantile(copies, share), abs=1e-6)}


def test_margin_earns_the_change_of_the_margin() -> None:
    episode = TRAINING[0]
    first, second = "Take iron.", f"{episode.reference} Take iron."
    reward = DeltaReward(TRAINING, _Fixed([first, second]), MarginReward(WordScorer(), TRAINING))  # type: ignore[arg-type]
    letters = contrast_letters(episode, TRAINING)

    def margin(text: str) -> float:
        return word_f1(text, episode.reference) - float(np.mean([word_f1(text, letter) for letter in letters]))

    outcomes = reward([0], ["shorter"])
    assert outcomes.components["margin"] == pytest.approx([margin(second)], abs=1e-6)
    assert outcomes.delta == pytest.approx([margin(second) - margin(first)], abs=1e-6)


class _Fixed(LLM):
    """Replies to initial prompts with the first text, and to any other prompt with the second.

    A text may be a list of samples; None = no reply.
    """

    identity = "fixed"

    def __init__(self, texts: Sequence[Any], cut: bool = False) -> None:
        self.texts, self.cut = texts, cut

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        initial = {episode.prompt for episode in TRAINING}
        yield {i: self._reply(request, request.prompt not in initial) for i, request in enumerate(requests)}

    def _reply(self, request: Request, refined: bool) -> Reply:
        texts = self.texts[refined]
        text = texts[request.sample] if isinstance(texts, list) else texts
        if text is None:
            return LLMError("the endpoint is down")
        return Completion(text, 1, 1, "length" if self.cut and refined else "stop")


COPIES = {"weights": {"copy": 1, "bertscore_f1": 1}, "gates": {"copy": {"above": 0}}, "penalty": 1}


def test_the_same_reply_to_a_shorter_prompt_earns_exactly_nothing() -> None:
    prompt = " ".join(TRAINING[0].words[:3])
    outcomes = DeltaReward(TRAINING, _Fixed([prompt, prompt]), _guarded(COPIES))([0], [prompt])
    assert outcomes.components["copy"][0] > outcomes.initial_components["copy"][0]  # it copies the shorter one whole
    assert outcomes.delta.tolist() == [0.0]


def test_gates_look_at_the_mean_of_several_samples() -> None:
    settings = {"weights": {"words": 1}, "gates": {"words": {"above": 2.5}}, "penalty": 5}
    few, many = ["one", "one two"], ["one two", "one two three four"]
    outcomes = DeltaReward(TRAINING, _Fixed([few, many]), _guarded(settings), n_samples=2)([0], ["x"])
    assert outcomes.components["words"].tolist() == [3.0]
    assert outcomes.initial_components["words"].tolist() == [1.5]
    assert (outcomes.score[0], outcomes.initial_score[0]) == (3.0, 1.5)
    assert outcomes.score_sd == pytest.approx([np.std([2, 4], ddof=1)])
    assert outcomes.delta.tolist() == [0.0 - 5]


def test_a_mean_over_samples_leaves_out_those_without_a_value() -> None:
    settings = {"weights": {"numbers_right": 1}}
    replies = [["none", "none"], [f"none but {TRAINING[0].words[0]}", "7 and 12"]]
    outcomes = DeltaReward(TRAINING, _Fixed(replies), _guarded(settings), n_samples=2)([0], ["it was 12"])
    assert outcomes.components["numbers_right"].tolist() == [0.5]
    assert np.isnan(outcomes.initial_components["numbers_right"]).all()
    assert outcomes.delta.tolist() == [0.0]


@pytest.mark.parametrize("texts", [(None, "a reply"), ("a reply", None)])
def test_an_episode_without_a_reply_earns_nothing_and_has_no_components(texts: tuple[Any, Any]) -> None:
    outcomes = DeltaReward(TRAINING, _Fixed(texts), _guarded(GATED))([0], ["x"])
    assert outcomes.errors == ["the endpoint is down"]
    assert outcomes.delta.tolist() == [0.0]
    assert np.isnan(outcomes.components["words"]).all()


def test_a_cut_reply_and_a_new_wrong_condition_are_known_from_the_llm_and_the_first_reply() -> None:
    settings = {"weights": {"words": 1}, "gates": {"cut": {"above": 0}, "new_wrong_diagnosis": {"above": 0}}}
    wrong = next(label for label in TRAINING.labels if label != TRAINING[0].label)
    other = next(label for label in TRAINING.labels if label not in (wrong, TRAINING[0].label))
    reward = DeltaReward(TRAINING, _Fixed([f"{wrong}.", f"{wrong}. {other}."], cut=True), _guarded(settings))
    outcomes = reward([0], ["x"])
    assert outcomes.components["cut"].tolist() == outcomes.components["new_wrong_diagnosis"].tolist() == [1.0]
    assert outcomes.initial_components["cut"].tolist() == [0.0]
    assert outcomes.initial_components["new_wrong_diagnosis"].tolist() == [0.0]
    assert outcomes.delta.tolist() == [0.0]


def test_given_replies_are_judged_like_those_of_the_llm() -> None:
    first, second = "Take iron.", "Take iron twice a day."
    asked = DeltaReward(TRAINING, _Fixed([first, second], cut=True), _guarded(GATED))([0, 1], ["x", "y"])
    reward = DeltaReward(TRAINING, _Fixed([first, None]), _guarded(GATED))
    outcomes = reward.of_replies([0, 1], ["x", "y"], [[given(second, cut=True)]] * 2)
    assert outcomes.delta.tolist() == asked.delta.tolist()
    assert outcomes.components["cut"].tolist() == [1.0, 1.0]
    assert outcomes.llm_calls.tolist() == [1, 1]  # those for the initial prompts
    assert reward.of_replies([0], ["x"], [[given(first)]]).delta.tolist() == [0.0]


def _refused(folder: Path, text: str, message: str) -> None:
    file = folder / "my.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"^{re.escape(str(file))}{re.escape(message)}") as caught:
        _guarded(str(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("weights = 3", ": weights is 3: use a table"),
        ("[weights]\nf1 = 1", ": weights has an unknown name, 'f1': use bertscore_precision, bertscore_recall, "),
        ("[weights]\nmargin = true", ": weights.margin is true: use a number from -1e9 to 1e9"),
        ("[weights]\nmargin = 'one'", ": weights.margin is text: use a number from -1e9 to 1e9"),
        ("[weights]\nmargin = nan", ": 'margin' is nan, which is not allowed"),
        ("penalty = 1", ": weights has no component with a weight: give one or more"),
        ("[weights]\nmargin = 0", ": weights has no component with a weight: give one or more"),
        ("penalty = -1\n[weights]\nmargin = 1", ": penalty is -1: use a number from 0 to 1e9"),
        ("gate = 1\n[weights]\nmargin = 1", " has an unknown name, 'gate': use weights, gates, penalty"),
        ("[weights]\nmargin = 1\n[gates.cat]\nabove = 1", ": gates has an unknown name, 'cat': use bertscore_prec"),
        ("[weights]\nmargin = 1\n[gates]\ncut = 1", ": gates: cut is 1: use a table"),
        ("[weights]\nmargin = 1\n[gates.cut]", ": gates.cut has no limit: give either above or below"),
        (
            "[weights]\nmargin = 1\n[gates.cut]\nabove = 1\nbelow = 2",
            ": gates.cut has above and below: give either above or below",
        ),
        (
            "[weights]\nmargin = 1\n[gates.cut]\nover = 1",
            ": gates: cut has an unknown name, 'over': use above, below, slack",
        ),
        (
            "[weights]\nmargin = 1\n[gates.cut]\nabove = 'most'",
            ': gates.cut.above is text: use a number from -1e9 to 1e9, or "letters"',
        ),
        ("[weights]\nmargin = 1\n[gates.cut]\nabove = 1\nslack = -1", ": gates.cut.slack is -1: use a number from 0"),
        ("weights: 1", " is not TOML: "),
    ],
)
def test_settings_that_cannot_be_right_are_one_line_that_names_the_file(
    tmp_path: Path, text: str, message: str
) -> None:
    _refused(tmp_path, text, message)


def test_a_missing_settings_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^cannot read .*my\.toml: No such file"):
        _guarded(str(tmp_path / "my.toml"))


def test_an_error_in_settings_given_as_tables_is_one_of_the_reward() -> None:
    with pytest.raises(
        ValueError, match=r"^the settings of the reward: weights\.margin is text: use a number from -1e9 to 1e9"
    ):
        _guarded({"weights": {"margin": "1"}})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": {"margin": 1}}, "the component margin needs letters of training patients of two conditions"),
        (
            {"weights": {"words": 1}, "gates": {"copy": {"above": "letters"}}},
            'the limit "letters" needs letters of training patients, and there are none',
        ),
    ],
)
def test_what_needs_training_letters_says_so_if_there_are_none(settings: dict[str, Any], message: str) -> None:
    without = EpisodeSet([replace(episode, reference="") for episode in TRAINING])
    for training in (None, without):
        with pytest.raises(ValueError, match=f"^{message}"):
            _guarded(settings, training)


def test_a_reward_without_a_margin_needs_no_training_letters() -> None:
    assert _guarded(GATED, training=None).names == ("bertscore_f1", "words", "length_ratio", "cut")


def test_the_reward_margin_takes_no_settings() -> None:
    with pytest.raises(ValueError, match=r"^the reward margin does not take these arguments: .*settings"):
        load_reward("margin", {"settings": "my.toml"}, training=TRAINING)


class _Episodes:
    """Has the names of components that it does not return."""

    names = ("length", "label")

    def __init__(self, returns: Any) -> None:
        self.returns = returns

    def components(self, replies: Sequence[Any]) -> Any:
        return self.returns

    def score(self, components: Mapping[str, Any]) -> Any:
        return components["length"]

    def change(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> Any:
        return after["length"] - before["length"]


@pytest.mark.parametrize(
    ("returns", "message"),
    [
        ({"length": [1.0, 2.0]}, "returned other components than length, label: its method components should return a"),
        ([1.0, 2.0], "returned other components than length, label: its method components should return a dictionary"),
        (
            {"length": [1.0, 2.0], "label": ["a", "b"]},
            "returned values of type list that are not numbers as label: its method components should return one "
            "number, or NaN, for each of 2 replies, of shape (2,)",
        ),
        ({"length": [1.0, 2.0], "label": [1.0]}, "returned numbers of shape (1,) as label: its method components"),
        (
            {"length": [float("nan")] * 2, "label": [1.0, 2.0]},
            "returned nan at index 0: its method score should return one finite number for each of 2 replies",
        ),
    ],
)
def test_components_that_cannot_be_right_are_one_error_that_names_the_class(returns: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^the reward _Episodes {re.escape(message)}"):
        DeltaReward(TRAINING, _Fixed(["a", "b"]), _Episodes(returns))([0], ["x"])


@pytest.mark.parametrize("names", [None, (), "ab", (1, 2), 5])
def test_names_of_components_that_are_no_list_of_texts_are_one_error(names: Any) -> None:
    reward = _Episodes({})
    reward.names = names
    with pytest.raises(ValueError, match=r"^the reward _Episodes has no names of components: its attribute names"):
        DeltaReward(TRAINING, _Fixed(["a", "b"]), reward)


class _InPlace(_Episodes):
    """Computes its score in an array that it was given."""

    def score(self, components: Mapping[str, Any]) -> Any:
        found = components["length"]
        found -= 0.5 * components["label"]
        return found


class _InPlaceChange(_Episodes):
    """Computes what an edit earns in an array that it was given."""

    def change(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> Any:
        after["length"][:] -= before["length"]
        return after["length"]


@pytest.mark.parametrize("kind", [_InPlace, _InPlaceChange])
def test_a_reward_cannot_change_the_components_that_infos_show_and_changes_are_made_of(kind: type[_Episodes]) -> None:
    reward = kind({"length": [1.0, 2.0], "label": [1.0, 2.0]})
    with pytest.raises(ValueError, match="read-only"):
        DeltaReward(TRAINING, _Fixed(["a", "b"]), reward)([0], ["x"])


class _NoChange:
    """Lacks a method that a reward with components needs."""

    names = ("length",)

    def components(self, replies: Sequence[Any]) -> Any:
        raise AssertionError("it was asked")

    score = components


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (_NoChange(), "the reward _NoChange lacks change: it should have the methods components, score, change, see"),
        (len, "the reward builtin_function_or_method lacks score: it should have the method score, see docs/rewards"),
    ],
)
def test_a_reward_that_lacks_a_method_is_told_before_the_llm_is_asked(reward: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        DeltaReward(TRAINING, _Fixed([]), reward)


def test_the_copy_of_the_initial_prompt_does_not_depend_on_the_prompt_that_was_asked() -> None:
    text = " ".join(TRAINING[0].words[:5])
    settings = {"weights": {"initial_copy": 1, "copy": 1, "bertscore_f1": 1}}
    outcomes = DeltaReward(TRAINING, _Fixed(["other", text]), _guarded(settings))([0, 0], ["shorter", text])
    copied = word_f1(text, TRAINING[0].prompt)
    assert outcomes.components["initial_copy"] == pytest.approx([copied, copied])
    assert outcomes.components["copy"] == pytest.approx([0.0, 1.0])
    assert outcomes.components["bertscore_f1"] == pytest.approx([word_f1(text, TRAINING[0].reference)] * 2)


def test_a_condition_that_only_test_patients_have_is_a_wrong_one_too() -> None:
    everybody = lite_episodes({"train": 20, "test": 1})
    rare = everybody.part([*everybody.of("train"), replace(everybody.of("test")[0], label="gout")])
    training = EpisodeSet([*rare]).of("train")
    reward = GuardedReward({"weights": {"new_wrong_diagnosis": -1}}, WordScorer(), training)  # type: ignore[arg-type]
    patient = training[0]
    reply = ScoredReply("The diagnosis is gout.", patient, patient.prompt, False, patient.label)
    assert reward.components([reply])["new_wrong_diagnosis"].tolist() == [1]
