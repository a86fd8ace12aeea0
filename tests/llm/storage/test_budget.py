from __future__ import annotations

import multiprocessing
import re
from collections.abc import Generator, Sequence
from contextlib import suppress
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmlm_env.llm import BudgetedLLM, BudgetExceededError, CachedLLM
from pmlm_env.llm.base import Completion, LLMError, Reply, Request
from pmlm_env.llm.storage.budget import Account, Budget, Limits, Price, Usage
from tests.standins import EchoLLM

pytestmark = pytest.mark.once

FORK = multiprocessing.get_context("fork")
HELLO = "hello"
ROOM = len(HELLO) + 100  # what a prompt of five letters is booked at


# Limits


@pytest.mark.parametrize("name", list(Limits.__dataclass_fields__))
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), 1e30, 10**400])
def test_a_limit_that_is_none_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{name} is {value}: a limit must be 0 or more, and at most 1e+15")):
        Limits(**{name: value})


@pytest.mark.parametrize(
    ("limits", "asked", "unit"),
    [
        (Limits(max_llm_calls=10), Usage(calls=1), "LLM call"),
        (Limits(max_prompt_tokens=10), Usage(prompt_tokens=1), "prompt token"),
        (Limits(max_completion_tokens=10), Usage(completion_tokens=1), "completion token"),
        (Limits(max_cost=10), Usage(cost=0.01), "cost"),
    ],
)
def test_each_limit_lets_in_what_just_fits_and_names_what_does_not(limits: Limits, asked: Usage, unit: str) -> None:
    spent = Usage(10, 10, 10, 10.0)
    limits.check(spent.minus(asked), asked)
    with pytest.raises(BudgetExceededError, match=f"the {unit} limit of 10 .*run the command again") as caught:
        limits.check(spent, asked)
    assert "\n" not in str(caught.value)


def test_a_limit_of_nothing_lets_nothing_through() -> None:
    with pytest.raises(BudgetExceededError):
        Budget(Limits(max_llm_calls=0)).reserve(HELLO, 1)


# Accounts


def test_what_does_not_fit_is_not_booked() -> None:
    account = Account(Limits(max_llm_calls=2))
    account.add(Usage(calls=2), check=True)
    with pytest.raises(BudgetExceededError):
        account.add(Usage(calls=1, prompt_tokens=7), check=True)
    assert account.usage == Usage(calls=2)


def test_an_account_outlives_its_process(tmp_path: Path) -> None:
    Account(path=tmp_path / "spent").add(Usage(1, 2, 3, 4.5))
    assert Account(path=tmp_path / "spent").usage == Usage(1, 2, 3, 4.5)


def test_an_account_that_was_not_used_has_no_file(tmp_path: Path) -> None:
    assert Account(path=tmp_path / "spent").usage == Usage()
    assert list(tmp_path.iterdir()) == []


def _reserve(paths: list[Path], all_there: Barrier, granted: SimpleQueue[list[int]]) -> None:
    counts: list[int] = []
    try:
        for path in paths:
            budget = Budget(Limits(max_llm_calls=120), path)
            counts.append(0)
            all_there.wait(300)
            for _ in range(50):
                with suppress(BudgetExceededError):
                    budget.reserve(HELLO, 1)
                    counts[-1] += 1
    finally:
        granted.put(counts)


def test_processes_that_share_a_file_never_go_over_its_limit(tmp_path: Path) -> None:
    paths = [tmp_path / str(i) for i in range(6)]  # a race is not lost every time
    granted: SimpleQueue[list[int]] = FORK.SimpleQueue()
    all_there = FORK.Barrier(4)
    children = [FORK.Process(target=_reserve, args=(paths, all_there, granted)) for _ in range(4)]
    for child in children:
        child.start()
    counts = [granted.get() for _ in children]
    for child in children:
        child.join(300)
    assert [sum(column) for column in zip(*counts, strict=True)] == [120] * 6
    assert [Account(path=path).usage.calls for path in paths] == [120] * 6


# Bookings


def test_a_call_is_booked_at_its_upper_bound_and_then_at_what_it_cost() -> None:
    budget = Budget(price=Price(prompt=2.0, completion=10.0))
    booked = budget.reserve(HELLO, 50)
    assert budget.usage == booked == Usage(1, ROOM, 50, pytest.approx((2 * ROOM + 10 * 50) / 1e6))
    budget.settle(booked, 9, 4)
    assert budget.usage == Usage(1, 9, 4, pytest.approx((2 * 9 + 10 * 4) / 1e6))


def test_a_call_that_was_never_sent_costs_nothing() -> None:
    budget = Budget(price=Price(2.0, 10.0))
    budget.settle(budget.reserve(HELLO, 50), 0, 0, calls=0)
    assert budget.usage == Usage(0, 0, 0, pytest.approx(0.0))


@given(st.text(st.characters(), max_size=60))
def test_a_prompt_is_booked_at_no_less_than_its_bytes(prompt: str) -> None:
    # A token is at least one byte: byte-level vocabularies merge bytes, others fall back on them.
    assert Budget().reserve(prompt, 1).prompt_tokens >= len(prompt.encode("utf-8", "surrogatepass"))


def test_the_bound_leaves_room_for_the_template() -> None:
    assert Budget().reserve("", 1).prompt_tokens >= 50  # Llama 3.1's own, with its date, has about 40


def test_a_limit_on_money_needs_a_price() -> None:
    with pytest.raises(ValueError, match=r"max_cost needs the model's price: .*--providers"):
        Budget(Limits(max_cost=1.0))
    assert Budget(Limits(max_cost=1.0), price=Price(0.0, 0.0)).usage == Usage()


# Groups


def group_file(folder: Path, text: str) -> Path:
    path = folder / "group.toml"
    path.write_text(text)
    return path


