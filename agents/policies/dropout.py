"""RowDropout: dropout of a part of a batch as that of the whole batch."""

from __future__ import annotations

import torch
from torch import nn


class RowDropout(nn.Dropout):
    """Dropout that draws for all rows of a batch, of which the input may be a part.

    So several processes with the same generator, each with its share of the rows, have the masks of one process with
    all rows.

    Attributes:
        n_rows: The number of rows of the whole batch; None = those of the input.
        own: Which of them the input is.
    """

    n_rows: int | None = None
    own: slice = slice(None)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the input (B, ...), each value set to 0 with probability ``p`` in training, the others scaled up."""
        if not self.training or not self.p:
            return input
        n_rows = len(input) if self.n_rows is None else self.n_rows
        noise = torch.empty((n_rows, *input.shape[1:]), dtype=input.dtype, device=input.device).bernoulli_(1 - self.p)
        return input * noise[self.own].div_(1 - self.p)


def divide_dropout(network: nn.Module, n_rows: int, own: slice) -> None:
    """Tell the dropout layers of a network which rows of a batch it gets; see ``RowDropout``."""
    for layer in network.modules():
        if isinstance(layer, RowDropout):
            layer.n_rows, layer.own = n_rows, own
