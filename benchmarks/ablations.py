"""Ablations of the agents: python -m benchmarks.ablations --json FILE.

Each variant changes one setting of an agent. It is fitted on the same training patients with the same budget and
evaluated on validation patients, with several seeds. Test patients are not used.

By default on PMLMLite-v0, whose replies are exact; ``--noise`` adds normal noise to training rewards, one draw per
prompt, to imitate an LLM, whose cached reply is fixed but may change completely when a word is deleted. With
``--env real``, on a prepared folder with the LLM and BERTScore.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from tqdm import tqdm

from agents import registry
from agents.benchmark.config import check_identity
from agents.benchmark.patients import Patients, patients_of
from agents.cli.reading import CONSTRUCTORS
from agents.evaluation.aggregate import crossed_bootstrap
from agents.model_options import CallOptions, ModelOptions
from agents.registry import BenchmarkEnv
from agents.report.tables import in_points
from pmlm_env.core.outcomes import Outcomes, Reward
from pmlm_env.io.files import write_json

#: Variant -> agent and changed settings. Each is compared with the variant named before its comma or "and".
VARIANTS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "lexicon": ("lexicon", {}),
    "lexicon, step 1": ("lexicon", {"step": 1.0}),
    "lexicon, step 5": ("lexicon", {"step": 5.0}),
    "lexicon, penalty 1": ("lexicon", {"penalty": 1.0}),
    "lexicon, penalty 10": ("lexicon", {"penalty": 10.0}),
    "lexicon, no memory": ("lexicon", {"memory": 1}),
    "lexicon, 32 patients x 2": ("lexicon", {"patients": 32, "rollouts": 2}),
    "lexicon, 8 patients x 8": ("lexicon", {"patients": 8, "rollouts": 8}),
    "lexicon, no baseline": ("lexicon", {"baseline": "none"}),
    "lexicon, sparsemax": ("lexicon", {"distribution": "sparsemax"}),
    "lexicon and network": (
        "leave-one-out",
        {"lexicon": True, "patients": 16, "positions": True, "normalize": False},
    ),
    "network": ("leave-one-out", {}),
    "network, no baseline": ("leave-one-out", {"baseline": "none"}),
    "network, 16 patients x 2": ("leave-one-out", {"patients": 16, "rollouts": 2}),
    "network, 4 patients x 8": ("leave-one-out", {"patients": 4, "rollouts": 8}),
    "network, learning rate 1e-3": ("leave-one-out", {"learning_rate": 1e-3}),
    "network, learning rate 3e-3": ("leave-one-out", {"learning_rate": 3e-3}),
    "network, learning rate 1e-2": ("leave-one-out", {"learning_rate": 1e-2}),
    "network, one epoch": ("leave-one-out", {"epochs": 1}),
    "network, dropout .4": ("leave-one-out", {"dropout": 0.4}),
    "network, no entropy bonus": ("leave-one-out", {"entropy": 0.0}),
    "network, entropy bonus .05": ("leave-one-out", {"entropy": 0.05}),
    "network, no positions": ("leave-one-out", {"positions": False}),
    "network, no patient": ("leave-one-out", {"patient": False}),
    "network, bare advantages": ("leave-one-out", {"scale_advantages": False}),
    # One of these two equals "network": bare inputs on Lite, normalized inputs with an LLM.
    "network, normalized inputs": ("leave-one-out", {"normalize": True}),
    "network, bare inputs": ("leave-one-out", {"normalize": False}),
    "network, width 256": ("leave-one-out", {"hidden": 256}),
    "network, as published": ("reinforce", {}),
    "actor-critic": ("actor-critic", {}),
    "actor-critic, normalized inputs": ("actor-critic", {"normalize": True}),
    "q-dqn": ("q-dqn", {}),
    "q-dqn, normalized inputs": ("q-dqn", {"normalize": True}),
    "maskable-ppo": ("maskable-ppo", {}),
    "maskable-ppo, normalized inputs": ("maskable-ppo", {"normalize": True}),
    "maskable-ppo, learning rate 5e-3": ("maskable-ppo", {"learning_rate": 5e-3}),
    "maskable-ppo, learning rate 1e-2": ("maskable-ppo", {"learning_rate": 1e-2}),
    "a2c": ("a2c", {}),
    "a2c, normalized inputs": ("a2c", {"normalize": True}),
    "a2c, learning rate 5e-3": ("a2c", {"learning_rate": 5e-3}),
}


@dataclass(frozen=True)
class Options:
    """Options of the ablations.

    Attributes:
        json: File of each patient's deltas; fits that it contains are not repeated.
        variants: Names of variants; all by default. ``NAME*`` means all names that start with NAME.
        env: ``lite`` or ``real``.
        budget: Number of completions per fit.
        seeds: Number of seeds, from 0.
        noise: Standard deviation of normal noise added to training rewards.
        episodes: A folder written by ``pmlm prepare``, for ``real``.
        run: The folder for replies and spending, for ``real``.
        models: The models, for ``real``.
        calls: How the LLM is called, for ``real``.
        threads: Number of torch threads.
    """

    json: Path | None = None
    variants: tuple[str, ...] = ("*",)
    env: BenchmarkEnv = "lite"
    budget: int = 2_000
    seeds: int = 5
    noise: float = 0.0
    episodes: Path = Path("prepared")
    run: Path = Path("runs/ablations")
    models: ModelOptions = field(default_factory=ModelOptions)
    calls: CallOptions = field(default_factory=CallOptions)
    threads: int = 2


class NoisyReward:
    """A reward with normal noise added to the scores and to what edits earn."""

    def __init__(self, reward: Reward, sd: float, seed: int) -> None:
        """Seed the noise."""
        self._reward, self._sd, self._seed = reward, sd, seed

    def __call__(self, indices: Sequence[int], prompts: Sequence[str]) -> Outcomes:
        """Score the refined prompts and add noise, which is the same whenever a prompt is repeated."""
        outcomes = self._reward(indices, prompts)
        noise = self._sd * np.array(
            [self._noise(index, prompt) for index, prompt in zip(indices, prompts, strict=True)]
        )
        earned = None if outcomes.rewards is None else outcomes.rewards + noise
        return replace(outcomes, score=outcomes.score + noise, rewards=earned)

    def _noise(self, index: int, prompt: str) -> float:
        key = hashlib.sha256(json.dumps([self._seed, index, prompt]).encode()).digest()
        return float(np.random.default_rng(int.from_bytes(key[:16], "big")).standard_normal())


def deltas(patients: Patients, variant: str, options: Options, seed: int) -> list[float]:
    """Fit a variant and return each validation patient's delta."""
    name, settings = VARIANTS[variant]
    agent = registry.make(name, registry.settings_of(name, options.env, settings), seed)
    reward = patients.reward("train")
    if options.noise:
        reward = NoisyReward(reward, options.noise, seed + 1_000)
    return [round(float(delta), 6) for delta in patients.deltas(agent, options.budget, reward)]