def test_runs_of_a_group_share_its_limit(tmp_path: Path) -> None:
    group = group_file(tmp_path, "max_llm_calls = 3\n")
    runs = [Budget(path=tmp_path / name, group=group) for name in "ab"]
    for run in (runs[0], runs[1], runs[0]):
        run.reserve(HELLO, 1)
    for run in runs:
        with pytest.raises(BudgetExceededError, match="LLM call limit of 3"):
            run.reserve(HELLO, 1)
    assert [run.usage.calls for run in runs] == [2, 1]  # the refused ones are on no run's bill
    assert Account(path=f"{group}.spent.sqlite").usage.calls == 3


def test_a_run_keeps_its_own_limit_too(tmp_path: Path) -> None:
    group = group_file(tmp_path, "max_llm_calls = 3\n")
    run = Budget(Limits(max_llm_calls=1), group=group)
    run.reserve(HELLO, 1)
    with pytest.raises(BudgetExceededError, match="LLM call limit of 1"):
        run.reserve(HELLO, 1)
    assert Account(path=f"{group}.spent.sqlite").usage.calls == 1


def test_what_is_settled_is_free_for_the_group_again(tmp_path: Path) -> None:
    group = group_file(tmp_path, f"max_prompt_tokens = {ROOM + 5}\n")
    run, other = Budget(group=group), Budget(group=group)
    booked = run.reserve(HELLO, 1)
    with pytest.raises(BudgetExceededError):
        other.reserve(HELLO, 1)
    run.settle(booked, 5, 1)
    assert other.reserve(HELLO, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_calls = 3", "unknown 'max_calls'; the limits are max_llm_calls, "),
        ("max_llm_calls = 2000.5", "max_llm_calls is 2000.5: it should be a whole number"),
        ("max_llm_calls = true", "max_llm_calls is true: it should be a whole number"),
        ('max_cost = "3"', "max_cost is text: it should be a number"),
        ("max_llm_calls = -3", "max_llm_calls is -3: a limit must be 0 or more"),
        ("max_cost = 3", "max_cost needs the model's price"),
    ],
)
def test_a_groups_file_that_will_not_do_is_named_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Budget(group=group_file(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_group_without_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises((ValueError, OSError), match=r"none\.toml"):
        Budget(group=tmp_path / "none.toml")


# LLMs in this process


def test_as_many_as_fit_are_asked_and_then_the_budget_is_named() -> None:
    inner, budget = EchoLLM(), Budget(Limits(max_llm_calls=5))
    llm = BudgetedLLM(inner, budget, 50)
    llm.generate(["a b", "c"])
    lots = llm.replies([Request(prompt) for prompt in "wxyz"])
    assert sorted(place for place in next(lots)) == [0, 1, 2]
    with pytest.raises(BudgetExceededError, match=r"the LLM call limit of 5 \(5 spent or reserved\)"):
        next(lots)
    assert inner.batches == [["a b", "c"], ["w", "x", "y"]]
    assert budget.usage == Usage(5, 6, 5, 0.0)


def test_kept_replies_are_free() -> None:
    budget = Budget()
    llm = CachedLLM(BudgetedLLM(EchoLLM(), budget, 50))
    for _ in range(3):
        llm.generate(["a", "b"])
    assert budget.usage.calls == 2


def test_what_was_paid_for_before_the_budget_ended_is_kept() -> None:
    llm = CachedLLM(BudgetedLLM(EchoLLM(), Budget(Limits(max_llm_calls=2)), 50))
    with pytest.raises(BudgetExceededError):
        llm.generate(["a", "b", "c"])
    assert [reply.cached for reply in llm.generate(["a", "b"])] == [True, True]


class _Broken(EchoLLM):
    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        yield {0: Completion("one", 5, 1, "stop")}
        yield {1: LLMError("the prompt is too long")}
        raise LLMError("the engine is gone")


def test_in_this_process_what_gets_no_reply_costs_nothing() -> None:
    budget = Budget()
    with pytest.raises(LLMError, match="the engine is gone"):
        BudgetedLLM(_Broken(), budget, 100).generate(["a", "b", "c", "d"])
    assert budget.usage == Usage(1, 5, 1, 0.0)


def test_in_this_process_a_limit_on_tokens_is_used_up_to_the_last_call_that_surely_fits() -> None:
    budget = Budget(Limits(max_prompt_tokens=1000))  # each of these prompts has 2 tokens, and is booked at over 100
    llm = BudgetedLLM(EchoLLM(), budget, 1)
    with pytest.raises(BudgetExceededError):
        llm.generate(["a b"] * 2000)
    assert 1000 - 2 - len("a b") - 100 < budget.usage.prompt_tokens <= 1000


def test_a_budget_within_another_books_in_both_and_keeps_both_limits(tmp_path: Path) -> None:
    group = tmp_path / "group.toml"
    group.write_text("max_llm_calls = 4")
    outer = Budget(Limits(max_llm_calls=3), group=group)
    inner = Budget(Limits(max_llm_calls=2), price=Price(1.0, 1.0), within=outer)
    outer.settle(outer.reserve("a", 1), 1, 1)
    inner.settle(inner.reserve("a", 1), 500_000, 500_000)
    assert inner.usage == Usage(1, 500_000, 500_000, 1.0)
    assert outer.usage == Usage(2, 500_001, 500_001, 1.0)
    inner.reserve("a", 1)
    with pytest.raises(BudgetExceededError, match="limit of 2"):
        inner.reserve("a", 1)
    with pytest.raises(BudgetExceededError, match="limit of 3"):
        outer.reserve("a", 1)
    outer.run.limits = Limits()
    outer.reserve("a", 1)
    with pytest.raises(BudgetExceededError, match="limit of 4"):
        outer.reserve("a", 1)
