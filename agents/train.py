"""Train a policy: ``pmlm train``, or ``python -m agents.train``."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from agents.checkpoint import load_checkpoint, save_checkpoint
from agents.reinforce import Reinforce, ReinforceConfig, Update
from agents.run_folder import RunFolder
from agents.workbench import ModelOptions, Workbench
from pmlm_env.episodes import EpisodeSet

logger = logging.getLogger(__name__)

Preset = Literal["default", "paper"]


@dataclass(frozen=True)
class TrainConfig:
    """Train a policy on the training patients of a prepared folder.

    Attributes:
        episodes: A folder that ``pmlm prepare`` wrote.
        run: The run folder to write.
        preset: Where the defaults of the other options come from: ``default`` (leave-one-out groups), or ``paper``
            (Eq. 11: no baseline, the whole training set in each update, learning rate .005, dropout .4).
        models: The models of the run.
        learner: How the policy learns.
        hidden: Width of the policy's layers.
        dropout: After each hidden layer.
        normalize: Whether the policy normalises its inputs; the paper says nothing of it.
        seed: Draws weights, patients and actions.
        resume: Go on from the last complete update of ``run``.
    """

    episodes: Path = Path("prepared")
    run: Path = Path("runs/train")
    preset: Preset = "default"
    models: ModelOptions = field(default_factory=ModelOptions)
    learner: ReinforceConfig = field(default_factory=ReinforceConfig)
    hidden: int = 256
    dropout: float = 0.0
    normalize: bool = True
    seed: int = 0
    resume: bool = False


#: The paper's settings; where it is silent (how many epochs), a number.
PRESETS: Mapping[Preset, TrainConfig] = {
    "default": TrainConfig(),
    "paper": TrainConfig(
        preset="paper",
        learner=ReinforceConfig(
            updates=100,
            patients=None,
            rollouts=1,
            baseline="none",
            learning_rate=5e-3,
            entropy=0.0,
            clip_norm=float("inf"),
            epochs=1,
            scale_advantages=False,
        ),
        dropout=0.4,
        normalize=False,
    ),
}


def train(config: TrainConfig, bench: Workbench | None = None) -> RunFolder:
    """Train, and leave a run folder with metrics, TensorBoard events and a checkpoint after every update.

    Args:
        config: Settings.
        bench: The models, where the caller has them already.

    Raises:
        ValueError: The settings do not fit together, or there is nothing to resume.
        BudgetExceededError: ``models.max_llm_calls`` is used up; the last complete update is saved.
    """
    episodes = EpisodeSet.load(config.episodes).of("train")
    bench = bench or Workbench(config.models)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        policy = bench.policy(episodes, config.hidden, config.dropout, config.normalize)
    rows = (config.learner.patients or len(episodes)) * config.learner.rollouts
    env = bench.env(rows, episodes, bench.reward(episodes))
    trainer = Reinforce(policy, env, config.learner, config.seed)
    run = RunFolder(config.run)
    run.start(config, resume=config.resume)
    done, spent = 0, 0
    if config.resume:
        progress = load_checkpoint(run.checkpoint, trainer)
        done, spent = progress["updates"], progress["llm_calls"]
        bench.budget.usage.calls += spent
        run.keep_metrics(done)
        logger.info("Going on after update %d of %d", done, config.learner.updates)
    _learn(trainer, bench, run, done)
    return run


def _learn(trainer: Reinforce, bench: Workbench, run: RunFolder, done: int) -> None:
    """Take the updates that are left, each logged and saved."""
    from torch.utils.tensorboard import SummaryWriter  # slow to import

    total = trainer.config.updates
    started, before = time.perf_counter(), bench.seconds
    writer = SummaryWriter(str(run.path), purge_step=done)
    bar = tqdm(total=total, initial=done, desc="training", unit="update", dynamic_ncols=True)
    for number in range(done, total):
        update = trainer.update()
        elapsed = time.perf_counter() - started
        shares = {name: (after - before[name]) / elapsed for name, after in bench.seconds.items()}
        line = _line(number + 1, update, bench.budget.usage.calls, elapsed, shares)
        run.append_metrics(line)
        for key, value in line.items():
            if isinstance(value, int | float) and key != "update":
                writer.add_scalar(f"train/{key}", value, number + 1)
        save_checkpoint(run.checkpoint, trainer, {"updates": number + 1, "llm_calls": bench.budget.usage.calls})
        bar.set_postfix(calls=line["llm_calls"], delta=f"{line['delta']:+.4f}", failed=update.failed)
        bar.update()
    bar.close()
    writer.close()


def _line(number: int, update: Update, calls: int, elapsed: float, shares: dict[str, float]) -> dict[str, Any]:
    """One line of ``metrics.jsonl``.

    ``delta``: mean change of F1 of this update's sampled rollouts; ``deltas``: each of them; ``failed``: episodes
    without a reply, left out; ``share_*``: part of the wall time so far inside each model's forward passes.
    """
    deltas = update.deltas
    return {
        "update": number,
        "delta": float(deltas.mean()) if len(deltas) else 0.0,
        "delta_sd": float(deltas.std()) if len(deltas) else 0.0,
        "failed": update.failed,
        "loss": update.loss,
        "entropy": update.entropy,
        "grad_norm": update.grad_norm,
        "invalid_actions": update.invalid_actions,
        "llm_calls": calls,
        "seconds": elapsed,
        **{f"share_{name}": share for name, share in shares.items()},
        "share_models": sum(shares.values()),
        "deltas": [float(value) for value in deltas],
    }


def quarters(metrics: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the sampled deltas of the first and of the last quarter of the updates."""
    quarter = max(1, len(metrics) // 4)
    first, last = metrics[:quarter], metrics[-quarter:]
    return tuple(np.array([d for line in part for d in line["deltas"]]) for part in (first, last))  # type: ignore[return-value]


def training_summary(metrics: list[dict[str, Any]]) -> str:
    """Return what training brought and where its time went, in two lines."""
    first, last = quarters(metrics)
    gain = last.mean() - first.mean()
    # Welch's interval: the rollouts of the two quarters are different ones.
    half = 1.96 * float(np.sqrt(first.var(ddof=1) / len(first) + last.var(ddof=1) / len(last)))
    end = metrics[-1]
    return (
        f"Sampled deltas of F1 on training patients: first quarter {100 * first.mean():+.2f} points, last quarter "
        f"{100 * last.mean():+.2f}, gain {100 * gain:+.2f} [{100 * (gain - half):+.2f}, {100 * (gain + half):+.2f}]\n"
        f"Wall time in the LLM {end['share_llm']:.0%}, encoder {end['share_encoder']:.0%}, "
        f"BERTScore {end['share_scorer']:.0%}, everything else {1 - end['share_models']:.0%}"
    )


if __name__ == "__main__":
    from agents.cli import main

    main("train")
