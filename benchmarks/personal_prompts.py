"""What an ideal editor gains with an LLM: python -m benchmarks.personal_prompts --cohort cohort --episodes prepared.

The letters of a cohort simulated with ``--personal`` remark on some of the patient's values, and the prompts of the
template ``personal`` state all values. So it is known which of them an editor should keep. Here, the LLM replies to
prompts with these values only, and with others in their place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from agents.evaluation.bootstrap import mean_interval
from agents.evaluation.metrics import ReplyMetrics
from agents.report.tables import in_points
from pmlm_env.cohort import read_cohort
from pmlm_env.cohort.schema import Patient, Schema
from pmlm_env.core.episodes import Episode, EpisodeSet
from pmlm_env.io.files import write_json
from pmlm_env.llm import LLMOptions, load_llm
from pmlm_env.prompting import value_slots
from pmlm_env.rewards.bertscore import BertScorer

#: The prompts, in the order of the table, by the values that are left in them.
KEPT = (
    "all",
    "none",
    "others, as many",
    "those that letters remark on most often, as many",
    "those marked low or high",
    "the first in the prompt, as many",
    "those remarked on",
)

#: The best of the rules for everybody that are tried; a template with ``{values:abnormal}`` follows it.
RULE = KEPT[4]

#: The differences in the table, and the prompts that they are from.
BY = {"change": KEPT[0], "personal": RULE}

#: What is compared, with its head in the table; ``echo`` is F1 of the prompt itself as the reply.
COMPARED = {"bertscore_f1": "F1", "echo": "*echo*", "margin": "margin"}

#: What is measured: these, the share of cut replies, and the number of words of the prompt.
METRICS = (*COMPARED, "cut", "prompt_words")


@dataclass(frozen=True)
class Options:
    """Options of the measurement.

    Attributes:
        cohort: The cohort, simulated with ``--personal``.
        episodes: Its folder of ``pmlm prepare --template personal``.
        patients: Number of test patients.
        llm: The LLM.
        cache: Where replies are stored.
        json: Output file.
    """

    cohort: Path
    episodes: Path
    patients: int = 48
    llm: str = LLMOptions().llm
    cache: Path | None = None
    json: Path | None = None


def remarks(patient: Patient) -> list[str]:
    """Return the indicators that a patient's letter remarks on."""
    return [name for name in patient.extra["personal"].split("; ") if name]


def mark_of(episode: Episode, slots: Iterable[int]) -> str:
    """Return the mark of the value that stands in some slots of a prompt: ``"(low)"``, ``"(high)"`` or ``""``."""
    return next((mark for slot in slots if (mark := episode.words[slot].strip(",.")) in ("(low)", "(high)")), "")


def prompts_of(
    episode: Episode, patient: Patient, schema: Schema, often: Sequence[str], rng: np.random.Generator
) -> dict[str, str]:
    """Return a patient's prompts with all values, with none, and with those of some indicators.

    Args:
        episode: The patient's episode.
        patient: The patient, of a cohort with the column ``personal``.
        schema: What the cohort measures.
        often: Indicators, those that letters remark on most often first.
        rng: Draws the other values.
    """

    def slots(names: Collection[str]) -> set[int]:
        return {*value_slots(episode.words, patient, schema, names)}

    stated = [indicator.name for indicator in schema.indicators if slots([indicator.name])]
    own = [name for name in remarks(patient) if name in stated]
    others = [name for name in stated if name not in own]
    drawn = [others[int(i)] for i in rng.permutation(len(others))[: len(own)]]
    usual = [name for name in often if name in stated][: len(own)]
    marked = [name for name in stated if mark_of(episode, slots([name]))]
    first = sorted(stated, key=lambda name: min(slots([name])))[: len(own)]
    every = slots(stated)
    return {
        kept: " ".join(word for slot, word in enumerate(episode.words) if slot not in every - slots(names))
        for kept, names in zip(KEPT, (stated, [], drawn, usual, marked, first, own), strict=True)
    }


def measure(options: Options) -> dict[str, dict[str, list[float]]]:
    """Return the metrics of the replies to each kind of prompt, a value for each patient."""
    cohort, _ = read_cohort(options.cohort)
    patients = {patient.patient_id: patient for patient in cohort}
    episodes = EpisodeSet.load(options.episodes)
    training, test = episodes.of("train"), episodes.of("test")
    counts = Counter(name for episode in training for name in remarks(patients[episode.patient_id]))
    often = [name for name, _ in counts.most_common()]
    rng = np.random.default_rng(0)
    test = test.part(test[int(i)] for i in np.sort(rng.permutation(len(test))[: options.patients]))
    prompts = [prompts_of(each, patients[each.patient_id], cohort.schema, often, rng) for each in test]
    llm = load_llm(options.llm, cache=options.cache)
    replies = {kept: llm.generate([each[kept] for each in prompts]) for kept in KEPT}
    scorer, references = BertScorer(), [episode.reference for episode in test]
    metrics = ReplyMetrics(test, training, scorer)
    found = {}
    for kept in KEPT:
        texts, initial = ([reply.text for reply in replies[each]] for each in (kept, "all"))
        cut = [reply.finish_reason == "length" for reply in replies[kept]]
        values = metrics(texts, [each[kept] for each in prompts], cut, initial)
        values["echo"] = np.array(scorer.f1([each[kept] for each in prompts], references))
        values["prompt_words"] = np.array([len(each[kept].split()) for each in prompts], dtype=np.float64)
        found[kept] = {name: values[name].round(5).tolist() for name in METRICS}
    return found


def table(results: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Return a Markdown table of means, with the changes from all values, and from what the best rule keeps.

    Args:
        results: What ``measure`` returned.
    """
    heads = ("values in the prompt", "words", *(each for name in COMPARED.values() for each in (name, *BY)), "cut, %")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for kept in KEPT:
        values = {name: np.array(column) for name, column in results[kept].items()}
        cells = [kept, f"{values['prompt_words'].mean():.0f}"]
        for metric in COMPARED:
            cells += [f"{100 * values[metric].mean():.2f}"]
            for other in BY.values():
                gain = in_points(mean_interval(values[metric] - results[other][metric], np.random.default_rng(0)))
                cells += ["" if kept == other else gain]
        lines.append(f"| {' | '.join(cells)} | {100 * values['cut'].mean():.0f} |")
    return "\n".join(lines)


def main(options: Options) -> None:
    """Measure, print the table, and write the results to a file if one is given."""
    results = measure(options)
    if options.json is not None:
        write_json(options.json, results)
    print(table(results))


if __name__ == "__main__":
    main(tyro.cli(Options))
