"""Training of small networks: AdamW with early stopping on a validation fold of the training patients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pmlm_env.device import one_thread
from pmlm_env.predictors.base import assign_folds

#: One of this many folds is the validation fold. With fewer than two people per fold, all patients are in both parts.
VALIDATION_FOLDS = 7
#: Validation patients whose loss is computed at once; bounds the memory.
_CHUNK = 16_384


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """Settings of ``train``.

    Attributes:
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.
        batch_size: Patients in a batch.
        patience: Training ends after as many epochs without a lower loss on the validation fold.
        max_epochs: The largest number of epochs.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    batch_size: int = 64
    patience: int = 10
    max_epochs: int = 100


@one_thread()
def train(
    network: nn.Module,
    loss: Callable[[torch.Tensor], torch.Tensor],
    labels: npt.NDArray[np.generic],
    settings: TrainingSettings,
    seed: int,
    generator: torch.Generator,
    persons: Sequence[str] | None = None,
) -> None:
    """Train a network in place; it gets the weights of the epoch with the lowest loss on the validation fold.

    Args:
        network: The network; its training mode is on while batches are learned, and off afterwards.
        loss: Returns the mean loss of the patients at the given indices, which are on the network's device.
        labels: The patients' labels, shape (N,), by which the validation fold is stratified.
        settings: The settings.
        seed: Draws the validation fold.
        generator: Draws the batches; a generator of the CPU.
        persons: The person of each patient, whose stays are all inside or all outside the validation fold; None = all
            are different.
    """
    device = next(network.parameters()).device
    held_out = torch.from_numpy(assign_folds(labels, VALIDATION_FOLDS, np.random.default_rng(seed), persons) == 0)
    everybody = torch.arange(len(labels))
    enough = (len(labels) if persons is None else len(set(persons))) >= 2 * VALIDATION_FOLDS
    learned, validation = (everybody[~held_out], everybody[held_out]) if enough else (everybody, everybody)
    validation = validation.to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    best_loss, best_epoch, best_weights = float("inf"), 0, network.state_dict()
    for epoch in range(settings.max_epochs):
        network.train()
        for batch in learned[torch.randperm(len(learned), generator=generator)].to(device).split(settings.batch_size):
            optimizer.zero_grad()
            loss(batch).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            parts = validation.split(_CHUNK)
            validation_loss = sum(loss(part).item() * (len(part) / len(validation)) for part in parts)
        if validation_loss < best_loss:
            best_loss, best_epoch, best_weights = validation_loss, epoch, copy.deepcopy(network.state_dict())
        if epoch - best_epoch >= settings.patience:
            break
    network.load_state_dict(best_weights)
