"""What trees and one rule gain that learn from all stored replies: python -m benchmarks.offline_edits --help.

The trees of ``tree-surrogate`` are fitted to all stored replies to training patients' prompts with some words deleted,
many more than any agent's budget pays for. Then they choose words for each test patient, and the places of one rule for
everybody, and the LLM replies to what they chose. What the trees gain beyond the rule is personal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from agents.baselines.single_rule import RolePlace, SingleRule
from agents.baselines.tree_surrogate import TreeSurrogate
from agents.benchmark.patients import Patients, RealPatients
from agents.evaluation.bootstrap import mean_interval
from agents.model_options import CallOptions, ModelOptions
from agents.problem import Problem, blind
from agents.report.tables import in_points
from benchmarks.lite_rule import follower
from benchmarks.offline import Tried, by_prompt, replies_of, tried
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.io.files import write_json
from pmlm_env.rewards.bertscore import BertScorer

#: Numbers of places in the rules that are judged.
SIZES = (3, 10)

#: The rule that the trees are compared with.
RULE = f"rule of {SIZES[0]}"

#: What is measured of replies, beside the delta.
METRICS = ("margin", "diagnosis_named", "wrong_diagnosis_named")


@dataclass(frozen=True)
class Options:
    """Options of the measurement.

    Attributes:
        episodes: The folder of ``pmlm prepare`` that the replies belong to.
        cache: The stored replies; new ones are added.
        run: Folder for the record of spending.
        llm: The local LLM, without ``local:``.
        json: Output file.
    """

    episodes: Path
    cache: Path
    run: Path
    llm: str = "qwen2.5-coder-0.5b"
    json: Path | None = None


def best_rule(trees: TreeSurrogate, training: Problem, size: int) -> tuple[RolePlace, ...]:
    """Return the places that trees would delete from every prompt, one after another, for the mean of all patients.

    Args:
        trees: A fitted agent, whose models' mean counts.
        training: The training patients.
        size: The number of places.
    """
    rule: tuple[RolePlace, ...] = ()
    while len(rule) < size:
        values = {}
        for place in (each for each in trees.places if each not in rule):
            chosen = [tuple(edit.slot for edit in edits) for edits in follower((*rule, place)).refine(training)]
            values[place] = float(trees.predicted(training, range(len(chosen)), chosen).mean())
        rule = (*rule, max(values, key=values.__getitem__))
    return rule


def measure(rows: Sequence[Tried], patients: Patients) -> dict[str, Any]:
    """Fit the trees, and judge what they and the rules choose.

    Args:
        rows: Deletions from the training patients' prompts.
        patients: The patients.

    Returns:
        ``replies``: the number of deletions learned from; ``rule``: the places of the largest rule; ``patients``: the
        held-out patients; and ``editors``: for each, the change of F1 for each patient, the number of different edits,
        and the metrics of the replies.
    """
    learning, judging = (
        Problem(part, patients.encoder, None, patients.n_edits, patients.max_words)
        for part in (patients.train, blind(patients.held_out))
    )
    trees = TreeSurrogate()
    trees.fit_to(learning, *zip(*rows, strict=True))
    rule = best_rule(trees, learning, max(SIZES))
    editors: dict[str, TreeSurrogate | SingleRule] = {trees.name: trees}
    editors |= {f"rule of {size}": follower(rule[:size]) for size in SIZES}
    found = {}
    with patients.working():
        for name, editor in editors.items():
            judged = patients.judged(editor.refine(judging))
            metrics = {metric: values for metric, values in judged.get("metrics", {}).items() if metric in METRICS}
            found[name] = {"deltas": judged["deltas"], "edits": judged["edits"], "metrics": metrics}
    names = [episode.patient_id for episode in patients.held_out]
    return {"replies": len(rows), "rule": [list(place) for place in rule], "patients": names, "editors": found}


def table(results: Mapping[str, Any]) -> str:
    """Return a Markdown table of the editors.

    Args:
        results: What ``measure`` returned.
    """
    lines = [f"| chosen by | change of F1 | minus the {RULE} | margin | right / wrong, % | edits |"]
    lines.append("|---|---|---|---|---|---|")
    editors = results["editors"]
    for name, of in editors.items():
        deltas = np.array(of["deltas"])
        gain, beyond = (
            in_points(mean_interval(each, np.random.default_rng(0)))
            for each in (deltas, deltas - editors[RULE]["deltas"])
        )
        margin, right, wrong = (100 * np.mean(of["metrics"][metric]) for metric in METRICS)
        cells = [name, gain, "" if name == RULE else beyond]
        lines.append(f"| {' | '.join(cells)} | {margin:.2f} | {right:.0f} / {wrong:.0f} | {of['edits']} |")
    return "\n".join(lines)


def main(options: Options) -> None:
    """Measure, write the results to a file if one is given, and print the table."""
    training = EpisodeSet.load(options.episodes).of("train")
    rows = by_prompt(tried(training, replies_of(options.cache, options.llm), BertScorer()), training)
    models = ModelOptions(llm=f"local:{options.llm}", llm_dtype="float32")
    calls = CallOptions(cache=str(options.cache))
    results = measure(rows, RealPatients("test", options.episodes, options.run, models, calls))
    if options.json is not None:
        write_json(options.json, results)
    print(", ".join(f"{role} {place}" for role, place in results["rule"]))
    print(table(results))


if __name__ == "__main__":
    main(tyro.cli(Options))
