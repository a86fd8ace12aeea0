"""Peers' agreement for each patient encoder: python -m benchmarks.patient_encoders --json FILE.

The share of a test patient's ten peers who have the patient's label, on simulated cohorts of the paper's size. Peers
are training patients. For encoders that an agent learns (``patient_vector`` "learned"), the agent is trained on the
training patients' prompts with the rule-based LLM ``responder`` and BERTScore. Its words are embedded by their hashes,
which costs next to nothing, so these figures say nothing about the agent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import tyro
from tqdm import tqdm

from agents import registry
from agents.base import StepwiseAgent
from agents.benchmark.config import check_identity
from agents.evaluation.aggregate import nested_resamples
from agents.evaluation.bootstrap import Interval
from agents.model_options import ModelOptions
from agents.models import RunModels
from agents.problem import BudgetSpentError, MeteredReward
from agents.report.tables import in_points
from pmlm_env.cohort import Cohort, split_by_date
from pmlm_env.cohort.simulator import Signal, simulate_cohort
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.io.files import write_json
from pmlm_env.pipeline import PipelineConfig, build_episodes
from pmlm_env.predictors.inputs import InputScaler
from pmlm_env.retrieval import CosineRetriever, PatientEncoder, SummaryEncoder

K = 10

#: Agents that learn an encoder, with changed settings; the settings for embeddings without context are those for Lite.
AGENTS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "learned, leave-one-out": ("leave-one-out", {"patient_vector": "learned"}),
    "learned, reinforce": ("reinforce", {"patient_vector": "learned"}),
}

#: The row of the network that the agents learn, before they have learned anything.
RANDOM_WEIGHTS = "random weights"

_N_RESAMPLES = 5_000

#: Embeds words at next to no cost.
WORDS = "pmlm_env.encoders.hashed:HashedEncoder"

#: Returns the vectors of patients.
Encode = Callable[[Cohort], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Options:
    """Options of this benchmark.

    Attributes:
        json: File of each patient's share of peers; what it contains is not repeated.
        signals: How well labels can be told apart; see ``pmlm simulate``.
        seeds: Number of seeds, from 0: of the cohort, the encoders and the agents.
        patients: Number of simulated patients.
        budget: Number of completions that an agent learns from.
    """

    json: Path | None = None
    signals: tuple[Signal, ...] = ("paper", "literature")
    seeds: int = 3
    patients: int = 2_373
    budget: int = 2_000


def shares(encode: Encode, train: Cohort, test: Cohort) -> list[float]:
    """Return the share of each test patient's peers who have the patient's label."""
    retriever = CosineRetriever(encode(train), [patient.patient_id for patient in train], train.y.tolist())
    found = retriever.peers(encode(test), [patient.patient_id for patient in test], K)
    return [sum(peer.label == own.label for peer in peers) / K for own, peers in zip(test, found, strict=True)]


def learned(name: str, episodes: EpisodeSet, budget: int, seed: int) -> tuple[PatientEncoder, PatientEncoder]:
    """Return the encoder of an agent before and after it has learned from training patients' prompts."""
    key, settings = AGENTS[name]
    agent = registry.make(key, registry.settings_of(key, "lite", settings), seed)
    assert isinstance(agent, StepwiseAgent)
    models = RunModels(ModelOptions(llm="responder", encoder=WORDS, device="cpu"))
    problem = models.problem(episodes, MeteredReward(models.reward(episodes), budget))
    agent.begin(problem)
    before = agent.patient_encoder(episodes)
    with suppress(BudgetSpentError):
        while agent.update() is not None:
            pass
    after = agent.patient_encoder(episodes)
    assert before is not None
    assert after is not None
    return before, after


def measured(signal: Signal, seed: int, options: Options) -> dict[str, list[float]]:
    """Return each test patient's share of peers with the patient's label, by encoder."""
    cohort = simulate_cohort(options.patients, signal=signal, seed=seed)
    split = split_by_date(cohort)
    train, test = (part.take(np.flatnonzero(part.y != "")) for part in (split.train, split.test))
    everybody, _, pipeline = build_episodes(cohort, PipelineConfig(n_folds=2), seed=seed, device="cpu")
    episodes = everybody.of("train")
    scaler = InputScaler.fit(train)
    encoders: dict[str, Encode] = {
        "labels": pipeline.encoder.encode,
        "summaries": SummaryEncoder.fit(train).encode,
        "padded check-ups": lambda patients: scaler.pad(patients).reshape(len(patients), -1),
    }
    for name in AGENTS:
        before, after = learned(name, episodes, options.budget, seed)
        encoders[RANDOM_WEIGHTS] = before.encode
        encoders[name] = after.encode
    found = {name: shares(encode, train, test) for name, encode in encoders.items()}
    return {**found, "drawn at random": [float(np.mean(train.y == patient.label)) for patient in test]}


def table(found: Mapping[str, Mapping[str, list[list[float]]]], n_seeds: int) -> str:
    """Return a Markdown table of the first seeds' agreement in %; intervals resample seeds, and patients within each.

    Below it stand the differences of what agents learned to the weights with which the last of them began, paired by
    patient.
    """
    rows: dict[str, tuple[str, str | None]] = {name: (name, None) for name in next(iter(found.values()))}
    rows |= {f"{name}, minus {RANDOM_WEIGHTS}": (name, RANDOM_WEIGHTS) for name in AGENTS}
    rng = np.random.default_rng(0)
    lines = [f"| encoder | {' | '.join(found)} |", "|---" * (1 + len(found)) + "|"]
    for row, (name, other) in rows.items():
        cells = []
        for by_encoder in found.values():
            runs = [np.array(run) for run in by_encoder[name][:n_seeds]]
            if other is not None:
                runs = [run - np.array(base) for run, base in zip(runs, by_encoder[other][:n_seeds], strict=True)]
            cell = in_points(nested_bootstrap(runs, rng))
            cells.append(cell if other else cell.replace("+", ""))
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def nested_bootstrap(runs: Sequence[npt.NDArray[np.float64]], rng: np.random.Generator) -> Interval:
    """Return the mean of the seeds' means with a 95 % interval, where each seed has other patients.

    Args:
        runs: One value for each patient of a seed, float64.
        rng: Draws the resamples: seeds, and patients within each.
    """
    means = np.array([rng.choice(run, (_N_RESAMPLES, len(run))).mean(axis=1) for run in runs])
    low, high = np.quantile(nested_resamples(means, rng), [0.025, 0.975])
    return Interval(float(np.mean([run.mean() for run in runs])), float(low), float(high))


def main(options: Options) -> None:
    """Measure all encoders and print a table."""
    torch.set_num_threads(1)
    about = {"patients": options.patients, "budget": options.budget, "k": K}
    found: dict[str, dict[str, list[list[float]]]] = {}
    if options.json and options.json.is_file():
        content = json.loads(options.json.read_text(encoding="utf-8"))
        check_identity(options.json, content["about"], about)
        found = content["shares"]
    with tqdm(total=options.seeds * len(options.signals), unit="cohort") as bar:
        for seed in range(options.seeds):
            for signal in options.signals:
                of_signal = found.setdefault(signal, {})
                if len(of_signal.get("labels", [])) <= seed:
                    for name, values in measured(signal, seed, options).items():
                        of_signal.setdefault(name, []).append([round(value, 4) for value in values])
                    if options.json:
                        write_json(options.json, {"about": about, "shares": found})
                bar.update()
    print(f"{options.seeds} seeds, {K} peers among the training patients of {options.patients:,} simulated patients")
    print(table({signal: found[signal] for signal in options.signals}, options.seeds))


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.OmitArgPrefixes,)))
