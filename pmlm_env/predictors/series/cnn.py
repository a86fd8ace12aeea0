"""A convolutional network."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from pmlm_env.predictors.series.network import NetworkModel, SeriesNetwork

#: Filters and width of each convolution.
CONVOLUTIONS = ((64, 7), (128, 5), (64, 3))
DROPOUT = 0.3


class CnnNetwork(SeriesNetwork):
    """Three convolutions over time with layer normalization and ReLU; the mean over time goes into a linear layer.

    Steps that are not read are set to zero before each convolution, as if the history ended at the edge.
    """

    def __init__(self, n_channels: int, n_labels: int) -> None:
        """Draw the initial weights from torch's global generator."""
        super().__init__()
        sizes = [n_channels, *(filters for filters, _ in CONVOLUTIONS)]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(size, filters, width, padding="same")
            for size, (filters, width) in zip(sizes, CONVOLUTIONS, strict=False)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(filters) for filters, _ in CONVOLUTIONS)
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(sizes[-1], n_labels)

    def forward(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return a score of each label; see ``SeriesNetwork``."""
        read = (torch.arange(inputs.shape[1]) < lengths[:, None]).unsqueeze(2)
        hidden = inputs * read
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            hidden = functional.relu(norm(convolution(hidden.transpose(1, 2)).transpose(1, 2))) * read
        return self.head(self.dropout(hidden.sum(dim=1) / lengths[:, None]))


class Cnn(NetworkModel):
    """The fully convolutional network of Wang, Yan & Oates (IJCNN 2017), with half of the filters.

    Layer normalization takes the place of batch normalization, whose statistics would depend on the padding.
    """

    def _make_network(self, n_channels: int, n_labels: int) -> CnnNetwork:
        return CnnNetwork(n_channels, n_labels)
