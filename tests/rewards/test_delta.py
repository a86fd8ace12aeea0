"""DeltaReward with stand-ins for the LLM and the reward that scores replies."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from agents.policies.rollout import Rollout
from agents.policy_gradient.config import ReinforceConfig
from agents.policy_gradient.reinforce import Reinforce
from pmlm_env.core.edits import deletions
from pmlm_env.core.episodes import Episode, EpisodeSet
from pmlm_env.envs.prompt_edit_vector import PMLMVectorEnv
from pmlm_env.llm.base import LLM, Completion, Reply, Request
from pmlm_env.rewards.delta import DeltaReward, TooManyFailuresError
from tests.standins import EchoLLM, make_episodes, make_task


class _LetterE:
    """Scores a reply by its share of the letter e."""

    def score(self, replies: Sequence[str], episodes: Sequence[Episode]) -> list[float]:
        return [text.count("e") / len(text) for text in replies]


def _reward(episodes: EpisodeSet, llm: LLM, **more: Any) -> DeltaReward:
    return DeltaReward(episodes, llm, _LetterE(), **more)


def test_the_initial_reply_is_bought_once_a_patient_and_all_that_end_together_make_one_batch() -> None:
    episodes = make_episodes(3)
    llm = EchoLLM()
    reward = _reward(episodes, llm)
    outcomes = reward([0, 1, 0], ["a e", "b", "c"])
    assert llm.batches == [["a e", "b", "c", episodes[0].prompt, episodes[1].prompt]]
    assert outcomes.llm_calls.tolist() == [2, 2, 1]
    reward([1, 2], ["d", "e"])
    assert llm.batches[1] == ["d", "e", episodes[2].prompt]
    initial = " ".join(sorted(episodes[0].words))
    assert outcomes.delta[0] == pytest.approx(1 / 3 - initial.count("e") / len(initial))


def test_the_llm_gets_prompts_with_their_line_breaks_and_the_info_says_so() -> None:
    episode = replace(make_episodes(1)[0], spaces=("\n",) * 11 + ("",))
    llm, episodes = EchoLLM(), EpisodeSet([episode])
    env = _env(_reward(episodes, llm), episodes, 1, autoreset_mode="Disabled")
    env.reset()
    info = env.step([11])[-1]
    assert llm.batches == [["\n".join(episode.words[:-1]), "\n".join(episode.words)]]
    assert info["prompt"].tolist() == llm.batches[0][:1]
    assert info["edits"].tolist() == [deletions(episode, [11])]


def test_a_failed_batch_becomes_errors_and_is_asked_again_later() -> None:
    episodes = make_episodes(2)
    llm = EchoLLM()
    llm.fail = True
    reward = _reward(episodes, llm)
    assert reward([0, 1], ["a", "b"]).errors == ["the endpoint is down"] * 2
    llm.fail = False
    assert not reward([0], ["a"]).failed.any()


def test_a_patient_without_reference_is_named() -> None:
    episodes = EpisodeSet([replace(make_episodes(1)[0], reference=" ")])
    with pytest.raises(ValueError, match="patient P0 has no reference"):
        _reward(episodes, EchoLLM())


def test_one_reply_that_cannot_be_had_costs_its_own_episode_alone() -> None:
    llm = EchoLLM()
    llm.broken = {"bad"}
    reward = _reward(make_episodes(3), llm)
    outcomes = reward([0, 1, 2], ["a e", "bad", "c e e"])
    assert outcomes.errors == ["", "the endpoint is down", ""]
    alone = _reward(make_episodes(3), EchoLLM())([0, 2], ["a e", "c e e"])
    assert outcomes.delta[[0, 2]].tolist() == alone.delta.tolist()
    assert (outcomes.delta[1], outcomes.score[1], outcomes.initial_score[1]) == (0, 0, 0)


def test_without_the_initial_reply_there_is_no_score_and_it_is_asked_for_again() -> None:
    episodes = make_episodes(2)
    llm = EchoLLM()
    llm.broken = set(episodes[0].words) - set(episodes[1].words)
    reward = _reward(episodes, llm)
    assert reward([0, 0, 1], ["a", "b", "c"]).errors == ["the endpoint is down", "the endpoint is down", ""]
    assert list(reward.initial) == [1]
    llm.broken = set()
    assert reward([0], ["a"]).errors == [""]
    assert llm.batches[-1] == ["a", episodes[0].prompt]


class _Moody(LLM):
    """Another reply to each sample: the number of it, so many times the letter e, and a few others."""

    identity = "moody"

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        yield {
            place: Completion("e" * (request.sample + 1) + "xxx", 1, 1, "stop")
            for place, request in enumerate(requests)
        }


def test_of_several_samples_the_mean_counts_and_their_spread_is_told() -> None:
    outcomes = _reward(make_episodes(2), _Moody(), n_samples=3)([0, 1], ["a", "b"])
    each = [1 / 4, 2 / 5, 3 / 6]
    assert outcomes.score == pytest.approx([np.mean(each)] * 2)
    assert outcomes.score_sd == pytest.approx([np.std(each, ddof=1)] * 2)
    assert outcomes.initial_score_sd == pytest.approx([np.std(each, ddof=1)] * 2)
    assert outcomes.llm_calls.tolist() == [6, 6]
    assert outcomes.texts is not None
    assert outcomes.texts.reply == ["exxx", "exxx"]


def test_too_many_episodes_in_a_row_without_a_reply_stop_the_run() -> None:
    llm = EchoLLM()
    llm.broken = {"bad"}
    reward = _reward(make_episodes(3), llm, max_failures=4)
    reward([0, 1, 2, 0], ["bad", "bad", "bad", "good"])
    reward([0, 1, 2], ["bad", "bad", "bad"])
    with pytest.raises(TooManyFailuresError, match=r"^4 episodes in a row got no reply; .* the endpoint is down"):
        reward([0], ["bad"])


def _env(reward: Any, episodes: EpisodeSet, n: int, **more: Any) -> PMLMVectorEnv:
    return PMLMVectorEnv(n, task=make_task(episodes, reward=reward, n_edits=1), **more)


def test_in_a_vector_env_the_episode_without_a_reply_is_truncated_and_the_others_end_as_ever() -> None:
    episodes = make_episodes(3)
    llm = EchoLLM()
    env = _env(_reward(episodes, llm, n_samples=2), episodes, 3, autoreset_mode="Disabled")
    env.reset(options={"episode": np.array([0, 1, 2])})
    kept = [word for word in episodes[1].words[1:] if word not in {*episodes[0].words, *episodes[2].words}]
    llm.broken = {kept[0]}
    _, rewards, terminated, truncated, info = env.step(np.array([0, 0, 0]))
    assert terminated.tolist() == [True, False, True]
    assert truncated.tolist() == [False, True, False]
    assert rewards[1] == 0
    assert info["_llm_error"].tolist() == [False, True, False]
    assert info["_score"].tolist() == info["_score_sd"].tolist() == [True, False, True]
    assert info["prompt"][1] == " ".join(episodes[1].words[1:])


@pytest.mark.parametrize("scale_advantages", [True, False])
def test_a_trainer_learns_from_the_others_as_if_the_failed_episode_had_not_been(scale_advantages: bool) -> None:
    config = ReinforceConfig(patients=2, rollouts=3, scale_advantages=scale_advantages)
    trainer = object.__new__(Reinforce)
    trainer.config = config
    rewards = torch.tensor([1.0, 2.0, 6.0, 5.0, 9.0, 7.0])
    valid = torch.tensor([True, True, True, True, False, True])
    ours = trainer.advantages(Rollout(rewards, valid, [], [], 0))
    other = trainer.advantages(Rollout(torch.where(valid, rewards, -100.0), valid, [], [], 0))
    assert torch.equal(ours, other)
    assert ours[4] == 0
    if scale_advantages:
        assert float(ours[valid].square().mean()) == pytest.approx(1)
