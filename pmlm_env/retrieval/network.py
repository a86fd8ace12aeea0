"""Eq. 2: the two-layer perceptron and its training."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from pmlm_env.predictors.base import assign_folds
from pmlm_env.predictors.inputs import INPUT_SIZE

HIDDEN_SIZE, VECTOR_SIZE = 256, 128
DROPOUT = 0.4

#: Regularization, because there are few patients and many weights: in each training batch, up to this share of a
#: patient's check-ups is hidden, and training stops early by the loss on one of ``VALIDATION_FOLDS`` folds.
MAX_HIDDEN_SHARE = 0.5
VALIDATION_FOLDS = 7
PATIENCE = 6
MAX_EPOCHS = 100
BATCH_SIZE = 128
LEARNING_RATE = 5e-4
WEIGHT_DECAY = 0.01


class EncoderNetwork(nn.Module):
    """3,150 -> 256 -> 128: ReLU and dropout between the layers, nothing after the second.

    The paper's network has 1,575 inputs; this one also has a mask of 1,575 (``InputScaler.pad``).
    """

    def __init__(self, generator: torch.Generator) -> None:
        """Draw the initial weights from ``generator``, on the CPU."""
        super().__init__()
        self.first = linear(INPUT_SIZE, HIDDEN_SIZE, generator)
        self.second = linear(HIDDEN_SIZE, VECTOR_SIZE, generator)

    def forward(self, inputs: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Return vectors of shape (B, 128) for inputs of shape (B, 2, 45, 35).

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
        inputs: From ``InputScaler.pad``, shape (B, 2, 45, 35).
        generator: Draws the check-ups, on the device of the inputs.
    """
    n, _, slots, _ = inputs.shape
    share = torch.rand(n, 1, generator=generator, device=inputs.device) * MAX_HIDDEN_SHARE
    hidden = torch.rand(n, slots, generator=generator, device=inputs.device) < share
    order = hidden.int().argsort(dim=1, stable=True)[:, None, :, None].expand_as(inputs)
    return (inputs * ~hidden[:, None, :, None]).gather(2, order)


@one_thread()
def train_network(
    inputs: npt.NDArray[np.float32], labels: npt.NDArray[np.str_], seed: int, device: torch.device
) -> EncoderNetwork:
    """Train the network to classify the labels, with a linear head that is then discarded.

    The paper does not state its encoder's training objective; here it is the cross-entropy of the training patients'
    labels. The weights returned are those of the epoch with the lowest loss on the validation fold (on all patients,
    if there are fewer than two per fold).

    Args:
        inputs: The training patients' check-ups, shape (N, 2, 45, 35).
        labels: Their labels, shape (N,).
        seed: Draws weights, dropout, batches and the validation fold. No global generator is used.
        device: Where to train.
    """
    cpu = torch.Generator().manual_seed(seed)
    local = torch.Generator(device).manual_seed(seed)
    classes, codes = np.unique(labels, return_inverse=True)
    network = EncoderNetwork(cpu).to(device)
    head = linear(VECTOR_SIZE, len(classes), cpu).to(device)
    x, y = torch.from_numpy(inputs).to(device), torch.from_numpy(codes).to(device)
    validation = torch.from_numpy(assign_folds(labels, VALIDATION_FOLDS, np.random.default_rng(seed)) == 0)
    train_index, validation_index = (
        (~validation, validation) if len(labels) >= 2 * VALIDATION_FOLDS else (validation | True, validation | True)
    )
    train_index, validation_index = train_index.nonzero()[:, 0], validation_index.nonzero()[:, 0].to(device)

    parameters = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    best_loss, best_epoch, best_weights = float("inf"), 0, network.state_dict()
    for epoch in range(MAX_EPOCHS):
        for batch in train_index[torch.randperm(len(train_index), generator=cpu)].to(device).split(BATCH_SIZE):
            vectors = network(hide_checkups(x[batch], local), local)
            optimizer.zero_grad()
            functional.cross_entropy(head(vectors), y[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            loss = functional.cross_entropy(head(network(x[validation_index])), y[validation_index]).item()
        if loss < best_loss:
            best_loss, best_epoch, best_weights = loss, epoch, copy.deepcopy(network.state_dict())
        if epoch - best_epoch >= PATIENCE:
            break
    network.load_state_dict(best_weights)
    return network.requires_grad_(False)
