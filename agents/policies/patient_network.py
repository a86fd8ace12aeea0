"""PatientNetwork: the patient encoder of Eq. 2 as a part of the policy, as in the paper's Algorithm 1."""

from __future__ import annotations

import torch
from torch import nn

from agents.policies.dropout import RowDropout

#: Its sizes, which are those of ``pmlm_env.retrieval.network.EncoderNetwork``: it is exported as one.
HIDDEN_SIZE, VECTOR_SIZE = 256, 128


class PatientNetwork(nn.Module):
    """Padded check-ups -> 256 -> 128, which learns from the policy's loss alone.

    Args:
        n_inputs: Length of a patient's padded check-ups.
        dropout: Dropout rate between the layers (0.4 in the paper).
    """

    def __init__(self, n_inputs: int, dropout: float) -> None:
        """Draw the initial weights from torch's global generator."""
        super().__init__()
        self.first = nn.Linear(n_inputs, HIDDEN_SIZE)
        self.dropout = RowDropout(dropout)
        self.second = nn.Linear(HIDDEN_SIZE, VECTOR_SIZE)

    def forward(self, checkups: torch.Tensor) -> torch.Tensor:
        """Return x_hat of each patient, (B, 128), given their padded check-ups, (B, n_inputs)."""
        return self.second(self.dropout(torch.relu(self.first(checkups))))
