"""How well a fine-tuned LLM predicts labels: python -m benchmarks.lora_llm --json FILE.

It learns from some of the simulated cohort's training patients and predicts its test patients, as does the predictor
that is the default. Interrupted, it goes on where it was; the time of the part before is then missing.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from agents.settings import plain
from pmlm_env.cohort import split_by_date
from pmlm_env.cohort.simulator import Signal, simulate_cohort
from pmlm_env.io.checked_files import read_object
from pmlm_env.io.files import write_json
from pmlm_env.predictors import BoostedTrees, Predictor, evaluate
from pmlm_env.predictors.lora_llm import LoraLLM


@dataclass(frozen=True)
class Options:
    """Options of this benchmark.

    Attributes:
        json: File to add the result to.
        signal: How well labels can be told apart; see ``pmlm simulate``.
        model: The LLM.
        template: The prompt.
        max_tokens: Maximum number of tokens of a prompt with its answer.
        patients: Number of training patients to learn from.
        epochs: Maximum number of epochs.
        learning_rate: The highest learning rate.
        seed: Of the patients to learn from, and of the training. The cohort is always that of seed 0.
    """

    json: Path | None = None
    signal: Signal = "paper"
    model: str = "smollm2-135m"
    template: str = "predict"
    max_tokens: int = 800
    patients: int = 600
    epochs: int = 3
    learning_rate: float = 1e-4
    seed: int = 0


def main(options: Options) -> None:
    """Fit, predict, print, and write."""
    split = split_by_date(simulate_cohort(signal=options.signal))
    llm = LoraLLM(
        options.seed,
        model=options.model,
        template=options.template,
        max_tokens=options.max_tokens,
        max_patients=options.patients,
        n_epochs=options.epochs,
        learning_rate=options.learning_rate,
    )
    drawn = np.random.default_rng(options.seed).permutation(len(split.train))[: options.patients]
    result: dict[str, Any] = {"options": {**plain(options), "json": None}}
    models: dict[str, Predictor] = {"lora-llm": llm, "boosted-trees": BoostedTrees(options.seed)}
    for name, predictor in models.items():
        seconds = [time.process_time()]
        predictor.fit(split.train if predictor is llm else split.train.take(drawn))
        seconds.append(time.process_time())
        proba = predictor.predict_proba(split.test)
        seconds.append(time.process_time())
        report = evaluate(proba, predictor.labels, split.test.y, split.train.y)
        result[name] = {
            "report": asdict(report),
            "cpu_seconds": {"fit": seconds[1] - seconds[0], "predict": seconds[2] - seconds[1]},
        }
        print(f"{name}: {report}; {result[name]['cpu_seconds']}", flush=True)
    if options.json is not None:
        earlier = read_object(options.json)["results"] if options.json.exists() else []
        write_json(options.json, {"results": [*earlier, result]})


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
