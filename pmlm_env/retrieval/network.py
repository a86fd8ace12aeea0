"""Eq. 2: the two-layer perceptron, and how it is trained."""

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
from pmlm_env.retrieval.inputs import INPUT_SIZE

HIDDEN_SIZE, VECTOR_SIZE = 256, 128
DROPOUT = 0.4

#: Training. The patients are few and the weights many, so what counts is what holds the network back: at each
#: look at a patient up to this share of her check-ups is hidden, and training ends once the loss on every
#: seventh patient, kept aside, has not fallen for some epochs.
MAX_HIDDEN_SHARE = 0.5
VALIDATION_FOLDS = 7
PATIENCE = 6
MAX_EPOCHS = 100
BATCH_SIZE = 128
LEARNING_RATE = 5e-4
WEIGHT_DECAY = 0.01


class EncoderNetwork(nn.Module):
    """3,150 -> 256 -> 128: ReLU and dropout between the layers, nothing after the second.

    The paper's layer reads 1,575 numbers; this one also reads their 1,575 marks (``InputScaler.pad``).
    """

    def __init__(self, generator: torch.Generator) -> None:
        """Draw the initial weights from ``generator``, a CPU generator."""
        super().__init__()
        self.first = linear(INPUT_SIZE, HIDDEN_SIZE, generator)
        self.second = linear(HIDDEN_SIZE, VECTOR_SIZE, generator)

    def forward(self, inputs: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Return vectors of shape (B, 128) for inputs of shape (B, 2, 45, 35).

        Args:
            inputs: As ``InputScaler.pad`` makes them.
            generator: Draws the dropout, on the device of the inputs; without it there is none.
        """
        hidden = functional.relu(self.first(inputs.flatten(1)))
        if generator is not None:
            kept = torch.rand(hidden.shape, generator=generator, device=hidden.device) >= DROPOUT
            hidden = hidden * kept / (1.0 - DROPOUT)
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
    """Hide some of each patient's check-ups, as if they had not been; those left move up.

    The share to hide is drawn for each patient anew, evenly up to ``MAX_HIDDEN_SHARE``.

    Args:
        inputs: As ``InputScaler.pad`` makes them, shape (B, 2, 45, 35).
        generator: Draws what to hide, on the device of the inputs.
    """
    n, _, slots, _ = inputs.shape
    share = torch.rand(n, 1, generator=generator, device=inputs.device) * MAX_HIDDEN_SHARE
    hidden = torch.rand(n, slots, generator=generator, device=inputs.device) < share
    order = hidden.int().argsort(dim=1, stable=True)[:, None, :, None].expand_as(inputs)
    return (inputs * ~hidden[:, None, :, None]).gather(2, order)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one CPU core meanwhile.

    A network this small gains little from more, and loses much where the cores are shared; and sums come out the
    same whatever the number of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@one_thread()
def train_network(
    inputs: npt.NDArray[np.float32], labels: npt.NDArray[np.str_], seed: int, device: torch.device
) -> EncoderNetwork:
    """Train the network, under a linear head that is thrown away, to tell the labels apart.

    The paper does not say what its encoder is trained on; here it is the cross-entropy of the training patients'
    labels. The weights kept are those of the epoch with the least loss on the patients kept aside (on all of
    them, where there are fewer than two for each of ``VALIDATION_FOLDS``).

    Args:
        inputs: The training patients' check-ups, shape (N, 2, 45, 35).
        labels: Their labels, shape (N,).
        seed: Draws weights, dropout, batches and the patients kept aside. No global generator is touched.
        device: Where to train.
    """
    cpu = torch.Generator().manual_seed(seed)
    local = torch.Generator(device).manual_seed(seed)
    classes, codes = np.unique(labels, return_inverse=True)
    network = EncoderNetwork(cpu).to(device)
    head = linear(VECTOR_SIZE, len(classes), cpu).to(device)
    x, y = torch.from_numpy(inputs).to(device), torch.from_numpy(codes).to(device)
    aside = torch.from_numpy(assign_folds(labels, VALIDATION_FOLDS, np.random.default_rng(seed)) == 0)
    learn, check = (~aside, aside) if len(labels) >= 2 * VALIDATION_FOLDS else (aside | True, aside | True)
    learn, check = learn.nonzero()[:, 0], check.nonzero()[:, 0].to(device)

    parameters = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    best_loss, best_epoch, best_weights = float("inf"), 0, network.state_dict()
    for epoch in range(MAX_EPOCHS):
        for batch in learn[torch.randperm(len(learn), generator=cpu)].to(device).split(BATCH_SIZE):
            vectors = network(hide_checkups(x[batch], local), local)
            optimizer.zero_grad()
            functional.cross_entropy(head(vectors), y[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            loss = functional.cross_entropy(head(network(x[check])), y[check]).item()
        if loss < best_loss:
            best_loss, best_epoch, best_weights = loss, epoch, copy.deepcopy(network.state_dict())
        if epoch - best_epoch >= PATIENCE:
            break
    network.load_state_dict(best_weights)
    return network.requires_grad_(False)
