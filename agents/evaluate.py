"""Judge a trained policy on held-out patients: ``pmlm evaluate``, or ``python -m agents.evaluate``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from agents.evaluation.arms import evaluate_arms, table
from agents.evaluation.cases import worst_cases
from agents.policy import WordPolicy
from agents.run_folder import RunFolder, write_json
from agents.workbench import CallOptions, ModelOptions, Workbench
from pmlm_env.episodes import EpisodeSet, Split


@dataclass(frozen=True)
class EvaluateConfig:
    """Refine held-out patients' prompts with a trained policy and compare with keep-all and random deletion.

    Attributes:
        run: The run folder that ``pmlm train`` wrote; ``evaluation.json`` goes there.
        split: Whom to evaluate on.
        calls: How the LLM is asked, and what the whole run may spend; what is not given is as in training.
        seed: Draws the random deletions and the bootstrap's resamples.
        cases: So many of the patients whose F1 fell most are printed, with prompts, replies and references.
    """

    run: Path = Path("runs/train")
    split: Split = "test"
    calls: CallOptions = field(default_factory=CallOptions)
    seed: int = 0
    cases: int = 0


def evaluate(config: EvaluateConfig, bench: Workbench | None = None) -> dict[str, Any]:
    """Evaluate on the models and prompts of the run itself, print the table and write ``evaluation.json``.

    Raises:
        ValueError: The folder holds no run, or no checkpoint.
    """
    if not config.run.is_dir():
        raise ValueError(f"{config.run} holds no run: train first with `pmlm train --run {config.run}`")
    run = RunFolder(config.run)
    trained, updates = run.settings(), run.updates()
    episodes = EpisodeSet.load(trained["episodes"]).of(config.split)
    if bench is None:
        try:
            bench = Workbench(ModelOptions(**trained["models"]), config.calls.over(trained["calls"]), run)
        except (KeyError, TypeError):
            raise ValueError(f"{config.run} was made by another version of pmlm-env: train anew") from None
    policy = WordPolicy.from_pretrained(run.whole_checkpoint(), bench.encoder.device)
    try:
        with tqdm(total=2 * len(episodes), desc="evaluating", unit="prompt", dynamic_ncols=True) as bar:
            evaluation = evaluate_arms(bench, episodes, policy, config.seed, bar.update)
    finally:
        run.write_spent(bench.spent())
    write_json(run.evaluation, {"split": config.split, "updates": updates, **evaluation})
    print(table(evaluation))
    if config.cases:
        print("\n" + worst_cases(evaluation, config.cases))
    return evaluation


if __name__ == "__main__":
    from agents.cli import main

    main("evaluate")
