"""Train an agent: ``pmlm train``."""

from __future__ import annotations

import logging
import time
from contextlib import suppress

import numpy as np
from tqdm import tqdm

from agents import registry
from agents.base import Agent, StepwiseAgent
from agents.models import RunModels
from agents.problem import BudgetSpentError, MeteredReward, Problem
from agents.run_folder import RunFolder
from agents.settings import from_plain
from agents.training.checkpoint import check_agent, load_checkpoint, one_line, save_checkpoint
from agents.training.config import TrainConfig, with_agent_settings
from agents.training.events import EventFile
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.outcomes import Outcomes
from pmlm_env.rewards.delta import DeltaReward

logger = logging.getLogger(__name__)


def trained(run: RunFolder) -> TrainConfig:
    """Return the settings that a run was begun, or resumed, with.

    Raises:
        ValueError: The folder holds no run, or its ``config.json`` is damaged or of another version.
    """
    settings = {name: value for name, value in run.settings().items() if name not in ("llm_identity", "run")}
    try:
        if "agent" not in settings:
            raise ValueError("agent is missing")
        config = with_agent_settings(TrainConfig, str(settings["agent"]))
        return from_plain(config, {**settings, "run": str(run.path), "resume": False})
    except ValueError as error:
        raise ValueError(
            f"{run.path / 'config.json'}: {error}: it is damaged, or of another version of pmlm-env: restore it from a "
            "copy, or begin another run"
        ) from None


def train(config: TrainConfig, models: RunModels | None = None) -> RunFolder:
    """Train, and leave a run folder with metrics, TensorBoard events and a checkpoint.

    A ``StepwiseAgent`` has a checkpoint after every update. Other agents have one at the end; resumed, they are fitted
    again from the beginning with the replies that are kept, and so learn the same.

    Args:
        config: Settings.
        models: The models, if the caller has loaded them already.

    Raises:
        ValueError: The settings do not fit together, there is nothing to resume, or not with these settings or
            episodes, or another command uses the folder.
        BudgetExceededError: A limit of the whole run is reached; the last complete update and all replies are saved.
        TooManyFailuresError: Too many episodes in a row got no reply; likewise.
        OSError, DatabaseError: A file cannot be written, as on a full disk; likewise.
    """
    if config.resume and not config.episodes.is_dir():
        raise ValueError(f"{config.episodes} is not there: give the new place of these episodes with --episodes")
    everybody = EpisodeSet.load(config.episodes)
    run = RunFolder(config.run)
    with run.locked():
        return _train(config, everybody, run, models)


def _train(config: TrainConfig, everybody: EpisodeSet, run: RunFolder, models: RunModels | None) -> RunFolder:
    """Train in a folder that no other process uses."""
    episodes = everybody.of("train")
    models = models or RunModels(config.models, config.calls, run)
    if config.resume:
        run.go_on(config, models.llm.identity, everybody.digest)
        models.check_kept()
    else:
        run.check_new()
        models.budget.check_writable()  # from here on the record of spending is there, and its loss is noticed
        run.start(config, models.llm.identity, everybody.digest)
    agent = registry.make(config.agent, config.settings, config.seed)
    reward = models.reward(episodes)
    meter = MeteredReward(reward, config.budget, config.models.n_samples)
    training = _Training(agent, models.problem(episodes, meter, everybody.max_words), reward, models, run)
    with models.booking():
        training.learn(resume=config.resume and run.has_checkpoint)
    return run


