"""The least time that a computation takes on a device: that of its arithmetic or of its memory traffic.

Only matrix products count as arithmetic, and only what must be read or written as traffic: weights once per forward
pass, keys and values, and embeddings that are given or returned. So no program can be faster than this limit (the
roofline model of Williams et al., Communications of the ACM, 2009), apart from the error of the measured rates.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from benchmarks.gpu_models import ModelSize


@dataclass(frozen=True)
class Rates:
    """What a device can do.

    Attributes:
        flops: Floating-point operations per second in a large matrix product, by number format.
        bandwidth: Bytes read and written per second in a large copy.
    """

    flops: dict[torch.dtype, float]
    bandwidth: float

    def limit(self, phases: Iterable[Phase]) -> tuple[float, str]:
        """Return the least time of some phases, one after another, in seconds; and what takes most of it."""
        seconds = {"arithmetic": 0.0, "memory": 0.0}
        for phase in phases:
            arithmetic, memory = phase.flops / self.flops[phase.dtype], phase.bytes / self.bandwidth
            seconds["arithmetic" if arithmetic > memory else "memory"] += max(arithmetic, memory)
        return sum(seconds.values()), max(seconds, key=seconds.__getitem__)


@dataclass(frozen=True)
class Phase:
    """A part of a computation in which arithmetic and memory traffic may overlap.

    Attributes:
        flops: Floating-point operations of its matrix products; a multiplication and an addition are two.
        bytes: Bytes that have to be read or written.
        dtype: Number format of the products.
    """

    flops: float
    bytes: float
    dtype: torch.dtype


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timings(call: Callable[[], object], device: torch.device, seconds: float, *, warm_up: bool = True) -> list[float]:
    """Time a call 2 to 15 times.

    Args:
        call: The call.
        device: The device that it uses.
        seconds: Stop when the timings add up to this.
        warm_up: Whether to call once before, without timing it.

    Returns:
        The duration of each call in seconds, until the device has done everything.
    """
    if warm_up:
        call()
    found: list[float] = []
    while len(found) < 2 or (sum(found) < seconds and len(found) < 15):
        synchronize(device)
        started = time.perf_counter()
        call()
        synchronize(device)
        found.append(time.perf_counter() - started)
    return found


def measure_rates(device: torch.device, side: int, copied: int) -> Rates:
    """Measure a device's rates.

    Args:
        device: The device.
        side: Rows and columns of the matrices.
        copied: Bytes to copy.
    """
    flops = {}
    for dtype in (torch.bfloat16, torch.float32):
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        out = torch.empty_like(a)
        call = lambda a=a, b=b, out=out: torch.mm(a, b, out=out)  # noqa: E731
        flops[dtype] = 2 * side**3 / statistics.median(timings(call, device, 1.0))
    source = torch.empty(copied, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    copying = timings(lambda: target.copy_(source), device, 1.0)
    return Rates(flops, 2 * copied / statistics.median(copying))


def encoding(size: ModelSize, lengths: list[int], dtype: torch.dtype, *, batches: int, output: int = 0) -> Phase:
    """Return the work of an encoder whose weights are float32, without its table of embeddings.

    Args:
        size: The encoder.
        lengths: Number of tokens of each text.
        dtype: Number format of the products.
        batches: Number of forward passes.
        output: Bytes of the result.
    """
    weights = size.layers * layer_weights(size)
    flops = sum(2 * weights * n + 4 * size.layers * size.hidden * n**2 for n in lengths)
    return Phase(flops, 4 * weights * batches + output, dtype)


def layer_weights(size: ModelSize) -> int:
    """Return the number of weights in the matrices of a layer."""
    return sum(inputs * outputs for inputs, outputs in size.linear_shapes)


def read_weights(size: ModelSize) -> int:
    """Return the number of weights in the matrices of an LLM, with the head, which is also its table of embeddings."""
    return size.layers * layer_weights(size) + size.hidden * size.vocabulary


def causal_pass(size: ModelSize, n: int, logits: int) -> int:
    """Return the operations of a forward pass over n tokens.

    Args:
        size: The LLM.
        n: Number of tokens; each attends to itself and to the ones before it.
        logits: For how many of them logits are computed.
    """
    attention = 4 * size.hidden * size.layers * n * (n + 1) // 2
    return 2 * size.layers * layer_weights(size) * n + attention + 2 * size.hidden * size.vocabulary * logits


def decoding(size: ModelSize, rows: int, prompt: int, new: int, dtype: torch.dtype) -> list[Phase]:
    """Return the work of a batch of replies: the prompts, which give the first new tokens, then a phase per token.

    Args:
        size: The LLM.
        rows: Number of prompts.
        prompt: Tokens of each prompt.
        new: Tokens of each reply.
        dtype: Number format.
    """
    weights = read_weights(size)
    kept = 2 * size.layers * size.kv_hidden  # keys and values of a token
    phases = [Phase(rows * causal_pass(size, prompt, 1), dtype.itemsize * (weights + rows * kept * prompt), dtype)]
    for n in range(prompt + 1, prompt + new):
        flops = rows * (2 * weights + 4 * size.hidden * size.layers * n)
        phases.append(Phase(flops, dtype.itemsize * (weights + rows * kept * n), dtype))
    return phases


def lora_pass(size: ModelSize, n: int, logits: int, rank: int) -> int:
    """Return the operations of a forward and a backward pass over n tokens; frozen weights take no gradient.

    Args:
        size: The LLM.
        n: Number of tokens.
        logits: For how many of them logits are computed.
        rank: Rank of the adapters, one in each linear layer.
    """
    weights, adapters = layer_weights(size), rank * sum(map(sum, size.linear_shapes))
    forward = causal_pass(size, n, logits)
    attention = forward - 2 * size.layers * weights * n - 2 * size.hidden * size.vocabulary * logits
    unneeded = (
        2 * n * sum(inputs * outputs for inputs, outputs in size.linear_shapes[:3])
    )  # gradients of the embeddings
    # Each product has one gradient in a frozen layer, and two in an adapter and between queries, keys and values.
    return 2 * forward + attention + 6 * size.layers * adapters * n - unneeded


def policy_update(
    rows: int, words: int, embedding: int, hidden: int, steps: int, epochs: int, dtype: torch.dtype
) -> Phase:
    """Return the work of an update of the policy: its episodes, then forward and backward passes over all their steps.

    Args:
        rows: Episodes.
        words: Words per prompt.
        embedding: Length of a word's embedding, which takes no gradient.
        hidden: Width of the two hidden layers.
        steps: Steps per episode.
        epochs: Gradient steps.
        dtype: Number format.
    """
    seen, first, rest = rows * words * steps, embedding * hidden, hidden * hidden + hidden
    flops = 2 * seen * ((1 + epochs) * (first + rest) + epochs * (first + 2 * rest))
    return Phase(flops, (1 + 2 * epochs) * seen * embedding * dtype.itemsize, dtype)
