"""Train an agent: ``pmlm train``."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack, nullcontext
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from agents import registry
from agents.base import Agent, StepwiseAgent
from agents.models import RunModels
from agents.problem import BudgetSpentError, MeteredReward, Problem
from agents.run_folder import RunFolder
from agents.settings import from_plain
from agents.training.checkpoint import check_agent, load_checkpoint, one_line, save_checkpoint
from agents.training.config import TrainConfig, named_classes, refuse_classes, with_agent_settings
from agents.training.destination import with_destination
from agents.training.events import EventFile
from agents.training.weights_and_biases import WandbRun
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.outcomes import Outcomes
from pmlm_env.io.files import replacing_folder
from pmlm_env.processes import Processes, current
from pmlm_env.rewards.delta import DeltaReward

logger = logging.getLogger(__name__)


def trained(run: RunFolder, allow_import: bool = False) -> TrainConfig:
    """Return the settings that a run was started or last resumed with.

    Args:
        run: The run folder.
        allow_import: Whether the settings may name classes as ``package.module:Class``. The agent's class is imported.

    Raises:
        ValueError: The folder contains no run; its ``config.json`` is damaged or from another version; or it names a
            class that must not be imported, or an agent that is not installed.
    """
    settings = {name: value for name, value in run.settings().items() if name not in ("llm_identity", "run")}
    file = run.config
    if not allow_import:
        refuse_classes(named_classes(settings), file)
    if isinstance(settings.get("agent"), str):
        registry.saved_settings_class(settings["agent"], file, allow_import)
    try:
        if "agent" not in settings:
            raise ValueError("agent is missing")
        config = with_agent_settings(TrainConfig, str(settings["agent"]))
        return from_plain(config, {**settings, "run": str(run.path), "resume": False, "allow_import": False})
    except ValueError as error:
        raise ValueError(
            f"{file}: {error}: the file is damaged, or was not written by this version of pmlm-env: restore it from a "
            "copy, or start a new run"
        ) from None


def train(config: TrainConfig, models: RunModels | None = None) -> RunFolder:
    """Train an agent, and write a run folder with metrics, TensorBoard events, and a checkpoint.

    A ``StepwiseAgent`` saves a checkpoint after every update. Other agents save one at the end; when resumed, they are
    fitted again from the start with the cached replies, and so learn the same if the budget is the same; with another,
    they may need other replies. Until that ends, the earlier checkpoint and its metrics stay.

    Of several processes that train together (``pmlm_env.processes``), the first writes the folder.

    If one of the errors other than ValueError is raised, the last complete update and all replies are saved.

    Args:
        config: Settings.
        models: The models, if the caller has already loaded them.

    Raises:
        ValueError: The settings are inconsistent, the run cannot be resumed (there is none, or its settings or episodes
            differ), another command uses the folder, or several processes cannot train this agent.
        BudgetExceededError: A limit of the whole run is reached.
        TooManyFailuresError: Too many consecutive episodes got no reply.
        OSError, DatabaseError: A file cannot be written, for example because the disk is full.
        LostProcessError, EndedError: Another process has ended, or reports an error.
    """
    if config.resume and not config.episodes.is_dir():
        raise ValueError(f"{config.episodes} does not exist: if these episodes were moved, give --episodes FOLDER")
    everybody = EpisodeSet.load(config.episodes)
    run, processes = RunFolder(config.run), current()
    with ExitStack() as stack:
        with processes.together():
            if processes.leads:
                stack.enter_context(run.locked())
            training = _set_up(config, everybody, run, models, processes)
        training.learn()
    return run


def _set_up(
    config: TrainConfig, everybody: EpisodeSet, run: RunFolder, models: RunModels | None, processes: Processes
) -> _Training:
    """Load everything, and begin or resume the run in its folder, which the first process has locked."""
    episodes = everybody.of("train")
    agent = registry.make(config.agent, config.settings, config.seed)
    if processes.size > 1:
        _check_divided(agent, config)
    wandb_run = WandbRun(config) if config.wandb is not None and processes.leads else None
    if agent.needs_checkups and not everybody.has_checkups:
        raise ValueError(
            f"{config.episodes} has no check-ups, from which {agent.name} learns with these settings: prepare it again "
            "with `pmlm prepare`"
        )
    before = config.budget
    if config.resume:
        settings = run.settings()
        saved, before = settings["models"], settings.get("budget", config.budget)
        editor = None if agent.editor is None else agent.editor.llm
        models_given = with_destination(config.models, saved, run.config, replay=config.calls.replay, editor=editor)
        config = replace(config, models=models_given)
    models = models or RunModels(config.models, config.calls, run, episodes, editors=agent.editor is not None)
    models.check_sent(config.episodes)
    if agent.editor is not None:  # what is wrong with it is said before the run begins
        models.editor(agent.editor)
    has_checkpoint = config.resume and run.has_checkpoint
    if not processes.leads:
        pass
    elif config.resume:
        run.go_on(config, models.llm.identity, everybody.digest)
        _warn_of_other_budget(agent, config.budget, before)
        models.check_kept()
    else:
        run.check_new()
        models.budget.check_writable()  # creates the spending record, so that its loss is noticed from here on
        run.start(config, models.llm.identity, everybody.digest)
    reward = models.reward(episodes)
    meter = MeteredReward(reward, config.budget, config.models.n_samples)
    problem = models.problem(episodes, meter, everybody.max_words)
    problem.warn_of_short_prompts()
    training = _Training(agent, problem, reward, models, run, wandb_run, processes.leads)
    training.begin(resume=has_checkpoint)
    return training


def _warn_of_other_budget(agent: Agent, budget: int, before: int) -> None:
    """Warn if an agent without updates is resumed with another budget, because its first replies may not do again."""
    if agent.learns and not isinstance(agent, StepwiseAgent) and budget != before:
        logger.warning(
            "The agent %s is fitted again from the start. With a budget of %d instead of %d completions it may try "
            "other prompts from its first batch on: up to %d replies that are not stored yet are requested",
            *(agent.name, budget, before, budget),
        )


def _check_divided(agent: Agent, config: TrainConfig) -> None:
    """Check that several processes can train an agent together.

    Raises:
        ValueError: They cannot.
    """
    if not agent.divides:
        raise ValueError(
            f"the agent {agent.name} is trained by one process: start it without torchrun, or choose one that learns "
            "by policy gradients, such as leave-one-out"
        )
    if config.models.llm.startswith("vllm:"):
        raise ValueError(
            f"--llm {config.models.llm} starts processes of its own, which torchrun's would disturb: serve the model "
            "(vllm serve), or train in one process"
        )


class _Training:
    """Fits an agent; in the first process, also writes its metrics and checkpoints to the run folder."""

    def __init__(
        self,
        agent: Agent,
        problem: Problem,
        reward: DeltaReward,
        models: RunModels,
        run: RunFolder,
        wandb_run: WandbRun | None,
        writes: bool,
    ) -> None:
        self.agent, self.problem, self.reward, self.models, self.run = agent, problem, reward, models, run
        self._wandb_run, self._writes = wandb_run, writes
        self.meter = problem.reward
        self.meter.watch = self._batch
        self.updates = 0
        self._deltas: list[float] = []
        self._failed = 0
        self._started, self._before = time.perf_counter(), models.seconds

    def begin(self, resume: bool) -> None:
        """Make what the agent learns, or restore it from the last checkpoint."""
        if resume:
            check_agent(self.run.whole_checkpoint(), self.agent, self.problem.shape)
        if isinstance(self.agent, StepwiseAgent):
            self.agent.begin(self.problem)
            if resume:
                self._go_on(self.agent)
        self._again = resume and not isinstance(self.agent, StepwiseAgent)

    def learn(self) -> None:
        """Run the remaining training, write one line of metrics per batch, and save checkpoints."""
        with self.models.booking() if self._writes else nullcontext():
            self._learn()
        if self._writes and (encoder := self.agent.patient_encoder(self.problem.episodes)) is not None:
            with replacing_folder(self.run.patient_encoder) as folder:
                encoder.save(folder)

    def _learn(self) -> None:
        if self._writes:
            self.run.keep_metrics(self.updates, anew=self._again)
        with (
            ExitStack() as stack,
            tqdm(
                total=self.meter.limit, initial=self.meter.calls, desc="training", unit="call", dynamic_ncols=True,
                disable=not self._writes,
            ) as self._bar,
        ):  # fmt: skip
            self._sinks: list[EventFile | WandbRun] = [EventFile(self.run.path, self.updates)] if self._writes else []
            self._sinks += [] if self._wandb_run is None else [self._wandb_run]
            for sink in self._sinks:
                stack.enter_context(sink)
            needed = 0
            try:
                if isinstance(self.agent, StepwiseAgent):
                    self._take_updates(self.agent)
                else:
                    self.agent.fit(self.problem)
            except BudgetSpentError as spent:  # the normal end of training; limits of the whole run raise another error
                needed = spent.needed
            if not isinstance(self.agent, StepwiseAgent):
                self._save()
            if self._writes and self._again:
                self.run.take_new_metrics()
        if self.agent.learns and not self.updates:
            logger.warning(
                "The agent has learned from no episode. If its budget of %d completions is too small for one batch, "
                "resume with a larger one: --resume --budget %s",
                *(self.meter.limit, self.meter.calls + needed if needed else "N"),
            )
        elif needed and self.meter.left:
            goes_on = isinstance(self.agent, StepwiseAgent)  # others would be fitted again, and may need other replies
            logger.info(
                "%d of the %d completions are left, because the next batch needs %d%s",
                *(self.meter.left, self.meter.limit, needed),
                f": to go on, --resume --budget {self.meter.calls + needed}" if goes_on else "",
            )

    def _go_on(self, agent: StepwiseAgent) -> None:
        """Restore the agent and the counters from the last checkpoint."""
        folder = self.run.whole_checkpoint()
        progress, self.reward.initial = load_checkpoint(folder, agent, len(self.problem.episodes))
        with one_line(folder / "trainer.json"):
            self.updates = int(progress["updates"])
            self.meter.restore(progress["meter"])
        logger.info("Resuming after %d of %d completions", self.meter.calls, self.meter.limit)

    def _take_updates(self, agent: StepwiseAgent) -> None:
        """Run updates, and save a checkpoint after each.

        Raises:
            BudgetSpentError: The budget does not cover the next update. No checkpoint is saved in this case, because
                the agent has drawn random numbers for a batch that was not played; a run resumed with a larger budget
                draws them again.
        """
        if not self.run.has_checkpoint:
            self._save()
        while (figures := agent.update()) is not None:
            if not self._deltas:
                logger.warning("No episode of this update got a reply: the update is not counted")
                continue
            self._write(figures)
            self._save()

    def _batch(self, outcomes: Outcomes) -> None:
        """Record a batch of episodes; for an agent without updates, also write a line of metrics."""
        failed = outcomes.failed
        self._deltas += outcomes.delta[~failed].tolist()
        self._failed += int(failed.sum())
        self._bar.update(self.meter.calls - self._bar.n)
        if not isinstance(self.agent, StepwiseAgent) and self._deltas:
            self._write({})

    def _write(self, figures: dict[str, float]) -> None:
        """Write a line of ``metrics.jsonl``.

        ``delta``: mean change of the score over this update's episodes; ``deltas``: the change in each episode;
        ``failed``: number of episodes without a reply, which are excluded; ``budget_spent``: completions used by this
        agent; ``llm_calls``, tokens, and ``cost``: the run's spending so far; ``cached_replies``: cached replies used
        by this process; ``share_*``: fraction of wall time spent in each model's forward passes; plus the agent's own
        metrics.
        """
        self.updates += 1
        if not self._writes:
            self._deltas, self._failed = [], 0
            return
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
        self.run.append_metrics(line, anew=self._again)
        numbers = {
            f"train/{name}": value
            for name, value in line.items()
            if isinstance(value, int | float) and name != "update"
        }
        for sink in self._sinks:
            sink.add(self.updates, numbers)
        shown = {"delta": f"{line['delta']:+.4f}", "failed": self._failed}
        self._bar.set_postfix({**shown, **({"cost": f"{spent['cost']:.2f}"} if spent["cost"] else {})})
        self._deltas, self._failed = [], 0

    def _save(self) -> None:
        if not self._writes:
            return
        progress = {"updates": self.updates, "meter": self.meter.state()}
        save_checkpoint(self.run.checkpoint, self.agent, progress, self.reward.initial)