class _Training:
    """An agent that is being fitted, and what is written about it into its run folder."""

    def __init__(self, agent: Agent, problem: Problem, reward: DeltaReward, models: RunModels, run: RunFolder) -> None:
        self.agent, self.problem, self.reward, self.models, self.run = agent, problem, reward, models, run
        self.meter = problem.reward
        self.meter.watch = self._batch
        self.updates = 0
        self._deltas: list[float] = []
        self._failed = 0
        self._started, self._before = time.perf_counter(), models.seconds

    def learn(self, resume: bool) -> None:
        """Learn what is left to learn, with a line of metrics for each batch, and save."""
        if resume:
            check_agent(self.run.whole_checkpoint(), self.agent, self.problem.shape)
        if isinstance(self.agent, StepwiseAgent):
            self.agent.begin(self.problem)
            if resume:
                self._go_on(self.agent)
        self.run.keep_metrics(self.updates)
        with (
            EventFile(self.run.path, self.updates) as self._events,
            tqdm(
                total=self.meter.limit, initial=self.meter.calls, desc="training", unit="call", dynamic_ncols=True
            ) as self._bar,
        ):
            with suppress(BudgetSpentError):  # that is how learning ends; a limit of the whole run is another error
                if isinstance(self.agent, StepwiseAgent):
                    self._take_updates(self.agent)
                else:
                    self.agent.fit(self.problem)
            if not isinstance(self.agent, StepwiseAgent):
                self._save()
        if self.agent.learns and not self.updates:
            logger.warning(
                "The agent has learned nothing: its budget of %d completions does not pay for one batch of episodes; "
                "go on with --resume and a larger --budget",
                self.meter.limit,
            )

    def _go_on(self, agent: StepwiseAgent) -> None:
        """Put the agent where the last checkpoint has it."""
        folder = self.run.whole_checkpoint()
        progress, self.reward.initial = load_checkpoint(folder, agent, len(self.problem.episodes))
        with one_line(folder / "trainer.json"):
            self.updates = int(progress["updates"])
            self.meter.restore(progress["meter"])
        logger.info("Going on after %d of %d completions", self.meter.calls, self.meter.limit)

    def _take_updates(self, agent: StepwiseAgent) -> None:
        """Take update after update, and save after each.

        Raises:
            BudgetSpentError: The budget does not pay for the next one. Nothing is saved then: the agent has drawn
                numbers for a batch that was not played, and a run that goes on with a larger budget draws them again.
        """
        if not self.run.has_checkpoint:
            self._save()
        while (figures := agent.update()) is not None:
            if not self._deltas:
                logger.warning("No episode of this update got a reply: it does not count")
                continue
            self._write(figures)
            self._save()

    def _batch(self, outcomes: Outcomes) -> None:
        """Note a batch of episodes; of an agent without updates each is a line of metrics."""
        failed = outcomes.failed
        self._deltas += outcomes.delta[~failed].tolist()
        self._failed += int(failed.sum())
        self._bar.update(self.meter.calls - self._bar.n)
        if not isinstance(self.agent, StepwiseAgent) and self._deltas:
            self._write({})

    def _write(self, figures: dict[str, float]) -> None:
        """Write a line of ``metrics.jsonl``.

        ``delta``: mean change of F1 of this update's episodes; ``deltas``: each of them; ``failed``: episodes without a
        reply, left out; ``budget_spent``: completions of this agent; ``llm_calls``, tokens and ``cost``: what the run
        has spent so far; ``cached_replies``: kept replies that this process used; ``share_*``: part of the wall time
        inside each model's forward passes; besides, the agent's own figures.
        """
        self.updates += 1
        deltas, elapsed = np.array(self._deltas), time.perf_counter() - self._started
        shares = {name: (after - self._before[name]) / elapsed for name, after in self.models.seconds.items()}
        spent = self.models.spent()
        line = {
            "update": self.updates,
            "delta": float(deltas.mean()),
            "delta_sd": float(deltas.std()),
            "failed": self._failed,
            **figures,
            "budget_spent": self.meter.calls,
            **spent,
            "seconds": elapsed,
            **{f"share_{name}": share for name, share in shares.items()},
            "share_models": sum(shares.values()),
            "deltas": self._deltas,
        }
        self.run.append_metrics(line)
        self._events.add(self.updates, {f"train/{name}": value for name, value in line.items() if name != "update"})
        shown = {"delta": f"{line['delta']:+.4f}", "failed": self._failed}
        self._bar.set_postfix({**shown, **({"cost": f"{spent['cost']:.2f}"} if spent["cost"] else {})})
        self._deltas, self._failed = [], 0

    def _save(self) -> None:
        progress = {"updates": self.updates, "meter": self.meter.state()}
        save_checkpoint(self.run.checkpoint, self.agent, progress, self.reward.initial)
