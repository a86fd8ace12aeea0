"""Logits processors and stopping criteria for transformers' ``generate``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


class GumbelSampling(LogitsProcessor):
    """Samples the token with the highest sum of scaled logit and Gumbel noise (Gumbel-max trick), each row by itself.

    Rounding, which depends on the batch, changes the sample only where two sums are all but equal. It would move all
    the boundaries between tokens if the cumulative distribution were inverted.

    Args:
        temperature: Sampling temperature, above 0.
        generators: One generator per row, all on one device.
    """

    def __init__(self, temperature: float, generators: Sequence[torch.Generator]) -> None:
        """Store the arguments."""
        self._temperature, self._generators = temperature, generators

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return 0 for the sampled token and minus infinity for all others."""
        row = torch.empty(scores.shape[1], device=self._generators[0].device)
        noise = torch.stack([row.exponential_(generator=each).clone() for each in self._generators]).to(scores.device)
        sums = scores.double() / self._temperature - noise.double().log()
        return torch.full_like(scores, -torch.inf).scatter(1, sums.argmax(dim=-1, keepdim=True), 0.0)


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
