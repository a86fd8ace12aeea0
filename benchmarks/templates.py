"""Compare templates and LLMs by the replies to unedited prompts: `python -m benchmarks.templates --help`.

An LLM and template qualify as default if the replies have a higher F1 than an echo of the prompt, its facts alone and
the bare label, and a higher margin than the echo, each with a 95 % interval above zero.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from agents.cli.reading import CONSTRUCTORS
from agents.evaluation.bootstrap import FEWEST, Interval, mean_interval
from agents.evaluation.bounds import bounds_of
from agents.evaluation.controls import control_replies
from agents.evaluation.metrics import ReplyMetrics
from agents.model_options import CallOptions, ModelOptions
from agents.models import RunModels
from agents.problem import blind
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.llm.base import Request, all_or_error

#: (control, metric): each control must be exceeded in the metric.
REQUIREMENTS = (("echo", "bertscore_f1"), ("facts", "bertscore_f1"), ("label", "bertscore_f1"), ("echo", "margin"))


@dataclass(frozen=True)
class Config:
    """Request replies to the unedited prompts of prepared folders, one folder per template, and print a row for each.

    Attributes:
        folders: Written by ``pmlm prepare --template NAME --max-train 24 --max-validation 24 --max-test 0``; test
            patients are ignored.
        models: The LLM and the scorer.
        calls: How the LLM is called.
        json: Additional output file.
    """

    folders: tyro.conf.Positional[tuple[Path, ...]]
    models: ModelOptions = field(default_factory=ModelOptions)
    calls: CallOptions = field(default_factory=CallOptions)
    json: Path | None = None


def judge(folder: Path, models: RunModels) -> dict[str, Any]:
    """Return the metrics of one template, in points or percent except for numbers of words.

    Raises:
        SystemExit: There are too few patients for intervals.
    """
    everybody = EpisodeSet.load(folder)
    training = everybody.of("train")
    others = [episode for episode in everybody if episode.split != "test"]
    episodes = everybody.part(others)
    if len(episodes) < FEWEST:
        raise SystemExit(f"{folder} has {len(episodes)} patients, too few for an interval: prepare {FEWEST} or more")
    prompts = [episode.prompt for episode in episodes]
    replies = all_or_error(models.llm.ask([Request(prompt) for prompt in prompts]))
    metrics = ReplyMetrics(episodes, training, models.scorer)
    values = metrics([r.text for r in replies], prompts, [r.finish_reason == "length" for r in replies])
    controls = control_replies(blind(episodes), training, models.scorer.f1)
    control_values = {name: metrics(controls[name], prompts) for name in ("echo", "facts", "label")}
    settings = json.loads((folder / "report.json").read_text(encoding="utf-8"))["settings"]
    over = {f"{name} {key}": _interval(values[key] - control_values[name][key]) for name, key in REQUIREMENTS}
    return {
        "template": Path(settings["pipeline"]["template"]).stem,
        "llm": models.options.llm,
        "patients": len(episodes),
        "prompt words": float(np.mean([len(prompt.split()) for prompt in prompts])),
        "f1": _interval(values["bertscore_f1"], bounds_of("bertscore_f1")),
        "margin": _interval(values["margin"], bounds_of("margin")),
        "right": 100 * values["diagnosis_named"].mean(),
        "wrong": 100 * values["wrong_diagnosis_named"].mean(),
        "copy": 100 * values["copy"].mean(),
        "words": values["words"].mean(),
        "cut": 100 * values["cut"].mean(),
        "over": over,
        "may be the default": all(interval[1] > 0 for interval in over.values()),
    }


def _interval(values: np.ndarray, bounds: tuple[float, float] = (-1.0, 1.0)) -> list[float]:
    found: Interval = mean_interval(values, np.random.default_rng(0)).within(*bounds)
    return [100 * value for value in (found.mean, found.low, found.high) if value is not None]


def main(config: Config) -> None:
    """Print a Markdown table with one row per folder."""
    models = RunModels(config.models, config.calls)
    heads = ["template", "words in", "F1", "margin", "right / wrong, %", "copy", "words out", "cut, %"]
    heads += ["F1 over echo", "F1 over facts", "F1 over label", "margin over echo"]
    print("| " + " | ".join([*heads, "may be the default"]) + " |")
    print("| " + " | ".join(["---", *["---:"] * len(heads)]) + " |")
    rows = []
    for folder in config.folders:
        rows.append(row := judge(folder, models))
        named = f"{row['right']:.0f} / {row['wrong']:.0f}"
        cells = [row["template"], f"{row['prompt words']:.0f}", _text(row["f1"]), _text(row["margin"]), named]
        cells += [f"{row['copy']:.1f}", f"{row['words']:.0f}", f"{row['cut']:.0f}"]
        cells += [_text(interval, "+") for interval in row["over"].values()]
        cells.append("yes" if row["may be the default"] else "no")
        print("| " + " | ".join(cells) + " |", flush=True)
    if config.json is not None:
        config.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _text(interval: list[float], sign: str = "") -> str:
    mean, low, high = (f"{value:{sign}.2f}" for value in interval)
    return f"{mean} [{low}, {high}]"


if __name__ == "__main__":
    with CONSTRUCTORS:
        parsed = tyro.cli(Config, config=(tyro.conf.OmitArgPrefixes,))
    main(parsed)
