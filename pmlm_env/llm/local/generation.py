"""What is done to logits and rows while transformers' ``generate`` decodes a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import LogitsProcessor, StoppingCriteria

from pmlm_env.llm.local.chat_template import Tokens


class FiniteLogits(LogitsProcessor):
    """Notes the rows whose logits are not finite: greedily decoded, they would be a reply of first tokens.

    Args:
        width: Tokens of the padded prompts.

    Attributes:
        missing: At how many new tokens that began, by row.
    """

    def __init__(self, width: int) -> None:
        """No row yet."""
        self._width = width
        self.missing: dict[int, int] = {}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Note the rows; return the logits with 0 where they are not finite."""
        wrong = scores.isnan() | scores.isposinf()  # minus infinity is what no token may be
        for row in wrong.any(dim=-1).nonzero()[:, 0].tolist():
            self.missing.setdefault(row, input_ids.shape[1] - self._width)
        return scores.masked_fill(wrong, 0.0)


class Draw(LogitsProcessor):
    """Leaves of each row only the token at which the sum of probabilities passes the row's draw.

    Args:
        temperature: What logits are divided by, above 0.
        draws: A number from [0, 1) for each row and new token, as float64 (rows, tokens).
        width: Tokens of the padded prompts.
    """

    def __init__(self, temperature: float, draws: torch.Tensor, width: int) -> None:
        """Take the numbers that decide."""
        self._temperature, self._draws, self._width = temperature, draws, width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return 0 for the token that is drawn, minus infinity for all others."""
        sums = torch.softmax(scores.double() / self._temperature, dim=-1).cumsum(dim=-1)
        draws = self._draws[:, input_ids.shape[1] - self._width, None]
        chosen = torch.searchsorted(sums, draws * sums[:, -1:], right=True).clamp(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)


class StopRows(StoppingCriteria):
    """Ends the rows whose new tokens say so.

    Args:
        width: Tokens of the padded prompts.
        stopped: Says whether a reply ends with its last token.
    """

    def __init__(self, width: int, stopped: Callable[[Tokens], bool]) -> None:
        """Remember what to ask."""
        self._width, self._stopped = width, stopped

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Return whether each row has ended, bool (rows,)."""
        ended = [self._stopped(row) for row in input_ids[:, self._width :].tolist()]
        return torch.tensor(ended, device=input_ids.device)
