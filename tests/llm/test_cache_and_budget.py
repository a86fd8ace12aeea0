from __future__ import annotations

import pytest

from pmlm_env.llm import BudgetedLLM, BudgetExceededError, CachedLLM, load_llm
from tests.standins import EchoLLM


def test_the_budget_counts_and_is_never_overshot() -> None:
    inner = EchoLLM()
    llm = BudgetedLLM(inner, max_calls=5)
    llm.generate(["a b", "c"])
    with pytest.raises(BudgetExceededError, match=r"4 more LLM calls would go over the limit of 5 \(2 are spent\)"):
        llm.generate(list("wxyz"))
    assert inner.batches == [["a b", "c"]]
    llm.generate(list("xyz"))
    assert (llm.usage.calls, llm.usage.prompt_tokens, llm.usage.completion_tokens) == (5, 6, 5)


def test_kept_replies_are_free() -> None:
    budget = BudgetedLLM(EchoLLM())
    llm = CachedLLM(budget)
    for _ in range(3):
        llm.generate(["a", "b"])
    assert budget.usage.calls == 2


@pytest.mark.parametrize("spec", ["gpt-4", "local:", "openai:", "responder:2", ""])
def test_an_unknown_spec_says_what_there_is(spec: str) -> None:
    with pytest.raises(ValueError, match="use local:NAME_OR_DIR, openai:MODEL"):
        load_llm(spec)


def test_a_base_url_for_a_model_that_runs_here_is_refused() -> None:
    with pytest.raises(ValueError, match="takes no base URL"):
        load_llm("responder", base_url="https://example.org/v1")
