"""Evaluate a trained agent on held-out patients: ``pmlm evaluate``, or ``python -m agents.evaluate``."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from agents import registry
from agents.base import Agent
from agents.evaluation.cases import worst_cases
from agents.evaluation.config import EvaluateConfig
from agents.evaluation.controls import CONTROLS
from agents.evaluation.rules import rule_lines
from agents.evaluation.traces import traces_of
from agents.evaluation.variants import AGENT, KEEP_ALL, RANDOM, RULE, evaluation_of, table
from agents.models import RunModels
from agents.problem import BudgetSpentError, MeteredReward
from agents.run_folder import RunFolder
from agents.settings import plain
from agents.training.config import TrainConfig, editor_in
from agents.training.destination import with_destination
from agents.training.train import trained
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.io.files import write_json
from pmlm_env.io.text import printable

logger = logging.getLogger(__name__)


def evaluate(config: EvaluateConfig, models: RunModels | None = None) -> dict[str, Any]:
    """Evaluate a run's agent with the run's own models and prompts.

    Writes ``evaluation.json`` and ``traces.jsonl``, in which it replaces the traces of an earlier evaluation of the
    same split, agent, and seed, and prints the table. If interrupted and run again, it writes the same results, except
    for the flags of cached replies.

    Args:
        config: Settings.
        models: The models, if the caller has already loaded them.

    Returns:
        The content of ``evaluation.json``.

    Raises:
        ValueError: The folder contains no run, its checkpoint is missing or damaged, its episodes have changed, or
            another command uses it.
        RuntimeError: No patient has all replies, or ``max_failures`` consecutive replies are missing.
        BudgetExceededError: A limit of the whole run is reached; the replies so far are cached.
        OSError, DatabaseError: A file cannot be written, for example because the disk is full; the replies so far are
            cached.
    """
    run = RunFolder(config.run)
    settings = trained(run, config.allow_import)
    with run.locked():
        updates, budget_spent = run.updates(), run.budget_spent()
        if config.episodes is None and not settings.episodes.is_dir():
            raise ValueError(f"{settings.episodes} does not exist any more: if it was moved, give --episodes FOLDER")
        everybody = EpisodeSet.load(config.episodes or settings.episodes)
        run.check_episodes(everybody.digest)
        episodes, training = everybody.of(config.split), everybody.of("train")
        run.traces.read()  # damage is noticed before anything is asked
        if models is None:
            models = models_of(config, settings, run, training)
        models.check_sent(config.episodes or settings.episodes)
        agents = agents_of(config, run, models)
        with models.booking():
            if config.rule_calls:
                agents[RULE] = _searched_rule(models, training, everybody.max_words, config)
            n_replies = len(agents) * len(episodes) * models.options.n_samples
            with tqdm(total=n_replies, desc="evaluating", unit="reply", dynamic_ncols=True) as bar:
                traces = traces_of(
                    agents,
                    models,
                    episodes,
                    training,
                    run=run.path.resolve().name,
                    seed=config.seed,
                    max_words=everybody.max_words,
                    progress=bar.update,
                )
        not_judged = len(everybody.of(config.split, include_unscored=True)) - len(episodes)
        evaluation = {
            "agent": settings.agent,
            "split": config.split,
            "language": episodes[0].language,
            "seed": config.seed,
            "updates": updates,
            "budget_spent": budget_spent,
            "without_label_or_reference": not_judged,
            **evaluation_of(traces, config.seed),
            **({"counts": counts} if (counts := agents[AGENT].counts) else {}),
            "models": plain(models.options),
        }
        ours, variants = (config.split, settings.agent, config.seed), {KEEP_ALL, RANDOM, AGENT, RULE, *CONTROLS}
        run.traces.replace(
            traces, lambda trace: (trace.split, trace.agent, trace.seed) == ours and trace.variant in variants
        )
        write_json(run.evaluation, evaluation)
    print("\n\n".join([table(evaluation), *map(printable, rule_lines(traces))]))
    if not_judged:
        print(f"\n{not_judged} {config.split} patients without a label or a doctor's reply are not in this table.")
    if config.cases:
        print("\n" + worst_cases(traces, config.cases))
    return evaluation


def agents_of(config: EvaluateConfig, run: RunFolder, models: RunModels) -> dict[str, Agent]:
    """Return the run's agent and its baselines, by variant.

    Raises:
        ValueError: The agent cannot be loaded, or asks another LLM for edits than the run's settings say.
    """
    agent = registry.load(run.whole_checkpoint(), str(models.encoder.device), allow_import=config.allow_import)
    if agent.editor is not None and agent.editor.llm != editor_in(run.settings()):  # where its prompts go is unchecked
        raise ValueError(f"{run.checkpoint} and {run.config} name different editors: restore them from a copy")
    return {
        KEEP_ALL: registry.make("keep-all"),
        RANDOM: registry.make("random-n", seed=config.seed),
        AGENT: agent,
    }


def models_of(config: EvaluateConfig, settings: TrainConfig, run: RunFolder, training: EpisodeSet) -> RunModels:
    """Set up the models that the run was trained with.

    Raises:
        ValueError: The run's prompts would go to an address that is not given, or another address is given.
    """
    calls, saved = config.calls.over(plain(settings.calls), run.config), plain(settings.models)
    given = replace(settings.models, base_url=config.base_url, providers=config.providers)
    editor = editor_in(plain(settings))
    options = with_destination(given, saved, run.config, replay=calls.replay, editor=editor)
    models = RunModels(options, calls, run, training, editors=editor is not None)
    if config.base_url is not None and config.base_url.rstrip("/") != str(settings.models.base_url).rstrip("/"):
        raise ValueError(f"--base-url {config.base_url} is not the address that {run.config} has: give that one")
    models.check_kept()
    return models


def _searched_rule(models: RunModels, training: EpisodeSet, max_words: int, config: EvaluateConfig) -> Agent:
    logger.info("Searching the best single rule with %d calls", config.rule_calls)
    meter = MeteredReward(models.reward(training), config.rule_calls, models.options.n_samples)
    rule = registry.make(registry.RULE, seed=config.seed)
    try:
        rule.fit(models.problem(training, meter, max_words))
    except BudgetSpentError:
        logger.debug("the search for the rule has spent its calls")
    if not meter.calls:
        logger.warning(
            "No rule was tried, so the best single rule edits nothing: --rule-calls %d is too small for one batch of "
            "episodes; give more",
            config.rule_calls,
        )
    return rule
