"""The text env: what a language model reads, what its calls do, and that its edits earn what they earn in PMLM-v0."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from pmlm_env.core.outcomes import Outcomes, Texts
from pmlm_env.core.task import EditTask
from pmlm_env.envs.lite import lite_episodes
from pmlm_env.envs.text import INSTRUCTIONS, TextEnv, TextEnvs
from pmlm_env.llm.base import LLM
from pmlm_env.rewards.bertscore import BertScoreReward
from pmlm_env.rewards.delta import DeltaReward
from tests.standins import EchoLLM, MarkedWordsReward, WordScorer, make_episodes, make_task


def env_of(task: EditTask | None = None, episode: int = 0, **rules: Any) -> TextEnv:
    env = TextEnvs(task or make_task(**rules))()
    env.reset(episode=episode)
    return env


def answered(llm: LLM, **rules: Any) -> EditTask:
    """A task in which an LLM replies and words are compared."""
    episodes = make_episodes()
    return make_task(episodes, reward=DeltaReward(episodes, llm, BertScoreReward(WordScorer())), **rules)


def test_a_language_model_reads_every_word_with_its_slot_and_each_part_with_its_role() -> None:
    task = make_task(n_edits=3, protect=("peer",))
    words = task.episodes[2].words
    assert TextEnvs(task)().reset(episode=2) == (
        "Words that may be deleted: up to 3.\n"
        f"background: 0:{words[0]} 1:{words[1]} 2:{words[2]}\n"
        f"self: 3:{words[3]} 4:{words[4]} 5:{words[5]}\n"
        f"peer: {words[6]} {words[7]} {words[8]}\n"
        f"instruction: 9:{words[9]} 10:{words[10]} 11:{words[11]}"
    )


def test_deleted_words_are_gone_and_the_others_keep_their_numbers() -> None:
    env = env_of(n_edits=3)
    words = make_episodes()[0].words
    said = env.delete([0, 4])
    assert said.splitlines()[0] == "Words that may be deleted: up to 1."
    assert said.splitlines()[1] == f"background: 1:{words[1]} 2:{words[2]}"
    assert said.splitlines()[2] == f"self: 3:{words[3]} 5:{words[5]}"


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ([12], "Not deleted: 12 (the words are 0 to 11).\n"),
        ([-1], "Not deleted: -1 (the words are 0 to 11).\n"),
        (["seven"], "Not deleted: seven (not a number).\n"),
        ([None], "Not deleted: None (not a number).\n"),
        ([float("inf")], "Not deleted: inf (not a number).\n"),
        ([float("nan")], "Not deleted: nan (not a number).\n"),
        ([2.5], "Not deleted: 2.5 (not a number).\n"),
        ([True], "Not deleted: True (not a number).\n"),
        ([7], "Not deleted: 7 (must stay).\n"),
        ([0, 0], "Not deleted: 0 (is deleted already).\n"),
        (7, "Not deleted: 7 (must stay).\n"),
    ],
)
def test_calls_that_make_no_sense_are_answered_in_words_and_cost_no_edit(numbers: Any, said: str) -> None:
    env = env_of(n_edits=3, protect=("peer",))
    left = 3 - (numbers == [0, 0])
    assert env.delete(numbers).startswith(f"{said}Words that may be deleted: up to {left}.\n")


def test_numbers_may_be_written_as_text() -> None:
    env = env_of(n_edits=3)
    assert "up to 2" in env.delete(["4"])  # type: ignore[list-item]
    assert [edit.slot for edit in env.result["edits"]] == [4]


def test_the_prompt_is_finished_when_the_budget_is_used_up_or_the_model_says_so() -> None:
    env = env_of(n_edits=2)
    assert env.delete([0, 1, 2]) == "Not deleted: 2 (no more words may be deleted).\nThe prompt is finished."
    assert env.delete([5]) == "Nothing was deleted: the prompt is finished."
    early = env_of(n_edits=2)
    assert early.finish() == "The prompt is finished."
    assert early.delete([0]) == "Nothing was deleted: the prompt is finished."
    assert early.result["edits"] == ()


@pytest.mark.parametrize("episode", range(6))
def test_the_same_edits_earn_the_same_and_say_the_same_as_in_the_gymnasium_env(episode: int) -> None:
    slots = np.random.default_rng(episode).permutation(12)[:4].tolist()
    env = gym.make("PMLM-v0", task=answered(EchoLLM(), n_edits=4))
    env.reset(options={"episode": episode})
    for slot in slots:
        _, reward, _, _, info = env.step(np.int64(slot))
    text = env_of(answered(EchoLLM(), n_edits=4), episode)
    for slot in slots:
        text.delete([slot])
    assert text.get_reward() == reward
    own = text.result
    assert own.pop("reward") == reward
    for key in ("action_mask", "episode_index", "invalid_action"):
        del info[key]
    assert own == info
    assert own["prompt"] == " ".join(
        word for slot, word in enumerate(make_episodes()[episode].words) if slot not in slots
    )


def test_rollouts_that_end_together_are_judged_in_one_call() -> None:
    task = make_task(n_edits=3)
    reward = task.reward
    assert isinstance(reward, MarkedWordsReward)
    envs = TextEnvs(task)
    group = [envs() for _ in range(5)]
    for episode, env in enumerate(group):
        env.reset(episode=episode)
        env.delete([episode])
    rewards = [env.get_reward() for env in group]
    assert [len(prompts) for prompts in reward.asked] == [5]
    assert rewards == [0.1 * ("*" in task.episodes[i].words[i]) for i in range(5)]


def test_a_prompt_that_is_edited_after_it_was_judged_is_judged_as_it_is_now() -> None:
    task = make_task(n_edits=3)
    marked = [slot for slot, word in enumerate(task.episodes[0].words) if "*" in word]
    env = env_of(task)
    env.delete(marked[:1])
    assert env.get_reward() == pytest.approx(0.1)
    env.delete(marked[1:])
    assert env.get_reward() == pytest.approx(0.3)


def test_an_env_is_used_again_for_the_next_patient() -> None:
    task = make_task(n_edits=1)
    env = env_of(task)
    env.delete([0])
    env.get_reward()
    assert env.reset(episode=1).startswith("Words that may be deleted: up to 1.")
    assert env.result["prompt"] == task.episodes[1].prompt


def test_without_a_reply_there_is_no_reward() -> None:
    llm = EchoLLM()
    llm.fail = True
    env = env_of(answered(llm, n_edits=1))
    env.delete([0])
    assert env.get_reward() is None
    assert "the endpoint is down" in env.result["llm_error"]


def test_one_failed_reply_does_not_touch_the_others() -> None:
    episodes = make_episodes()

    def third_fails(indices: list[int], prompts: list[str]) -> Outcomes:
        texts = Texts([f"to {i}" for i in indices], ["first"] * 4, ["ref"] * 4)
        errors = ["no reply" if i == 2 else "" for i in indices]
        ones = np.array(indices, dtype=float)
        return Outcomes(ones, 0 * ones, np.zeros(4, dtype=np.int64), texts, errors, components={"copy": ones / 10})

    envs = TextEnvs(make_task(episodes, reward=third_fails))  # type: ignore[arg-type]
    group = [envs() for _ in range(4)]
    for episode, env in enumerate(group):
        env.reset(episode=episode)
    assert [env.get_reward() for env in group] == [0.0, 1.0, None, 3.0]
    assert [env.result.get("reply") for env in group] == ["to 0", "to 1", None, "to 3"]
    assert group[3].result["components"] == {"copy": 0.3}


def test_the_patients_drawn_hang_on_the_seed_alone() -> None:
    drawn = []
    for _ in range(2):
        env = TextEnvs(make_task(), seed=7)()
        drawn.append([env.reset() for _ in range(8)])
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) > 2


def test_each_episode_is_a_row_to_train_on() -> None:
    rows = TextEnvs(make_task()).rows()
    assert [row["episode"] for row in rows] == list(range(6))
    assert rows[0]["prompt"] == [{"role": "user", "content": INSTRUCTIONS}]


def test_options_are_those_of_the_env_and_those_without_effect_are_refused(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match="observation has no effect on a text env"):
        TextEnvs(observation="index")
    with pytest.raises(ValueError, match="PMLM-v0 has no argument n_edit: did you mean n_edits"):
        TextEnvs(n_edit=3)
    lite_episodes({"train": 4, "test": 2}).save(tmp_path)
    envs = TextEnvs(episodes=str(tmp_path), llm="responder", reward="tests.own_parts:LabelLength", n_edits=0.5)
    env = envs()
    assert env.reset(episode=1).startswith("Words that may be deleted: up to ")
    env.delete([0])
    assert isinstance(env.get_reward(), float)


def test_there_is_nothing_to_judge_before_the_first_prompt() -> None:
    env = TextEnvs(make_task())()
    assert env.get_reward() is None
    assert env.result == {}
    assert env.delete([0]) == "Nothing was deleted: the prompt is finished."
