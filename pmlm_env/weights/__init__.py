"""Pretrained weights: bundled models, local folders and the Hugging Face hub."""

from pmlm_env.weights.bundled import (
    BUNDLED,
    CHINESE_MODEL,
    DEFAULT_LLM,
    SMALL,
    BundledModel,
    ModelError,
    State,
    UnknownModelError,
    cache_dir,
    describe,
    state,
)
from pmlm_env.weights.fetching import fetch, resolve

__all__ = [
    "BUNDLED",
    "CHINESE_MODEL",
    "DEFAULT_LLM",
    "SMALL",
    "BundledModel",
    "ModelError",
    "State",
    "UnknownModelError",
    "cache_dir",
    "describe",
    "fetch",
    "resolve",
    "state",
]
