"""The downstream LLM: interface, implementations, cache and budget."""

from pmlm_env.llm.base import LLM, Completion, LLMError, Reply, Request
from pmlm_env.llm.specs import LLMOptions, load_llm, price_of
from pmlm_env.llm.storage.budget import Budget, BudgetExceededError, Limits, Price, Usage
from pmlm_env.llm.storage.budgeted_llm import BudgetedLLM
from pmlm_env.llm.storage.cache import ReplyCache
from pmlm_env.llm.storage.cached_llm import CachedLLM, ReplayMissError

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
