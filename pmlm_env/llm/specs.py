"""From a name to an LLM."""

from __future__ import annotations

from pmlm_env.llm.base import LLM

_KNOWN = "local:NAME_OR_DIR, openai:MODEL (with a base URL) or responder"


def load_llm(
    spec: str = "local:smollm2-135m", *, base_url: str | None = None, max_new_tokens: int = 48, device: str = "auto"
) -> LLM:
    """Make the LLM that ``spec`` names.

    Args:
        spec: ``local:NAME_OR_DIR`` (transformers, in this process), ``openai:MODEL`` (any OpenAI-compatible endpoint)
            or ``responder`` (rule-based; for tests).
        base_url: Where the endpoint is; OpenAI's own by default. Keys come from the environment only.
        max_new_tokens: Where a reply is cut.
        device: For ``local:``.

    Raises:
        ValueError: ``spec`` names none of these, or ``base_url`` is given for one that has none.
    """
    kind, _, name = spec.partition(":")
    if base_url is not None and kind != "openai":
        raise ValueError(f"{spec!r} runs here and takes no base URL: leave it out, or use openai:MODEL")
    if kind == "local" and name:
        from pmlm_env.llm.local import LocalLLM

        return LocalLLM(name, max_new_tokens=max_new_tokens, device=device)
    if kind == "openai" and name:
        from pmlm_env.llm.openai import OpenAIChat

        if base_url is None:
            return OpenAIChat(name, max_tokens=max_new_tokens)
        return OpenAIChat(name, base_url=base_url, max_tokens=max_new_tokens)
    if spec == "responder":
        from pmlm_env.llm.responder import Responder

        return Responder()
    raise ValueError(f"unknown LLM {spec!r}: use {_KNOWN}")
