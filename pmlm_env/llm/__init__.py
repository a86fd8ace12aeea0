"""The downstream LLM: a contract, its implementations, a cache and a budget."""

from pmlm_env.llm.base import LLM, Completion, LLMError, Reply, Request
from pmlm_env.llm.budget import Budget, BudgetedLLM, BudgetExceededError, Limits, Price, Usage
from pmlm_env.llm.cache import CachedLLM, ReplayMissError, ReplyCache
from pmlm_env.llm.specs import LLMOptions, load_llm, price_of

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
