"""Where pretrained weights come from."""

from pmlm_env.weights.bundled import (
    BUNDLED,
    DEFAULT_LLM,
    SMALL,
    BundledModel,
    ModelError,
    State,
    cache_dir,
    describe,
    fetch,
    resolve,
    state,
)

__all__ = [
    "BUNDLED",
    "DEFAULT_LLM",
    "SMALL",
    "BundledModel",
    "ModelError",
    "State",
    "cache_dir",
    "describe",
    "fetch",
    "resolve",
    "state",
]
