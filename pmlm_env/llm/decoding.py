"""Decoding a batch of prompts token by token, over a causal LM's forward pass.

transformers' ``generate`` keeps computing rows that have ended until the last one ends, and draws all rows' samples
from one generator. The cache is transformers' own: on a CPU one allocated beforehand was no faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers import DynamicCache, PreTrainedModel

#: A vocabulary's tokens, as ids.
Tokens = list[int]


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    prompts: Sequence[Tokens],
    *,
    ends: Tokens,
    max_new_tokens: int,
    min_new_tokens: int = 0,
    temperature: float = 0.0,
    draws: torch.Tensor | None = None,
    ended: Callable[[Tokens], bool] = lambda reply: False,
) -> list[Tokens]:
    """Continue each prompt; what all of them begin with is computed once, and rows that have ended no more.

    Args:
        model: A decoder-only LM with attention, in evaluation mode.
        prompts: N token sequences of 1 or more; none is changed.
        ends: The tokens that end a reply.
        max_new_tokens: Most tokens of a reply.
        min_new_tokens: So many tokens come before one of ``ends``.
        temperature: 0 takes the likeliest token (of equals the first); else logits are divided by it.
        draws: Where ``temperature`` is not 0, for each row and token a number from [0, 1) that decides the token, as
            float64 (N, max_new_tokens) on the model's device.
        ended: Whether a reply, of 1 or more tokens, ends with its last token for another reason.

    Returns:
        N replies, each with the token of ``ends`` that ended it, if one did.

    Raises:
        torch.OutOfMemoryError: The batch is too large for the device.
    """
    cache = DynamicCache(config=model.config)
    logits, mask = _prefill(model, prompts, cache)
    replies: list[Tokens] = [[] for _ in prompts]
    rows = list(range(len(prompts)))
    for step in range(max_new_tokens):
        if step < min_new_tokens:
            logits[:, ends] = -torch.inf
        if temperature and draws is not None:
            chosen = _draw(logits, temperature, draws[rows, step][:, None])
        else:
            chosen = logits.argmax(dim=-1)
        for row, token in zip(rows, chosen.tolist(), strict=True):
            replies[row].append(token)
        going = [i for i, row in enumerate(rows) if replies[row][-1] not in ends and not ended(replies[row])]
        if not going or step == max_new_tokens - 1:
            break
        if len(going) < len(rows):
            rows = [rows[i] for i in going]
            kept = torch.tensor(going, device=mask.device)
            cache.batch_select_indices(kept)
            mask, chosen = mask[kept], chosen[kept]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        logits = model(
            input_ids=chosen[:, None],
            attention_mask=mask,
            position_ids=mask.sum(dim=1, keepdim=True) - 1,
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
    return replies


def _prefill(
    model: PreTrainedModel, prompts: Sequence[Tokens], cache: DynamicCache
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fill the cache; return the logits after each prompt (N, vocabulary), and what is no padding (N, cache's length).

    The shared beginning comes first, then the padding, then what is left of each prompt.
    """
    n = len(prompts)
    shortest = min(map(len, prompts))
    shared = 0
    if n > 1:
        columns = enumerate(zip(*prompts, strict=False))
        shared = next((i for i, column in columns if len(set(column)) > 1), shortest)
        shared = min(shared, shortest - 1)  # each row keeps a token of its own, to ask for the next one's logits
    if shared:
        first = torch.tensor([prompts[0][:shared]], device=model.device)
        model.base_model(input_ids=first, past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(n)
    width = max(map(len, prompts)) - shared
    tokens = torch.zeros(n, width, dtype=torch.long)
    mask = torch.ones(n, shared + width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        padding = width - len(prompt) + shared
        tokens[row, padding:] = torch.tensor(prompt[shared:])
        mask[row, shared : shared + padding] = 0
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, shared:]
    logits = model(
        input_ids=tokens.to(model.device),
        attention_mask=mask.to(model.device),
        position_ids=positions.to(model.device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    return logits, mask.to(model.device)


def _draw(logits: torch.Tensor, temperature: float, draws: torch.Tensor) -> torch.Tensor:
    """Take of each row the token at which the sum of probabilities passes its draw.

    Args:
        logits: (rows, vocabulary).
        temperature: Above 0.
        draws: float64 (rows, 1).

    Returns:
        The tokens, (rows,).
    """
    sums = torch.softmax(logits.double() / temperature, dim=-1).cumsum(dim=-1)
    chosen = torch.searchsorted(sums, draws * sums[:, -1:], right=True)
    return chosen[:, 0].clamp(max=logits.shape[1] - 1)
