"""What runs of an experiment cost at most: calls of the LLM, tokens, money and hours; ``pmlm experiment --dry-run``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agents.training.estimate import BYTES_PER_TOKEN, amounts_line
from pmlm_env.llm import LLMOptions, price_of


@dataclass(frozen=True)
class Load:
    """What a run asks of an LLM.

    Attributes:
        options: The LLM.
        calls: The most calls.
        prompt_bytes: Length of the longest prompt, with the system prompt, in bytes of UTF-8.
    """

    options: LLMOptions
    calls: int
    prompt_bytes: int


def cost_text(loads: Iterable[Load], done: Sequence[Mapping[str, Any]]) -> str:
    """Return the maximum calls, tokens, money and hours of missing runs, for each LLM, as text.

    Args:
        loads: What each missing run asks for.
        done: The complete runs, as lines of the file; hours are estimated from their seconds and calls.

    Raises:
        ValueError: The providers' file is invalid.
    """
    by_llm: dict[str, list[Load]] = {}
    for load in loads:
        by_llm.setdefault(load.options.llm, []).append(load)
    lines = []
    for llm, own in by_llm.items():
        options, calls = own[0].options, sum(load.calls for load in own)
        prompt = sum(load.calls * load.prompt_bytes for load in own) / BYTES_PER_TOKEN
        price = price_of(options)
        lines += [
            f"{llm}, at most:",
            amounts_line("runs", (calls, prompt, calls * options.max_new_tokens), price),
            f"  {_hours(calls, [line for line in done if line['cell'].get('models', {}).get('llm') == llm])}",
        ]
        if price is None and not llm.startswith(("local:", "vllm:", "responder")):
            lines.append("  The price of this LLM is not known: it can be given in a file for --providers (docs/llm)")
    return "\n".join([*lines, "Replies that were asked for before are not asked for again. Nothing was sent."])


def _hours(calls: int, done: Sequence[Mapping[str, Any]]) -> str:
    """Return the hours that calls take, as far as complete runs tell."""
    timed = [(line["seconds"], line["calls"]) for line in done if line.get("calls")]
    if not timed:
        return "hours: not known before a run with calls is complete"
    rate = sum(seconds for seconds, _ in timed) / sum(n for _, n in timed)
    return f"about {calls * rate / 3600:.1f} hours, at the {rate:.2g} s a call of {len(timed)} complete runs"
