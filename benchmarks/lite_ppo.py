"""Effect of action masks on PMLMLite-v0: python -m benchmarks.lite_ppo --json FILE.

Compares PPO without masks (Stable-Baselines3) and with masks (sb3-contrib's MaskablePPO), with the same network,
settings and steps, on test patients, with random legal deletions and the best possible ones as references.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import tyro
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor
from tqdm import tqdm

from agents.evaluation.bootstrap import mean_interval
from agents.sb3 import MaskableWordActorCriticPolicy, PMLMVecEnv, WordActorCriticPolicy
from pmlm_env import PMLMLiteVectorEnv
from pmlm_env.envs.lite import LiteReward

_TASK: dict[str, Any] = {"max_words": 128}
_SETTINGS: dict[str, Any] = {
    "n_steps": 20,  # two episodes of each env
    "batch_size": 160,
    "n_epochs": 4,
    "gamma": 1.0,
    "gae_lambda": 0.9,
    "ent_coef": 0.0,
    # Lite's embeddings contain no positions; those of PMLM-v0 do.
    "policy_kwargs": {"features_extractor_kwargs": {"width": 32, "hidden": 64, "positions": True}},
}
_LEARNING_RATE = 3e-3  # initial value, decreasing linearly to 0

Act = Callable[[dict[str, Any]], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Options:
    """Options of the comparison.

    Attributes:
        json: Output file.
        seeds: Number of seeds, from 0.
        steps: Number of training steps of the env, ten per episode.
        threads: Number of torch threads.
    """

    json: Path | None = None
    seeds: int = 5
    steps: int = 32_000
    threads: int = 2


def test_return(act: Act) -> float:
    """Return the mean return over the 64 test patients.

    Args:
        act: Maps a batch of observations to slots, int, shape (64,).
    """
    env = PMLMLiteVectorEnv(64, split="test", autoreset_mode="Disabled", **_TASK)
    observation, _ = env.reset(seed=0, options={"episode": np.arange(64)})
    total = np.zeros(64)
    done = np.zeros(64, dtype=np.bool_)
    while not done.all():
        observation, rewards, terminated, truncated, _ = env.step(act(observation))
        total += rewards
        done = terminated | truncated
    return float(total.mean())


def train(masked: bool, seed: int, steps: int) -> tuple[Act, Act]:
    """Train on the training patients, and return the policy with sampled and with greedy actions."""
    env = VecMonitor(PMLMVecEnv(PMLMLiteVectorEnv(32, **_TASK)))
    if masked:
        model: Any = MaskablePPO(
            MaskableWordActorCriticPolicy, env, seed=seed, device="cpu", learning_rate=_linear_schedule, **_SETTINGS
        )
    else:
        model = PPO(WordActorCriticPolicy, env, seed=seed, device="cpu", learning_rate=_linear_schedule, **_SETTINGS)
    model.learn(steps)

    def act(observation: dict[str, Any], greedy: bool) -> npt.NDArray[np.int64]:
        masks = {"action_masks": observation["action_mask"] != 0} if masked else {}
        return np.asarray(model.predict(observation, deterministic=greedy, **masks)[0])

    return partial(act, greedy=False), partial(act, greedy=True)


def _linear_schedule(remaining: float) -> float:
    return _LEARNING_RATE * remaining


def random_play(seed: int) -> Act:
    """Delete random legal words."""
    rng = np.random.default_rng(seed)
    return lambda observation: (rng.random(observation["action_mask"].shape) * observation["action_mask"]).argmax(
        axis=1
    )


def main(options: Options) -> None:
    """Run all policies for every seed, print a table, and write the returns as JSON."""
    torch.set_num_threads(options.threads)
    names = ("random", "PPO", "MaskablePPO", "PPO, greedy", "MaskablePPO, greedy")
    returns: dict[str, list[float]] = {name: [] for name in names}
    for seed in tqdm(range(options.seeds), unit="seed"):
        returns["random"].append(test_return(random_play(seed)))
        for name, masked in (("PPO", False), ("MaskablePPO", True)):
            sampling, greedy = train(masked, seed, options.steps)
            returns[name].append(test_return(sampling))
            returns[f"{name}, greedy"].append(test_return(greedy))
    rng = np.random.default_rng(0)
    print(
        f"Mean return over 64 test patients, {options.seeds} seeds, {options.steps:,} steps, 95 % intervals over seeds"
    )
    for name, values in returns.items():
        print(f"{name:20} {mean_interval(values, rng)}   {' '.join(f'{value:+.3f}' for value in values)}")
    env = PMLMLiteVectorEnv(1, split="test")
    reward = env.task.reward
    assert isinstance(reward, LiteReward)
    print(f"{'best':20} {np.mean([reward.best(i, 10).delta for i in range(64)]):+.3f}   (exact)")
    if options.json is not None:
        record = {"steps": options.steps, "learning_rate": _LEARNING_RATE, "settings": _SETTINGS, "returns": returns}
        options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Options))
