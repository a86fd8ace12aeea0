"""A recurrent network."""

from __future__ import annotations

import torch
from torch import nn

from pmlm_env.predictors.series.network import NetworkModel, SeriesNetwork

HIDDEN_SIZE = 128
DROPOUT = 0.5


class LstmNetwork(SeriesNetwork):
    """A layer of LSTM, whose state after the last step read goes through dropout into a linear layer."""

    def __init__(self, n_channels: int, n_labels: int) -> None:
        """Draw the initial weights from torch's global generator."""
        super().__init__()
        self.lstm = nn.LSTM(n_channels, HIDDEN_SIZE, batch_first=True)
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(HIDDEN_SIZE, n_labels)

    def forward(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return a score of each label; see ``SeriesNetwork``."""
        states, _ = self.lstm(inputs)
        return self.head(self.dropout(states[torch.arange(len(inputs)), lengths - 1]))


class Lstm(NetworkModel):
    """Long short-term memory (Hochreiter & Schmidhuber 1997), as for the diagnoses of Lipton et al. (ICLR 2016)."""

    def _make_network(self, n_channels: int, n_labels: int) -> LstmNetwork:
        return LstmNetwork(n_channels, n_labels)
