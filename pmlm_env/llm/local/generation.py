"""Logits processors and stopping criteria for transformers' ``generate``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import LogitsProcessor, StoppingCriteria

from pmlm_env.llm.local.chat_template import Tokens


class FiniteLogits(LogitsProcessor):
    """Records rows with logits that are not finite, which greedy decoding would turn into a meaningless reply.

    Args:
        width: Length of the padded prompts in tokens.

    Attributes:
        first_invalid: Row -> number of new tokens before its first invalid logits.
    """

    def __init__(self, width: int) -> None:
        """Start without invalid rows."""
        self._width = width
        self.first_invalid: dict[int, int] = {}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Record the rows, and replace invalid logits by 0."""
        invalid = scores.isnan() | scores.isposinf()  # minus infinity is valid: it excludes a token
        for row in invalid.any(dim=-1).nonzero()[:, 0].tolist():
            self.first_invalid.setdefault(row, input_ids.shape[1] - self._width)
        return scores.masked_fill(invalid, 0.0)


class InverseSampling(LogitsProcessor):
    """Samples by inverting the cumulative distribution at given random numbers, independent of the batch.

    Args:
        temperature: Sampling temperature, above 0.
        draws: Random numbers in [0, 1), shape (rows, new tokens), float64.
        width: Length of the padded prompts in tokens.
    """

    def __init__(self, temperature: float, draws: torch.Tensor, width: int) -> None:
        """Store the arguments."""
        self._temperature, self._draws, self._width = temperature, draws, width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return 0 for the sampled token and minus infinity for all others."""
        sums = torch.softmax(scores.double() / self._temperature, dim=-1).cumsum(dim=-1)
        draws = self._draws[:, input_ids.shape[1] - self._width, None]
        chosen = torch.searchsorted(sums, draws * sums[:, -1:], right=True).clamp(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)


class StopRows(StoppingCriteria):
    """Ends rows according to a function of their new tokens.

    Args:
        width: Length of the padded prompts in tokens.
        stopped: Returns whether a reply ends with its last token.
    """

    def __init__(self, width: int, stopped: Callable[[Tokens], bool]) -> None:
        """Store the arguments."""
        self._width, self._stopped = width, stopped

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Return whether each row has ended, shape (rows,), bool."""
        ended = [self._stopped(row) for row in input_ids[:, self._width :].tolist()]
        return torch.tensor(ended, device=input_ids.device)
