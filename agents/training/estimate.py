"""Estimate of a training run's maximum cost: ``pmlm train --dry-run``."""

from __future__ import annotations

from collections.abc import Sequence

from agents.model_options import replying
from agents.registry import class_of, make
from agents.training.config import TrainConfig
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.llm import Budget, Limits, LLMError, load_llm, price_of
from pmlm_env.llm.specs import system_prompt_of
from pmlm_env.llm.storage.budget import Price

#: Approximate number of bytes per token in English; a model's own tokenizer may differ by a third.
BYTES_PER_TOKEN = 4


def estimate(config: TrainConfig) -> str:
    """Return the maximum calls, tokens, and cost of training and then evaluating on the test patients, as text.

    Training requests at most ``budget`` completions, and none if the agent does not learn from replies. The actual
    number may be lower, because repeated prompts are answered from the cache. Retries after errors are not included.

    Raises:
        ValueError: The episodes or the providers file are invalid.
    """
    price, editor = price_of(config.models), make(config.agent, config.settings).editor
    Budget(config.calls, None, price, config.calls.budget_file)  # checks that the limits can be enforced
    lines: list[str] = []
    needed: list[str] = []
    total = [0, 0.0, 0]
    try:
        load_llm(replying(config.models, editor is not None), device=config.models.device)
    except LLMError as error:
        needed = [f"The run cannot start yet: {error}"]
    episodes = EpisodeSet.load(config.episodes)
    train, test = episodes.of("train"), [e for e in episodes if e.split == "test" and e.label and e.reference]
    samples, system = config.models.n_samples, system_prompt_of(config.models)
    paid_for = config.budget // samples if class_of(config.agent).learns else 0
    parts = {
        "training": (paid_for, _tokens([system + e.prompt for e in train])),
        "evaluation": (3 * len(test), _tokens([system + e.prompt for e in test])),
    }
    for name, (prompts, tokens) in parts.items():
        calls = prompts * samples
        amounts = [calls, calls * tokens, calls * config.models.max_new_tokens]
        total = [a + b for a, b in zip(total, amounts, strict=True)]
        lines.append(amounts_line(name, amounts, price))
    lines.append(amounts_line("total", total, price))
    limits = {name: getattr(config.calls, name) for name in Limits.__dataclass_fields__}
    given = ", ".join(f"{name} {limit:,}" for name, limit in limits.items() if limit is not None)
    lines.append(f"limits: {given or 'none'}")
    if editor is not None:
        lines.append(
            f"The agent asks {editor.llm} about each test prompt, too: {len(test):,} calls, not included above"
        )
    if price is None:
        lines.append("The price of this LLM is not known: it can be given in a file for --providers (docs/llm)")
    return "\n".join([f"{config.models.llm}, at most:", *lines, *needed, "Nothing was sent."])


def _tokens(prompts: list[str]) -> float:
    """Return the approximate mean number of tokens per prompt."""
    return sum(len(prompt.encode()) for prompt in prompts) / BYTES_PER_TOKEN / max(1, len(prompts))


def amounts_line(name: str, amounts: Sequence[float], price: Price | None) -> str:
    """Return a line of an estimate: LLM calls, prompt tokens, completion tokens, and their cost if it is known."""
    calls, tokens_in, tokens_out = amounts
    cost = None if price is None else price.cost(int(tokens_in), int(tokens_out))
    money = "" if cost is None else f", cost {cost:,.2f}"
    return f"  {name:10} {calls:,} LLM calls, about {tokens_in:,.0f} tokens in, {tokens_out:,} out{money}"
