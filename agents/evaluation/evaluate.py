"""Judge a trained policy on held-out patients: ``pmlm evaluate``, or ``python -m agents.evaluate``."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from agents.baselines.single_rule import SingleRule
from agents.evaluation.cases import worst_cases
from agents.evaluation.variants import evaluate_arms, table
from agents.model_options import CallOptions
from agents.models import RunModels
from agents.policies.word_policy import WordPolicy
from agents.problem import BudgetSpentError, MeteredReward, Problem
from agents.run_folder import RunFolder
from agents.settings import plain
from agents.training.train import trained
from pmlm_env.core.episodes import EpisodeSet, Split
from pmlm_env.io.files import write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluateConfig:
    """Refine held-out patients' prompts with a trained policy and compare with keep-all, random deletion and controls.

    Zero-call controls, such as an echo of the prompt, stand in every table. The best single rule stands in it with
    --rule-calls: what a policy gains beyond it is personal.

    Attributes:
        run: The run folder that ``pmlm train`` wrote; ``evaluation.json`` goes there.
        split: Whom to evaluate on.
        episodes: The prepared folder that the run was trained on, where it is no longer where it was.
        calls: How the LLM is asked, and what the whole run may spend; what is not given is as in training.
        rule_calls: LLM calls for the search of the best single rule on training patients; a fair comparison takes as
            many as training did. 0 = no rule.
        seed: Draws the random deletions, the rule's search and the bootstrap's resamples.
        cases: So many of the patients whose F1 fell most are printed, with prompts, replies and references.
    """

    run: Path = Path("runs/train")
    split: Split = "test"
    episodes: Path | None = None
    calls: CallOptions = field(default_factory=CallOptions)
    rule_calls: int = 0
    seed: int = 0
    cases: int = 0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: One is below 0.
        """
        if min(self.rule_calls, self.cases) < 0:
            raise ValueError(f"rule-calls ({self.rule_calls}) and cases ({self.cases}) must be 0 or more")


def evaluate(config: EvaluateConfig, bench: RunModels | None = None) -> dict[str, Any]:
    """Evaluate on the models and prompts of the run itself, print the table and write ``evaluation.json``.

    Raises:
        ValueError: The folder holds no run, or no checkpoint, or a damaged one, or its episodes have changed, or
            another command uses it.
        OSError, DatabaseError: A file cannot be written, as on a full disk; the replies that were had are kept.
    """
    run = RunFolder(config.run)
    settings = trained(run)
    with run.locked():
        updates = run.updates()
        if config.episodes is None and not settings.episodes.is_dir():
            raise ValueError(f"{settings.episodes} is no longer there: give its new place with --episodes")
        everybody = EpisodeSet.load(config.episodes or settings.episodes)
        run.check_episodes(everybody.digest)
        episodes, training = everybody.of(config.split), everybody.of("train")
        if bench is None:
            bench = RunModels(settings.models, config.calls.over(plain(settings.calls)), run)
            bench.check_kept()
        policy = WordPolicy.from_pretrained(run.whole_checkpoint(), bench.encoder.device)
        with bench.booking():
            rule = _searched_rule(bench, training, config) if config.rule_calls else None
            total = (2 if rule is None else 3) * len(episodes)
            with tqdm(total=total, desc="evaluating", unit="prompt", dynamic_ncols=True) as bar:
                evaluation = evaluate_arms(bench, episodes, training, policy, config.seed, rule, bar.update)
        not_judged = len(everybody.of(config.split, everybody=True)) - len(episodes)
        head = {"split": config.split, "updates": updates, "without_label_or_reference": not_judged}
        write_json(run.evaluation, {**head, **evaluation})
    print(table(evaluation))
    if not_judged:
        print(f"\n{not_judged} {config.split} patients without a label or a doctor's reply are not in this table.")
    if config.cases:
        print("\n" + worst_cases(evaluation, config.cases))
    return evaluation


def _searched_rule(bench: RunModels, training: EpisodeSet, config: EvaluateConfig) -> SingleRule:
    logger.info("Searching the best single rule with %d calls", config.rule_calls)
    meter = MeteredReward(bench.reward(training), config.rule_calls, bench.options.n_samples)
    rule = SingleRule(seed=config.seed)
    try:
        rule.fit(Problem(training, bench.encoder, meter, bench.options.n_edits))
    except BudgetSpentError:
        logger.debug("the rule's search spent its calls")
    return rule
