"""Eq. 2: the two-layer perceptron and its training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from pmlm_env.predictors.training import TrainingSettings, train
from pmlm_env.retrieval.packed import PackedCheckups

HIDDEN_SIZE, VECTOR_SIZE = 256, 128
DROPOUT = 0.4

#: Regularization, because there are few patients and many weights: in each training batch, up to this share of a
#: patient's check-ups is hidden, and training stops early.
MAX_HIDDEN_SHARE = 0.5
PATIENCE = 6
MAX_EPOCHS = 100
BATCH_SIZE = 128
LEARNING_RATE = 5e-4
WEIGHT_DECAY = 0.01


class EncoderNetwork(nn.Module):
    """N inputs -> 256 -> 128: ReLU and dropout between the layers, nothing after the second.

    The paper's network has 45 x 35 = 1,575 inputs; this one also has a mask of the same size (``InputScaler.pad``).
    """

    def __init__(self, n_inputs: int, generator: torch.Generator) -> None:
        """Draw the initial weights from ``generator``, on the CPU."""
        super().__init__()
        self.first = linear(n_inputs, HIDDEN_SIZE, generator)
        self.second = linear(HIDDEN_SIZE, VECTOR_SIZE, generator)

    def forward(self, inputs: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Return vectors of shape (B, 128) for inputs of shape (B, 2, max_checkups, n_indicators).

        Args:
            inputs: From ``InputScaler.pad``.
            generator: Draws the dropout, on the device of the inputs; None = no dropout.
        """
        hidden = functional.relu(self.first(inputs.flatten(1)))
        if generator is not None:
            retained = torch.rand(hidden.shape, generator=generator, device=hidden.device) >= DROPOUT
            hidden = hidden * retained / (1.0 - DROPOUT)
        return self.second(hidden)


def linear(n_in: int, n_out: int, generator: torch.Generator) -> nn.Linear:
    """Return a linear layer with PyTorch's usual initial weights, drawn from ``generator``."""
    layer = nn.utils.skip_init(nn.Linear, n_in, n_out)
    bound = n_in**-0.5
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer


def hide_checkups(inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Remove random check-ups of each patient and move the others up.

    The share to remove is drawn uniformly up to ``MAX_HIDDEN_SHARE`` for each patient.

    Args:
        inputs: From ``InputScaler.pad``, shape (B, 2, max_checkups, n_indicators).
        generator: Draws the check-ups, on the device of the inputs.
    """
    n, _, slots, _ = inputs.shape
    share = torch.rand(n, 1, generator=generator, device=inputs.device) * MAX_HIDDEN_SHARE
    hidden = torch.rand(n, slots, generator=generator, device=inputs.device) < share
    order = hidden.int().argsort(dim=1, stable=True)[:, None, :, None].expand_as(inputs)
    return (inputs * ~hidden[:, None, :, None]).gather(2, order)


def train_network(
    inputs: PackedCheckups,
    labels: npt.NDArray[np.str_],
    seed: int,
    device: torch.device,
    persons: Sequence[str] | None = None,
) -> EncoderNetwork:
    """Train the network to classify the labels, with a linear head that is then discarded.

    The paper does not state its encoder's training objective; here it is the cross-entropy of the training patients'
    labels; see ``train``.

    Args:
        inputs: The training patients' check-ups, on ``device``.
        labels: Their labels, shape (N,).
        seed: Draws weights, dropout, batches and the validation fold. No global generator is used.
        device: Where to train.
        persons: The person of each patient; see ``train``.
    """
    cpu = torch.Generator().manual_seed(seed)
    local = torch.Generator(device).manual_seed(seed)
    classes, codes = np.unique(labels, return_inverse=True)
    network = EncoderNetwork(inputs.size, cpu).to(device)
    head = linear(VECTOR_SIZE, len(classes), cpu).to(device)
    y = torch.from_numpy(codes).to(device)
    whole = nn.ModuleList([network, head])

    def loss(batch: torch.Tensor) -> torch.Tensor:
        x = inputs.padded(batch)
        if whole.training:
            return functional.cross_entropy(head(network(hide_checkups(x, local), local)), y[batch])
        return functional.cross_entropy(head(network(x)), y[batch])

    settings = TrainingSettings(LEARNING_RATE, WEIGHT_DECAY, BATCH_SIZE, PATIENCE, MAX_EPOCHS)
    train(whole, loss, labels, settings, seed, cpu, persons)
    return network.requires_grad_(False)
