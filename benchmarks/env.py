"""Speed of the env: python -m benchmarks.env --json FILE.

Because the speed of a shared machine varies severalfold, most results are ratios of two timings that alternate in one
process. Each result has a median, minimum and maximum over its repeats.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
import tyro
from gymnasium.vector import AutoresetMode

import pmlm_env  # noqa: F401  (registers the specs)
from benchmarks.buffers import index_buffer_mib
from benchmarks.models import bertscore_speedup, encoder_dedup, encoder_overhead

_ENVS, _SLOTS = 64, 128


@dataclass(frozen=True)
class Options:
    """Options of the measurement.

    Attributes:
        json: Output file.
        repeats: Number of repeats.
        threads: Number of torch threads.
    """

    json: Path | None = None
    repeats: int = 15
    threads: int = 2


def lite_speedup(observation: Literal["embeddings", "index"], repeats: int = 15) -> list[float]:
    """Compare the native vector env with ``SyncVectorEnv`` of scalar envs, on ``PMLMLite-v0``.

    Both take the same legal actions in whole episodes of ten steps, including resets, with ``SAME_STEP``.

    Args:
        observation: The form of observations.
        repeats: Number of timed rounds of 64 episodes.

    Returns:
        For each round, the time of ``SyncVectorEnv`` divided by that of the native env.
    """
    options: dict[str, Any] = {"num_envs": _ENVS, "max_words": _SLOTS, "observation": observation}
    same_step = {"autoreset_mode": AutoresetMode.SAME_STEP}
    sync = gym.make_vec("PMLMLite-v0", vectorization_mode="sync", vector_kwargs=same_step, **options)
    native = gym.make_vec("PMLMLite-v0", **options)
    rng = np.random.default_rng(0)
    mask = [env.reset(seed=0)[0]["action_mask"] for env in (sync, native)][-1]
    ratios = []
    for i in range(repeats + 20):
        sync_time, native_time = 0.0, 0.0
        for _ in range(10):
            actions = _random_actions(mask, rng)
            started = time.perf_counter()
            sync.step(actions)
            middle = time.perf_counter()
            observations, *_ = native.step(actions)
            native_time += time.perf_counter() - middle
            sync_time += middle - started
            mask = observations["action_mask"]
        if i >= 20:  # by then, every prompt is cached
            ratios.append(sync_time / native_time)
    return ratios


def native_steps_per_second(observation: Literal["embeddings", "index"], repeats: int = 15) -> list[float]:
    """Return the env steps per second of the native vector env with 64 envs of ``PMLMLite-v0``, including resets."""
    env = gym.make_vec("PMLMLite-v0", num_envs=_ENVS, max_words=_SLOTS, observation=observation)
    rng = np.random.default_rng(0)
    mask = env.reset(seed=0)[0]["action_mask"]
    rates = []
    for i in range(repeats + 20):
        seconds = 0.0
        for _ in range(10):
            actions = _random_actions(mask, rng)
            started = time.perf_counter()
            observations, *_ = env.step(actions)
            seconds += time.perf_counter() - started
            mask = observations["action_mask"]
        if i >= 20:
            rates.append(10 * _ENVS / seconds)
    return rates


def _random_actions(mask: npt.NDArray[np.int8], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    return np.asarray((rng.random(mask.shape) * mask).argmax(axis=1))


def main(options: Options) -> None:
    """Measure everything, print a table, and write it as JSON."""
    torch.set_num_threads(options.threads)
    n = options.repeats
    bertscore, difference = bertscore_speedup(n)
    figures = {
        "lite_embeddings_speedup": lite_speedup("embeddings", n),
        "lite_index_speedup": lite_speedup("index", n),
        "encoder_overhead": encoder_overhead(n),
        "bertscore_speedup": bertscore,
        "index_buffer_mib": [index_buffer_mib() for _ in range(3)],
        "encoder_dedup_speedup": encoder_dedup(n),
        "lite_embeddings_steps_per_second": native_steps_per_second("embeddings", n),
        "lite_index_steps_per_second": native_steps_per_second("index", n),
    }
    table = {
        name: {"median": statistics.median(values), "min": min(values), "max": max(values)}
        for name, values in figures.items()
    }
    print(f"{'':34}{'median':>12}{'min':>12}{'max':>12}")
    for name, row in table.items():
        print(f"{name:34}" + "".join(f"{row[key]:12,.2f}" for key in ("median", "min", "max")))
    print(f"Largest difference of BERTScore's P, R or F1 from bert-score's: {difference:.1e}")
    if options.json is not None:
        table["bertscore_difference"] = {"median": difference, "min": difference, "max": difference}
        options.json.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Options))
