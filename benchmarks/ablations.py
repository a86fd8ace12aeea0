"""What limits learning: python -m benchmarks.ablations --json FILE.

One setting of an agent at a time is changed; each variant is fitted within the same budget on the same training
patients and judged on validation patients, several seeds each. Test patients have no part in it.

On PMLMLite-v0 by default, whose replies are exact; ``--noise`` adds normal noise to training rewards, for an LLM's
replies jump when a word goes. With ``--env real`` on a prepared folder, with the LLM and BERTScore.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from tqdm import tqdm

from agents.catalogue import BenchmarkEnv
from agents.evaluation.bootstrap import paired_bootstrap
from agents.ground import Ground, ground
from agents.settings import made
from agents.workbench import CallOptions, ModelOptions
from pmlm_env.reward import Outcomes, Reward

#: Agent, and what is changed of it, by the variant's name.
VARIANTS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "lexicon": ("lexicon", {}),
    "lexicon, step 1": ("lexicon", {"learner.words.step": 1.0}),
    "lexicon, step 5": ("lexicon", {"learner.words.step": 5.0}),
    "lexicon, penalty 1": ("lexicon", {"learner.words.penalty": 1.0}),
    "lexicon, penalty 10": ("lexicon", {"learner.words.penalty": 10.0}),
    "lexicon, no memory": ("lexicon", {"learner.words.memory": 1}),
    "lexicon, 32 patients x 2": ("lexicon", {"learner.patients": 32, "learner.rollouts": 2}),
    "lexicon, 8 patients x 8": ("lexicon", {"learner.patients": 8, "learner.rollouts": 8}),
    "lexicon, no baseline": ("lexicon", {"learner.baseline": "none"}),
    "lexicon, sparsemax": ("lexicon", {"distribution": "sparsemax"}),
    "lexicon and network": ("lexicon", {"hidden": 64}),
    "network": ("leave-one-out", {}),
    "network, no baseline": ("leave-one-out", {"learner.baseline": "none"}),
    "network, 16 patients x 2": ("leave-one-out", {"learner.patients": 16, "learner.rollouts": 2}),
    "network, 4 patients x 8": ("leave-one-out", {"learner.patients": 4, "learner.rollouts": 8}),
    "network, learning rate 3e-4": ("leave-one-out", {"learner.learning_rate": 3e-4}),
    "network, learning rate 3e-3": ("leave-one-out", {"learner.learning_rate": 3e-3}),
    "network, one epoch": ("leave-one-out", {"learner.epochs": 1}),
    "network, dropout .4": ("leave-one-out", {"dropout": 0.4}),
    "network, no entropy bonus": ("leave-one-out", {"learner.entropy": 0.0}),
    "network, entropy bonus .05": ("leave-one-out", {"learner.entropy": 0.05}),
    "network, no patient": ("leave-one-out", {"patient": False}),
    "network, bare advantages": ("leave-one-out", {"learner.scale_advantages": False}),
    "network, bare inputs": ("leave-one-out", {"normalize": False}),
    "network, width 64": ("leave-one-out", {"hidden": 64}),
    "network, as published": ("reinforce", {}),
}


@dataclass(frozen=True)
class Options:
    """What to run.

    Attributes:
        json: Where to write the mean deltas.
        variants: Names; all by default. A name that ends in ``*`` stands for all that begin so.
        env: ``lite`` or ``real``.
        budget: Completions for each fit.
        seeds: How many seeds, from 0.
        noise: Standard deviation of normal noise added to training rewards.
        episodes: With ``real``, a folder that ``pmlm prepare`` wrote.
        run: With ``real``, the folder for replies and spending.
        models: With ``real``.
        calls: With ``real``.
        threads: Threads of torch.
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
    """A reward whose scores have normal noise."""

    def __init__(self, reward: Reward, sd: float, seed: int) -> None:
        """Seed the noise."""
        self._reward, self._sd, self._rng = reward, sd, np.random.default_rng(seed)

    def __call__(self, indices: Sequence[int], prompts: Sequence[str]) -> Outcomes:
        """Judge, and add noise to the refined prompts' scores."""
        outcomes = self._reward(indices, prompts)
        return replace(outcomes, score=outcomes.score + self._sd * self._rng.standard_normal(len(outcomes.score)))


def delta(place: Ground, variant: str, options: Options, seed: int) -> float:
    """Fit a variant and return its mean delta on validation patients."""
    name, settings = VARIANTS[variant]
    agent = made(name, options.env, seed, settings)
    reward = place.reward("train")
    if options.noise:
        reward = NoisyReward(reward, options.noise, seed + 1_000)
    return place.delta(agent, options.budget, reward)


def chosen(patterns: Sequence[str]) -> list[str]:
    """Return the variants that are meant.

    Raises:
        SystemExit: There is none of that name.
    """
    names = []
    for pattern in patterns:
        found = [n for n in VARIANTS if n == pattern or (pattern.endswith("*") and n.startswith(pattern[:-1]))]
        if not found:
            raise SystemExit(f"there is no variant {pattern!r}: use some of {'; '.join(VARIANTS)}")
        names += found
    return names


def main(options: Options) -> None:
    """Run all variants, print a table, write the mean deltas."""
    torch.set_num_threads(options.threads)
    place = ground(options.env, "validation", options.episodes, options.run, options.models, options.calls)
    kept = json.loads(options.json.read_text()) if options.json and options.json.is_file() else {}
    found: dict[str, list[float]] = kept.get("deltas", {})
    names = chosen(options.variants)
    for seed in tqdm(range(options.seeds), unit="seed"):
        for name in names:
            if len(found.setdefault(name, [])) <= seed:
                found[name].append(round(delta(place, name, options, seed), 5))
                place.close()
        if options.json:
            about = {"env": options.env, "budget": options.budget, "noise": options.noise}
            options.json.write_text(json.dumps({**about, "deltas": found}, indent=1) + "\n")
    print(f"| variant | mean delta, {options.seeds} seeds | 95 % |\n|---|---|---|")
    for name in names:
        mean = paired_bootstrap(np.array(found[name]), np.random.default_rng(0))
        print(f"| {name} | {100 * mean.mean:+.2f} | [{100 * mean.low:+.2f}, {100 * mean.high:+.2f}] |")


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.OmitArgPrefixes,)))
