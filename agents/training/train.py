"""Train a policy: ``pmlm train``, or ``python -m agents.train``."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from agents.evaluation.bootstrap import FEWEST
from agents.models import CallOptions, ModelOptions, Workbench
from agents.options import from_plain, refuse_idle
from agents.policy_gradient.reinforce import Reinforce, ReinforceConfig, Update
from agents.run_folder import RunFolder
from agents.training.checkpoint import load_checkpoint, save_checkpoint
from agents.training.events import EventFile
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.device import seeded
from pmlm_env.rewards.delta import DeltaReward

logger = logging.getLogger(__name__)

Preset = Literal["default", "network", "paper"]


@dataclass(frozen=True)
class TrainConfig:
    """Train a policy on the training patients of a prepared folder.

    Attributes:
        episodes: A folder that ``pmlm prepare`` wrote.
        run: The run folder to write.
        preset: Where the defaults of the other options come from: ``default`` (a weight for each word of the template,
            by natural gradient), ``network`` (the paper's network on embeddings and patient, leave-one-out groups), or
            ``paper`` (the network by Eq. 11: no baseline, the whole training set in each update, learning rate .005,
            dropout .4).
        models: The models of the run.
        calls: How the LLM is asked, and what may be spent.
        learner: How the policy learns.
        hidden: Width of the network's layers; 0 = no network.
        dropout: After each hidden layer.
        normalize: Whether the policy normalises its inputs; the paper says nothing of it.
        lexicon: Whether each word that three or more training prompts have gets a weight; see ``WordPolicy``.
        seed: Draws weights, patients and actions.
        resume: Go on from the last complete update of ``run``, which knows its settings; limits, ``concurrency``,
            ``max_failures``, ``device``, ``providers``, and ``updates``, if there are to be more, may be others now.
        dry_run: Say what the run would cost at most, and do nothing.
    """

    episodes: Path = Path("prepared")
    run: Path = Path("runs/train")
    preset: Preset = "default"
    models: ModelOptions = field(default_factory=ModelOptions)
    calls: CallOptions = field(default_factory=CallOptions)
    learner: ReinforceConfig = field(default_factory=lambda: ReinforceConfig(updates=30, patients=16))
    hidden: int = 0
    dropout: float = 0.0
    normalize: bool = True
    lexicon: bool = True
    seed: int = 0
    resume: bool = False
    dry_run: bool = False


#: The paper's settings; where it is silent (how many epochs), a number.
PRESETS: Mapping[Preset, TrainConfig] = {
    "default": TrainConfig(),
    "network": TrainConfig(
        preset="network", learner=ReinforceConfig(updates=60, learning_rate=5e-3), hidden=64, lexicon=False
    ),
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
        hidden=256,
        dropout=0.4,
        normalize=False,
        lexicon=False,
    ),
}


def trained(run: RunFolder) -> TrainConfig:
    """Return the settings that a run was begun, or gone on, with.

    Raises:
        ValueError: The folder holds no run, or its ``config.json`` is damaged or of another version.
    """
    settings = {name: value for name, value in run.settings().items() if name not in ("llm_identity", "run")}
    return from_plain(TrainConfig, {**settings, "run": str(run.path), "resume": False}, run.path / "config.json")


def check_effects(config: TrainConfig) -> None:
    """See that every setting that is not the preset's has an effect.

    Raises:
        ValueError: One has none.
    """
    network, learner = config.hidden > 0, config.learner
    needs_network = ("entropy", "clip_norm", "clip_ratio", "scale_advantages")
    idle: dict[str, str] = {}
    if not network:
        what = "only a network has it, and this policy has none: leave it out, or give --hidden N or --preset network"
        idle |= dict.fromkeys(("dropout", "normalize", *(f"learner.{name}" for name in needs_network)), what)
        if learner.baseline != "critic":
            idle |= dict.fromkeys(("learner.learning_rate", "learner.epochs"), what)
    elif learner.epochs == 1:
        idle["learner.clip_ratio"] = "it holds from the second epoch on: leave it out, or give --epochs 2 or more"
    if not config.lexicon:
        words = (f"learner.words.{field.name}" for field in fields(learner.words))
        idle |= dict.fromkeys(words, "only a lexicon has it, and this policy has none: leave it out, or give --lexicon")
    refuse_idle(config, PRESETS[config.preset], idle)


def train(config: TrainConfig, bench: Workbench | None = None) -> RunFolder:
    """Train, and leave a run folder with metrics, TensorBoard events and a checkpoint after every update.

    Args:
        config: Settings.
        bench: The models, where the caller has them already.

    Raises:
        ValueError: The settings do not fit together, there is nothing to resume, or not with these settings or
            episodes, or another command uses the folder.
        BudgetExceededError: A limit is reached; the last complete update and all replies are saved.
        TooManyFailuresError: Too many episodes in a row got no reply; likewise.
        OSError, DatabaseError: A file cannot be written, as on a full disk; likewise.
    """
    if not config.resume:
        check_effects(config)
    elif not config.episodes.is_dir():
        raise ValueError(f"{config.episodes} is not there: give the new place of these episodes with --episodes")
    everybody = EpisodeSet.load(config.episodes)
    run = RunFolder(config.run)
    with run.locked():
        return _train(config, everybody, run, bench)


def _train(config: TrainConfig, everybody: EpisodeSet, run: RunFolder, bench: Workbench | None) -> RunFolder:
    """Train in a folder that is this process's own."""
    episodes = everybody.of("train")
    bench = bench or Workbench(config.models, config.calls, run)
    if config.resume:
        run.go_on(config, bench.llm.identity, everybody.digest)
        bench.check_kept()
    else:
        run.check_new()
        bench.budget.check_writable()  # from here on the record of spending is there, and its loss is noticed
        run.start(config, bench.llm.identity, everybody.digest)
    with seeded(config.seed):
        policy = bench.policy(episodes, config.hidden, config.dropout, config.normalize, config.lexicon)
    rows = (config.learner.patients or len(episodes)) * config.learner.rollouts
    reward = bench.reward(episodes)
    trainer = Reinforce(policy, bench.env(rows, episodes, reward, policy), config.learner, config.seed)
    done = 0
    if config.resume:
        if run.has_checkpoint:
            done = run.updates()
            reward.initial = load_checkpoint(run.whole_checkpoint(), trainer)
        run.keep_metrics(done)
        logger.info("Going on after update %d of %d", done, config.learner.updates)
    with bench.booking():
        _learn(trainer, bench, reward, run, done)
    return run


def _learn(trainer: Reinforce, bench: Workbench, reward: DeltaReward, run: RunFolder, done: int) -> None:
    """Take the updates that are left, each logged and saved."""
    total = trainer.config.updates
    started, before = time.perf_counter(), bench.seconds
    with (
        EventFile(run.path, done) as events,
        tqdm(total=total, initial=done, desc="training", unit="update", dynamic_ncols=True) as bar,
    ):
        number = done
        while number < total:
            update = trainer.update()
            if not len(update.deltas):
                logger.warning("No episode of this update got a reply: it does not count")
                continue
            elapsed = time.perf_counter() - started
            shares = {name: (after - before[name]) / elapsed for name, after in bench.seconds.items()}
            spent = bench.spent()
            line = _line(number + 1, update, spent, elapsed, shares)
            run.append_metrics(line)
            events.add(number + 1, {f"train/{name}": value for name, value in line.items() if name != "update"})
            number += 1
            save_checkpoint(run.checkpoint, trainer, {"updates": number, "initial": reward.initial})
            said = {"calls": spent["llm_calls"], "delta": f"{line['delta']:+.4f}", "failed": update.failed}
            bar.set_postfix({**said, **({"cost": f"{spent['cost']:.2f}"} if spent["cost"] else {})})
            bar.update()


def _line(
    number: int, update: Update, spent: dict[str, float], elapsed: float, shares: dict[str, float]
) -> dict[str, Any]:
    """One line of ``metrics.jsonl``.

    ``delta``: mean change of F1 of this update's sampled rollouts; ``deltas``: each of them; ``failed``: episodes
    without a reply, left out; ``llm_calls``, tokens and ``cost``: what the run has spent so far; ``cached_replies``:
    kept replies that this process used; ``share_*``: part of the wall time so far inside each model's forward passes.
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
        **spent,
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
    if not len(first) or not len(last):
        return "Too few episodes got a reply to say what training brought"
    gain, fewest = last.mean() - first.mean(), min(len(first), len(last))
    if fewest < FEWEST:
        told = f"too few episodes ({fewest}) for an interval"
    else:  # Welch's interval: the rollouts of the two quarters are different ones.
        half = 1.96 * float(np.sqrt(first.var(ddof=1) / len(first) + last.var(ddof=1) / len(last)))
        told = f"[{100 * (gain - half):+.2f}, {100 * (gain + half):+.2f}]"
    end = metrics[-1]
    failed = sum(line["failed"] for line in metrics)
    left_out = f"\n{failed} episodes got no reply from the LLM and were left out" if failed else ""
    return (
        f"Sampled deltas of F1 on training patients: first quarter {100 * first.mean():+.2f} points, last quarter "
        f"{100 * last.mean():+.2f}, gain {100 * gain:+.2f} {told}\n"
        f"Wall time in the LLM {end['share_llm']:.0%}, encoder {end['share_encoder']:.0%}, "
        f"BERTScore {end['share_scorer']:.0%}, everything else {1 - end['share_models']:.0%}{left_out}"
    )
