"""The downstream LLM: a protocol, its implementations, a cache and a budget."""

from pmlm_env.llm.base import LLM, Completion, LLMError
from pmlm_env.llm.budget import BudgetedLLM, BudgetExceededError, Usage
from pmlm_env.llm.cache import CachedLLM
from pmlm_env.llm.specs import load_llm

__all__ = ["LLM", "BudgetExceededError", "BudgetedLLM", "CachedLLM", "Completion", "LLMError", "Usage", "load_llm"]
