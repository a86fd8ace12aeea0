"""Thousands of episodes against an endpoint that fails in every way it can, and the same without a fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from pmlm_env.core.episodes import Episode, EpisodeSet
from pmlm_env.core.task import EditTask
from pmlm_env.envs.lite import HashedEncoder, lite_episodes
from pmlm_env.envs.prompt_edit_vector import PMLMVectorEnv
from pmlm_env.llm import CachedLLM
from pmlm_env.llm.http.endpoint import OpenAIChat
from pmlm_env.llm.storage.budget import Usage
from pmlm_env.rewards.delta import DeltaReward, TooManyFailuresError
from tests.llm.endpoint import Answer
from tests.llm.fault_server import FAULTS, FaultServer, serve_faults

pytestmark = pytest.mark.once

N_EPISODES = 2000
SIDE_BY_SIDE = 1000
RATE = 0.3
MAX_TOKENS = 50


class WordOverlap:
    """BERTScore's stand-in: F1 of distinct words."""

    def score(self, replies: Sequence[str], episodes: Sequence[Episode]) -> list[float]:
        pairs = [(set(reply.split()), set(e.reference.split())) for reply, e in zip(replies, episodes, strict=True)]
        return [2 * len(a & b) / (len(a) + len(b)) for a, b in pairs]


class Ended(NamedTuple):
    reward: float
    truncated: bool
    error: str | None
    scored: bool
    prompt: str


@dataclass
class Play:
    """What came of playing all episodes, those that failed again and again until none does."""

    rewards: dict[int, float] = field(default_factory=dict)
    failures: list[Ended] = field(default_factory=list)
    refined_prompts: set[str] = field(default_factory=set)
    rounds: int = 0


def play(episodes: EpisodeSet, llm: CachedLLM, n: int) -> Play:
    """Play episode k (of patient k modulo their number, with actions drawn by k) for each k below n."""
    reward = DeltaReward(episodes, llm, WordOverlap())
    encoder, out = HashedEncoder(), Play()
    to_do = list(range(n))
    while to_do:
        out.rounds += 1
        for start in range(0, len(to_do), SIDE_BY_SIDE):
            numbers = to_do[start : start + SIDE_BY_SIDE]
            for k, ended in zip(numbers, play_once(episodes, encoder, reward, numbers), strict=True):
                if ended.truncated:
                    out.failures.append(ended)
                else:
                    assert (ended.error, ended.scored) == (None, True)
                    out.rewards[k] = ended.reward
                    out.refined_prompts.add(ended.prompt)
        to_do = [k for k in to_do if k not in out.rewards]
    return out


def play_once(episodes: EpisodeSet, encoder: HashedEncoder, reward: DeltaReward, numbers: Sequence[int]) -> list[Ended]:
    patients = np.array([k % len(episodes) for k in numbers])
    env = PMLMVectorEnv(len(numbers), AutoresetMode.DISABLED, task=EditTask(episodes, encoder, reward))
    env.reset(options={"episode": patients})
    slots = np.stack(
        [np.random.default_rng(k).permutation(episodes.lengths[i])[:10] for k, i in zip(numbers, patients, strict=True)]
    )
    for step in range(10):
        _, rewards, terminated, truncated, infos = env.step(slots[:, step])
    assert (terminated ^ truncated).all()
    errors = infos.get("llm_error", [None] * len(numbers))
    scored = infos.get("_score", np.zeros(len(numbers), dtype=np.bool_))
    columns = rewards.tolist(), truncated.tolist(), errors, scored.tolist(), infos["prompt"]
    return [Ended(*row) for row in zip(*columns, strict=True)]


def connect(server: FaultServer) -> OpenAIChat:
    return OpenAIChat(
        "some-model",
        server.endpoint.url,
        max_tokens=MAX_TOKENS,
        concurrency=64,
        read_timeout=3.0,  # a whole answer that comes later than this would be asked for twice
        backoff=0.001,
        tries=20,
    )


def test_2000_episodes_with_faults_in_30_percent_of_requests_have_the_rewards_of_a_run_without() -> None:
    episodes = lite_episodes()
    with serve_faults(0.0, MAX_TOKENS) as faultless:
        expected = play(episodes, CachedLLM(connect(faultless)), N_EPISODES)
    with serve_faults(RATE, MAX_TOKENS) as server:
        chat = connect(server)
        llm = CachedLLM(chat)
        played = play(episodes, llm, N_EPISODES)

    # Every episode has its reward, the same one.
    assert sorted(played.rewards) == list(range(N_EPISODES))
    assert played.rewards == expected.rewards
    assert (expected.rounds, expected.failures) == (1, [])
    assert len(set(expected.rewards.values())) > 100  # or equality would say little

    # The failed ones said so, and were worth nothing.
    assert played.failures
    assert {(ended.reward, ended.scored) for ended in played.failures} == {(0.0, False)}
    assert all(ended.error for ended in played.failures)

    # No completion is lost, none doubled.
    prompts = played.refined_prompts | {episode.prompt for episode in episodes}
    assert server.replied == Counter(dict.fromkeys(prompts, 1))
    kept = [reply.request["prompt"] for reply in llm.cache]
    assert len(kept) == len(set(kept)) == len(prompts)
    assert set(kept) == prompts

    # What was booked is what the server saw.
    n_requests = server.endpoint.n_requests
    assert n_requests == sum(server.asked.values())
    assert chat.budget.usage == Usage(n_requests, server.billed["prompt_tokens"], server.billed["completion_tokens"])

    # There were as many faults as there should be, and all kinds.
    n_faults = sum(server.faults.values())
    assert n_faults / n_requests == pytest.approx(RATE, abs=0.03)
    assert set(server.faults) == set(FAULTS)
    print(f"{n_requests} requests, {n_faults} faults {dict(server.faults)}, {len(played.failures)} episodes truncated")


def test_an_endpoint_that_never_replies_stops_the_run() -> None:
    with serve_faults(0.0, MAX_TOKENS) as server:
        server.endpoint.script(Answer(401, {}))
        episodes = lite_episodes()
        llm = CachedLLM(connect(server))
        reward = DeltaReward(episodes, llm, WordOverlap(), max_failures=10)
        encoder = HashedEncoder()
        for start in (0, 4):
            assert all(ended.truncated for ended in play_once(episodes, encoder, reward, range(start, start + 4)))
        with pytest.raises(
            TooManyFailuresError, match=r"10 episodes in a row .* HTTP 401: check the key.*run the command again"
        ):
            play_once(episodes, encoder, reward, range(8, 12))
        assert server.endpoint.n_requests == 3 * 4 * 2  # the refined prompts and the initial ones, once each
        assert len(llm.cache) == 0
