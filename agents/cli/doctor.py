"""Show what is installed, what is missing and how to get it: ``pmlm doctor``."""

from __future__ import annotations

import importlib.util
import os
import platform
import time
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

from agents.settings import changed, refuse_idle
from pmlm_env.io.text import printable
from pmlm_env.kwargs import NO_KWARGS, Kwargs, read_kwargs
from pmlm_env.llm import LLMOptions, load_llm
from pmlm_env.llm.http.endpoint import OpenAIChat
from pmlm_env.llm.http.pool import PooledChat
from pmlm_env.llm.http.providers import load_providers
from pmlm_env.llm.specs import is_custom
from pmlm_env.weights import BUNDLED, cache_dir, describe, state

_PACKAGES = ("pmlm-env", "torch", "transformers", "gymnasium", "scikit-learn", "bert-score", "tensorboard")
_EXTRAS = {
    "pyarrow": "to read Parquet: pip install 'pmlm-env[parquet]'",
    "rjieba": "for Chinese prompts: pip install 'pmlm-env[zh]'",
}


@dataclass(frozen=True)
class DoctorConfig:
    """Show what is installed, the device, and what is missing; with --llm, check whether an LLM answers instead.

    Attributes:
        llm: LLM to ask one question, which may be a paid call: ``local:NAME_OR_PATH``, ``PROVIDER:MODEL``,
            ``package.module:Class``, ...
        llm_kwargs: Arguments of your own LLM's class, as JSON.
        base_url: URL of the endpoint; by default that of the provider.
        providers: A TOML file with more providers; see docs/llm.
        max_new_tokens: Maximum number of tokens in the reply.
        device: Device for ``local:``.
        chat_template_kwargs: For ``local:`` and ``vllm:``, extra arguments for the model's chat template, as JSON.
    """

    llm: str | None = None
    llm_kwargs: Kwargs = NO_KWARGS
    base_url: str | None = None
    providers: str | None = None
    max_new_tokens: int = 48
    device: str = "auto"
    chat_template_kwargs: Kwargs = NO_KWARGS

    def __post_init__(self) -> None:
        """Read the arguments given as JSON.

        Raises:
            ValueError: They are not JSON values.
        """
        read_kwargs(self)


Config = DoctorConfig

_QUESTION = "Reply with one short sentence: what does a nurse do?"


def run(config: DoctorConfig) -> int:
    """Show what is installed and what is missing, or ask an LLM.

    Returns:
        The exit code: 0 if the method can run, 1 if something it needs is missing.

    Raises:
        ValueError: An option for the LLM is given, but no LLM.
        LLMError: The LLM did not reply.
    """
    if config.llm is None:
        refuse_idle(config, dict.fromkeys(changed(config), "no LLM is asked. Name one with --llm"))
        return _examine()
    usual: dict[str, Any] = {"max_new_tokens": config.max_new_tokens, "on_truncated": "keep"}
    if is_custom(LLMOptions(config.llm, providers=config.providers)):
        usual = {}
    options = LLMOptions(**usual | {name: getattr(config, name) for name in changed(config) if name != "device"})
    llm = load_llm(options, device=config.device)
    if isinstance(llm.llm, OpenAIChat):
        llm.llm = replace(llm.llm, tries=1)  # no retries, because the user is waiting
    elif isinstance(llm.llm, PooledChat):
        llm.llm = llm.llm.tried_once_each()
    started = time.perf_counter()
    (reply,) = llm.generate([_QUESTION])
    seconds = time.perf_counter() - started
    cut = f", cut at max_new_tokens={config.max_new_tokens}" if reply.finish_reason == "length" else ""
    print(f"{config.llm} answers as {printable(reply.model) or 'itself'}, in {seconds:.2f} s")
    print(f"{reply.prompt_tokens} tokens in, {reply.completion_tokens} out{cut}: {reply.text!r}")
    return 0


def _examine() -> int:
    import torch

    from pmlm_env.device import choose_device, llm_dtype

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
    for name in BUNDLED:
        print(f"  {name:18} {describe(name)}")
    print("Endpoints (`pmlm doctor --llm NAME:MODEL` asks one):")
    for provider in load_providers().values():
        variable = provider.settings.get("api_key_env", "OPENAI_API_KEY")
        key = f"{variable} is {'set' if os.environ.get(variable) else 'not set'}"
        print(f"  {provider.name:18} {provider.settings['base_url']}, {key}")
    needed = _needed()
    for line in needed:
        print(line)
    if not needed:
        print("All that the method needs is here.")
    return 1 if needed else 0


def _needed() -> list[str]:
    """Return a line for each missing item, saying how to get it."""
    ready = [name for name in BUNDLED if state(name) == "ready"]
    lines = []
    if "minilm" not in ready:
        lines.append("Missing: the encoder: run `pmlm models --fetch minilm`")
    if not set(ready) - {"minilm"}:
        llms = " or ".join(name for name in BUNDLED if name != "minilm")
        lines.append(f"Missing: a local LLM: run `pmlm models --fetch smollm2-135m` (one of {llms} is enough)")
    return lines
