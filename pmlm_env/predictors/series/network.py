"""Neural networks of check-ups: training, predicting, saving."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save
from torch import nn
from torch.nn import functional

from pmlm_env.device import one_thread, seeded
from pmlm_env.io.files import write
from pmlm_env.predictors.series.histories import WEIGHTS_FILE, Histories, SeriesModel
from pmlm_env.predictors.training import TrainingSettings, train

SETTINGS = TrainingSettings(learning_rate=1e-3, weight_decay=0.01, batch_size=64, patience=10, max_epochs=100)


class SeriesNetwork(nn.Module):
    """A network that reads histories."""

    @abstractmethod
    def forward(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return a score of each label, shape (B, n_labels).

        Args:
            inputs: Shape (B, T, C).
            lengths: How many of the T steps to read, at least 1, shape (B,). What follows has no effect.
        """


class NetworkModel(SeriesModel):
    """A neural network, trained by the cross-entropy of the labels (``train``) on one CPU thread."""

    _network: SeriesNetwork

    @abstractmethod
    def _make_network(self, n_channels: int, n_labels: int) -> SeriesNetwork:
        """Return a network with initial weights from torch's global generator, which the caller has seeded."""

    @one_thread()
    def _fit_series(self, histories: Histories, codes: npt.NDArray[np.intp], persons: Sequence[str]) -> None:
        inputs, lengths = torch.from_numpy(histories.channels), torch.from_numpy(histories.lengths)
        targets = torch.from_numpy(codes)
        with seeded(self.seed):  # torch draws initial weights and dropout from the global generator
            network = self._make_network(self._n_channels, len(self._labels))
            train(
                network,
                lambda batch: functional.cross_entropy(network(inputs[batch], lengths[batch]), targets[batch]),
                codes,
                SETTINGS,
                self.seed,
                torch.default_generator,
                persons,
            )
        self._network = _for_prediction(network)

    def _scores_of(self, histories: Histories) -> npt.NDArray[np.float64]:
        with one_thread(), torch.inference_mode():
            inputs = torch.from_numpy(histories.channels).double()
            return self._network(inputs, torch.from_numpy(histories.lengths)).numpy()

    def _save(self, folder: Path) -> None:
        assert self._scaler is not None
        tensors = {name: tensor.float().contiguous() for name, tensor in self._network.state_dict().items()}
        tensors |= {name: torch.from_numpy(array) for name, array in self._scaler.arrays().items()}
        write(folder / WEIGHTS_FILE, save(tensors))

    def _load(self, folder: Path) -> None:
        with seeded(self.seed):
            network = self._make_network(self._n_channels, len(self._labels))
        tensors = self._read_tensors(folder, {name: tensor.shape for name, tensor in network.state_dict().items()})
        network.load_state_dict(tensors)
        self._network = _for_prediction(network)


def _for_prediction(network: SeriesNetwork) -> SeriesNetwork:
    return network.eval().requires_grad_(False).double()
