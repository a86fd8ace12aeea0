"""The downstream LLM: a contract, its implementations, a cache and a budget."""

from pmlm_env.llm.base import LLM, Completion, LLMError, Reply, Request
from pmlm_env.llm.specs import LLMOptions, load_llm, price_of
from pmlm_env.llm.storage.budget import Budget, BudgetedLLM, BudgetExceededError, Limits, Price, Usage
from pmlm_env.llm.storage.cache import CachedLLM, ReplayMissError, ReplyCache

__all__ = [
    "LLM",
    "Budget",
    "BudgetExceededError",
    "BudgetedLLM",
    "CachedLLM",
    "Completion",
    "LLMError",
    "LLMOptions",
    "Limits",
    "Price",
    "ReplayMissError",
    "Reply",
    "ReplyCache",
    "Request",
    "Usage",
    "load_llm",
    "price_of",
]
