"""DividedReward: processes that score a share each get the outcomes of one process that scores everything."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from pmlm_env.core.outcomes import Outcomes
from pmlm_env.processes import EndedError, Processes
from pmlm_env.rewards.delta import DeltaReward, TooManyFailuresError
from pmlm_env.rewards.divided import DividedReward
from tests.standins import EchoLLM, make_episodes

EPISODES = make_episodes(4)
INDICES = [0, 0, 1, 1, 1, 3]
PROMPTS = [f"{EPISODES[i].words[0]} {EPISODES[i].words[n]} now" for n, i in enumerate(INDICES)]


class _Length:
    """Scores a reply by its letters."""

    def score(self, replies: list[str], episodes: list[Any]) -> list[float]:
        return [len(reply) + 0.1 for reply in replies]


@dataclass(frozen=True)
class _Thread(Processes):
    """A thread that stands in for a process."""

    barrier: threading.Barrier | None = None
    said: dict[int, Any] | None = None

    def exchange(self, value: Any) -> list[Any]:
        assert self.barrier is not None
        assert self.said is not None
        self.said[self.rank] = value
        self.barrier.wait(30)
        found = [self.said[rank] for rank in range(self.size)]
        self.barrier.wait(30)
        return found


def _together(size: int, run: Callable[[Processes], Any]) -> list[Any]:
    """Run a function in threads that stand in for processes, and return what they return or raise."""
    barrier, said, found = threading.Barrier(size), dict[int, Any](), dict[int, Any]()

    def one(rank: int) -> None:
        try:
            found[rank] = run(_Thread(rank, size, barrier, said))
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[rank] for rank in range(size)]


def _llm(broken: str = "") -> EchoLLM:
    llm = EchoLLM()
    llm.broken = {broken}
    return llm


def _check_same(found: Outcomes, expected: Outcomes) -> None:
    for name in ("score", "initial_score", "rewards"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.texts == expected.texts
    assert list(found.errors) == list(expected.errors)
    for name in ("components", "initial_components"):
        assert getattr(found, name).keys() == getattr(expected, name).keys()
        for key, values in getattr(expected, name).items():
            np.testing.assert_array_equal(getattr(found, name)[key], values)


@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize("broken", ["", EPISODES[1].words[2]])
@pytest.mark.parametrize("n_samples", [1, 2])
def test_all_processes_get_the_outcomes_of_one(size: int, broken: str, n_samples: int) -> None:
    alone = DeltaReward(EPISODES, _llm(broken), _Length(), n_samples)
    expected = alone(INDICES, PROMPTS)
    assert any(expected.errors) == bool(broken)

    def run(processes: Processes) -> tuple[Outcomes, Outcomes, DividedReward]:
        reward = DividedReward(processes, EPISODES, _llm(broken), _Length(), n_samples)
        return reward(INDICES, PROMPTS), reward([3], ["one more"]), reward

    more = alone([3], ["one more"])
    for found, again, reward in _together(size, run):
        _check_same(found, expected)
        _check_same(again, more)
        assert reward.initial == alone.initial


def test_no_prompt_is_sent_by_two_processes_but_the_initial_one_of_a_patient_whose_rows_are_divided() -> None:
    llms = [_llm(), _llm()]
    _together(
        2, lambda processes: DividedReward(processes, EPISODES, llms[processes.rank], _Length())(INDICES, PROMPTS)
    )
    sent = [{prompt for batch in llm.batches for prompt in batch} for llm in llms]
    assert sent[0] | sent[1] == {*PROMPTS, *(EPISODES[i].prompt for i in INDICES)}
    assert sent[0] & sent[1] == {EPISODES[1].prompt}


def test_failures_in_a_row_are_counted_over_all_processes() -> None:
    def run(processes: Processes) -> Outcomes:
        llm = _llm()
        llm.fail = True
        return DividedReward(processes, EPISODES, llm, _Length(), max_failures=6)(INDICES, PROMPTS)

    first, second = _together(2, run)
    assert isinstance(first, TooManyFailuresError)
    assert str(first).startswith("6 episodes in a row got no reply")
    assert isinstance(second, EndedError)


def test_an_error_of_one_process_ends_all_and_the_first_says_so() -> None:
    class Full(EchoLLM):
        def replies(self, requests: Any) -> Any:
            raise OSError("No space left on device")

    def run(processes: Processes) -> Outcomes:
        llm = Full() if processes.rank == 1 else EchoLLM()
        return DividedReward(processes, EPISODES, llm, _Length())(INDICES, PROMPTS)

    first, second = _together(2, run)
    assert isinstance(first, RuntimeError)
    assert str(first) == "process 1: No space left on device"
    assert isinstance(second, EndedError)
