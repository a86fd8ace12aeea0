"""What is installed, what is missing and how to get it: ``pmlm doctor`` and ``pmlm models``."""

from __future__ import annotations

import importlib.util
import os
import platform
from dataclasses import dataclass
from importlib import metadata

import torch

from pmlm_env.device import choose_device, llm_dtype
from pmlm_env.models import BUNDLED, ModelError, cache_dir, fetch

_PACKAGES = ("pmlm-env", "torch", "transformers", "gymnasium", "scikit-learn", "bert-score", "tensorboard")
_EXTRAS = {"pyarrow": "to read Parquet: pip install 'pmlm-env[parquet]'"}


@dataclass(frozen=True)
class ModelsConfig:
    """List the bundled models.

    Attributes:
        fetch: Install those that are missing, check them and unpack them.
    """

    fetch: bool = False


def models(config: ModelsConfig) -> None:
    """List, or get, the bundled models."""
    if config.fetch:
        fetch()
    for name in BUNDLED:
        print(f"{name:14} {_state(name)[1]}")
    print("Any other name is a directory, or a model on the Hugging Face hub.")


def doctor() -> int:
    """Say what is there and what is missing.

    Returns:
        The exit code: 0 where the method can run, 1 where something it needs is missing.
    """
    print(f"Python {platform.python_version()} on {platform.platform()}, {os.cpu_count()} cores")
    for name in _PACKAGES:
        print(f"  {name} {metadata.version(name)}")
    for module, use in _EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        print(f"  {module} {metadata.version(module) if there else f'is not installed ({use})'}")
    device = choose_device("auto")
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU seen"
    print(f"Device: {device} ({kind}); the local LLM runs in {str(llm_dtype(device)).removeprefix('torch.')}")
    print(f"Cache: {cache_dir()}")
    print("Bundled models:")
    states = [_state(name) for name in BUNDLED]
    for name, (_, text) in zip(BUNDLED, states, strict=True):
        print(f"  {name:14} {text}")
    key = "is set" if os.environ.get("OPENAI_API_KEY") else "is not set (needed for openai: endpoints elsewhere)"
    print(f"OPENAI_API_KEY {key}")
    healthy = all(good for good, _ in states)
    print("All that the method needs is here." if healthy else "Something is missing: run `pmlm models --fetch`.")
    return 0 if healthy else 1


def _state(name: str) -> tuple[bool, str]:
    try:
        BUNDLED[name].check()
    except ModelError as error:
        return False, f"missing: {error}"
    return True, f"{BUNDLED[name].what}: installed, checksum right"
