"""A network of self-attention."""

from __future__ import annotations

import torch
from torch import nn

from pmlm_env.predictors.series.network import NetworkModel, SeriesNetwork

SIZE, HEADS, LAYERS = 64, 4, 2
DROPOUT = 0.2


class TransformerNetwork(SeriesNetwork):
    """Two layers of a transformer encoder over the check-ups; then the mean over time, and a linear layer."""

    def __init__(self, n_channels: int, n_labels: int) -> None:
        """Draw the initial weights from torch's global generator."""
        super().__init__()
        self.embedding = nn.Linear(n_channels, SIZE)
        layer = nn.TransformerEncoderLayer(SIZE, HEADS, 2 * SIZE, DROPOUT, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(SIZE), enable_nested_tensor=False)
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(SIZE, n_labels)

    def forward(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return a score of each label; see ``SeriesNetwork``."""
        read = torch.arange(inputs.shape[1]) < lengths[:, None]
        embedded = self.embedding(inputs) + positions(inputs.shape[1]).to(inputs)
        hidden = self.encoder(embedded, src_key_padding_mask=~read) * read.unsqueeze(2)
        return self.head(self.dropout(hidden.sum(dim=1) / lengths[:, None]))


def positions(n_steps: int) -> torch.Tensor:
    """Return the sinusoidal encodings of the check-ups' positions (Vaswani et al. 2017, 3.5), shape (T, 64)."""
    rates = 10_000.0 ** (-torch.arange(0, SIZE, 2) / SIZE)
    angles = torch.arange(n_steps)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


class Transformer(NetworkModel):
    """A transformer encoder (Vaswani et al. 2017) of each check-up's values, as that of Zerveas et al. (KDD 2021)."""

    def _make_network(self, n_channels: int, n_labels: int) -> TransformerNetwork:
        return TransformerNetwork(n_channels, n_labels)
