"""The networks, against plain loops and matrix products in NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pmlm_env.predictors.series.cnn import CnnNetwork
from pmlm_env.predictors.series.lstm import LstmNetwork
from pmlm_env.predictors.series.network import SeriesNetwork
from pmlm_env.predictors.series.transformer import HEADS, LAYERS, TransformerNetwork

N_CHANNELS, N_LABELS, N_STEPS = 5, 3, 9
LENGTHS = (1, 4, 8, 9)

Floats = npt.NDArray[np.float64]
Weights = dict[str, Floats]


def sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


def linear(x: Floats, w: Weights, name: str) -> Floats:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def layer_norm(x: Floats, w: Weights, name: str) -> Floats:
    centered = x - x.mean(axis=-1, keepdims=True)
    return (
        centered / np.sqrt((centered**2).mean(axis=-1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]
    )


def lstm(steps: Floats, w: Weights) -> Floats:
    """Score one history; gates in torch's order: input, forget, cell, output."""
    hidden = cell = np.zeros(w["lstm.weight_hh_l0"].shape[1])
    bias = w["lstm.bias_ih_l0"] + w["lstm.bias_hh_l0"]
    for x in steps:
        gates = w["lstm.weight_ih_l0"] @ x + w["lstm.weight_hh_l0"] @ hidden + bias
        enter, forget, new, show = np.split(gates, 4)
        cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(new)
        hidden = sigmoid(show) * np.tanh(cell)
    return linear(hidden, w, "head")


def cnn(steps: Floats, w: Weights) -> Floats:
    hidden = steps
    for i in range(3):
        kernel, bias = w[f"convolutions.{i}.weight"], w[f"convolutions.{i}.bias"]
        half = kernel.shape[2] // 2
        out = np.tile(bias, (len(hidden), 1))
        for t in range(len(hidden)):
            for k in range(kernel.shape[2]):
                if 0 <= t + k - half < len(hidden):
                    out[t] += kernel[:, :, k] @ hidden[t + k - half]
        hidden = np.maximum(layer_norm(out, w, f"norms.{i}"), 0)
    return linear(hidden.mean(axis=0), w, "head")


def transformer(steps: Floats, w: Weights) -> Floats:
    size = w["embedding.bias"].size
    hidden = linear(steps, w, "embedding")
    for t in range(len(steps)):
        for i in range(size // 2):
            angle = t / 10_000 ** (2 * i / size)
            hidden[t, 2 * i : 2 * i + 2] += np.sin(angle), np.cos(angle)
    for number in range(LAYERS):
        layer = f"encoder.layers.{number}"
        normal = layer_norm(hidden, w, f"{layer}.norm1")
        rows = normal @ w[f"{layer}.self_attn.in_proj_weight"].T + w[f"{layer}.self_attn.in_proj_bias"]
        mixed = []
        for query, key, value in zip(
            *(np.split(part, HEADS, axis=1) for part in np.split(rows, 3, axis=1)), strict=True
        ):
            similar = np.exp(query @ key.T / np.sqrt(size / HEADS))
            mixed.append(similar / similar.sum(axis=1, keepdims=True) @ value)
        hidden = hidden + linear(np.concatenate(mixed, axis=1), w, f"{layer}.self_attn.out_proj")
        normal = layer_norm(hidden, w, f"{layer}.norm2")
        hidden = hidden + linear(np.maximum(linear(normal, w, f"{layer}.linear1"), 0), w, f"{layer}.linear2")
    return linear(layer_norm(hidden, w, "encoder.norm").mean(axis=0), w, "head")


REFERENCES = ((LstmNetwork, lstm), (CnnNetwork, cnn), (TransformerNetwork, transformer))


def made(kind: type[SeriesNetwork]) -> SeriesNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = kind(N_CHANNELS, N_LABELS)  # type: ignore[call-arg]
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in network.parameters():  # normalizations would begin with ones and zeros
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return network.eval()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(len(LENGTHS), N_STEPS, N_CHANNELS, generator=generator), torch.tensor(LENGTHS)


@pytest.mark.parametrize("mode", ["training", "prediction"])
@pytest.mark.parametrize(("kind", "reference"), REFERENCES)
def test_a_batch_is_scored_as_the_reference_scores_each_history_by_itself(kind, reference, mode) -> None:
    network, (inputs, lengths) = made(kind), batch()
    weights = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
    with torch.inference_mode(mode == "prediction"):  # torch has another implementation of attention for prediction
        scores = network(inputs, lengths).detach().numpy()
    expected = [reference(x[:n].double().numpy(), weights) for x, n in zip(inputs, LENGTHS, strict=True)]
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind, _ in REFERENCES])
def test_what_follows_the_steps_that_are_read_has_no_effect(kind) -> None:
    network, (inputs, lengths) = made(kind), batch()
    longer = torch.cat([inputs, torch.full((len(LENGTHS), 6, N_CHANNELS), 7.0)], dim=1)
    with torch.inference_mode():
        torch.testing.assert_close(network(longer, lengths), network(inputs, lengths), atol=1e-5, rtol=0)