def matching_variants(patterns: Sequence[str]) -> list[str]:
    """Return the variants that match the patterns.

    Raises:
        SystemExit: A pattern matches no variant.
    """
    names = []
    for pattern in patterns:
        found = [n for n in VARIANTS if n == pattern or (pattern.endswith("*") and n.startswith(pattern[:-1]))]
        if not found:
            raise SystemExit(f"unknown variant {pattern!r}: use one of {'; '.join(VARIANTS)}")
        names += found
    return names


def read_deltas(file: Path | None, about: Mapping[str, Any]) -> dict[str, list[list[float]]]:
    """Return the deltas in a file, by variant and seed.

    Raises:
        ValueError: The file was made with other options.
    """
    if file is None or not file.is_file():
        return {}
    content = json.loads(file.read_text(encoding="utf-8"))
    check_identity(file, content["about"], about)
    return content["deltas"]


def table(found: Mapping[str, list[list[float]]], n_seeds: int) -> str:
    """Return a Markdown table with each variant's delta and its difference to the default, in points.

    Intervals resample both seeds and patients.
    """
    rng = np.random.default_rng(0)
    lines = ["| variant | delta, points | minus the default's |", "|---|---|---|"]
    for name, runs in found.items():
        base, own = name.split(",")[0].split(" and ")[0], np.array(runs[:n_seeds])
        cells = [crossed_bootstrap(own, rng)]
        if base != name and len(found.get(base, [])) >= n_seeds:
            cells.append(crossed_bootstrap(own - np.array(found[base][:n_seeds]), rng))
        texts = [in_points(cell) for cell in cells]
        lines.append(f"| {name} | {' | '.join(texts)} |" + ("" if len(texts) == 2 else " |"))
    return "\n".join(lines)


def main(options: Options) -> None:
    """Run all variants and print a table."""
    torch.set_num_threads(options.threads)
    patients = patients_of(options.env, "validation", options.episodes, options.run, options.models, options.calls)
    about = {"env": options.env, "budget": options.budget, "noise": options.noise, **patients.identity}
    found = read_deltas(options.json, about)
    names = matching_variants(options.variants)
    with patients.working(), tqdm(total=options.seeds * len(names), unit="fit") as bar:
        for seed in range(options.seeds):
            for name in names:
                if len(found.setdefault(name, [])) <= seed:
                    found[name].append(deltas(patients, name, options, seed))
                    if options.json:
                        write_json(options.json, {"about": about, "deltas": found})
                bar.update()
    print(f"{options.seeds} seeds, {len(patients.held_out)} validation patients")
    print(table({name: found[name] for name in names}, options.seeds))


if __name__ == "__main__":
    with CONSTRUCTORS:
        parsed = tyro.cli(Options, config=(tyro.conf.OmitArgPrefixes,))
    main(parsed)
