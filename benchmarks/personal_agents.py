"""What agents find of what is personal: python -m benchmarks.personal_agents --cohort cohort --episodes prepared.

The letters of a cohort simulated with ``--personal`` remark on some of the patient's values, and the prompts of the
template ``personal`` state all values. Agents may delete words of the sentences with the prediction and the values
only, so that it is known what an ideal editor does: it keeps the values that the letter remarks on. By default the
reply is an echo of the prompt: replies cost nothing, and what is measured is what agents find, not what an LLM makes of
it. With ``--judge``, an LLM replies to the prompts of the test patients.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tyro
from tqdm import tqdm

from agents import registry
from agents.base import Edits
from agents.benchmark.config import check_identity
from agents.benchmark.patients import RealPatients
from agents.evaluation.aggregate import crossed_bootstrap
from agents.model_options import CallOptions, ModelOptions
from agents.report.tables import in_points
from benchmarks.personal_prompts import mark_of, remarks
from pmlm_env.cohort import read_cohort
from pmlm_env.cohort.schema import Patient, Schema
from pmlm_env.core.edits import EditRules, Prompts, deletions, kept_after
from pmlm_env.core.episodes import Episode
from pmlm_env.io.files import write_json
from pmlm_env.llm import LLM, Completion, Reply, Request
from pmlm_env.prompting import value_slots

#: Words of these roles are protected. The others are the sentences with the prediction and the values.
PROTECT = ("background", "peer", "instruction")

#: The edit budget, as a share of a prompt's words.
N_EDITS = 0.5

#: Editors that know what agents have to find, by the values that they keep: those that training patients' letters
#: remark on most often, the same for everybody; those that they do by name and mark; and those that the letter does.
RULE, MARKS, IDEAL = "the rule of 8", "6 by name and mark", "those remarked on"

#: Weight of an indicator's own frequency in that of the indicator with a mark, in patients.
_PRIOR = 4


class Echo(LLM):
    """Replies with the prompt itself."""

    identity = "echo"
    is_remote = False

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        """Reply to each request with its prompt."""
        yield {index: Completion(request.prompt, 0, 0, "stop") for index, request in enumerate(requests)}


@dataclass(frozen=True)
class Options:
    """Options of the measurement.

    Attributes:
        cohort: The cohort, simulated with ``--personal``.
        episodes: Its folder of ``pmlm prepare --template personal``.
        agents: The agents.
        budget: Completions for fitting; each budget is a separate run.
        seeds: Number of seeds of each agent.
        encoder: The word encoder of agents that need one. ``minilm`` encodes these long prompts again after each of
            many deletions, which without a GPU takes more time than everything else.
        llm: The LLM that replies when agents are fitted.
        judge: The LLM that replies to the test patients' edited prompts; by default the same one.
        run: Folder for the replies.
        json: Output file; runs that it has are not repeated.
    """

    cohort: Path
    episodes: Path
    agents: tuple[str, ...] = ("random-n", "single-rule", "phrase-rule", "surrogate", "lexicon", "tree-surrogate")
    budget: tuple[int, ...] = (300, 2_000)
    seeds: int = 3
    encoder: str = "once"
    llm: str = "benchmarks.personal_agents:Echo"
    judge: str | None = None
    run: Path = Path("runs/personal")
    json: Path = Path("personal_agents.json")


class Value(NamedTuple):
    """A value that a prompt states.

    Attributes:
        slots: Its words.
        mark: ``"(low)"``, ``"(high)"`` or ``""``.
    """

    slots: frozenset[int]
    mark: str


class Truth(NamedTuple):
    """What is known of a patient's prompt.

    Attributes:
        values: The values that it states, by indicator.
        own: The indicators among them that the patient's letter remarks on.
    """

    values: Mapping[str, Value]
    own: frozenset[str]

    def slots(self, names: Iterable[str]) -> frozenset[int]:
        """Return the words of the values of some indicators."""
        return frozenset(slot for name in names for slot in self.values[name].slots)


def truth_of(episode: Episode, patient: Patient, schema: Schema) -> Truth:
    """Return what is known of a patient's prompt.

    Args:
        episode: The patient's episode.
        patient: The patient, of a cohort with the column ``personal``.
        schema: What the cohort measures.
    """
    values = {}
    for indicator in schema.indicators:
        slots = value_slots(episode.words, patient, schema, [indicator.name])
        if slots:
            values[indicator.name] = Value(frozenset(slots), mark_of(episode, slots))
    return Truth(values, frozenset(remarks(patient)) & values.keys())


def known_editors(training: Sequence[Truth], test: Sequence[Truth]) -> dict[str, list[frozenset[int]]]:
    """Return the words that ``RULE``, ``MARKS`` and ``IDEAL`` delete from each test prompt.

    Args:
        training: What is known of the training patients' prompts.
        test: What is known of the test patients' prompts.
    """
    stated: Counter[tuple[str, str | None]] = Counter()
    remarked: Counter[tuple[str, str | None]] = Counter()
    for each in training:
        for name, value in each.values.items():
            keys = [(name, None), (name, value.mark)]
            stated.update(keys)
            remarked.update(keys if name in each.own else ())

    def often(name: str, mark: str | None = None) -> float:
        share = remarked[name, None] / max(1, stated[name, None])
        return share if mark is None else (remarked[name, mark] + _PRIOR * share) / (stated[name, mark] + _PRIOR)

    found: dict[str, list[frozenset[int]]] = {RULE: [], MARKS: [], IDEAL: []}
    for each in test:
        usual = sorted(each.values, key=often, reverse=True)
        marked = sorted(each.values, key=lambda name: often(name, each.values[name].mark), reverse=True)
        for editor, kept in ((RULE, usual[:8]), (MARKS, marked[:6]), (IDEAL, each.own)):
            found[editor].append(each.slots(each.values) - each.slots(kept))
    return found


def with_values_of(truth: Truth, gone: Iterable[int], other: Truth, others_gone: Collection[int]) -> frozenset[int]:
    """Return what an editor deletes from a prompt, but of each value what it deletes of another patient's.

    If that is worth as much, what the editor does to the values is not personal.

    Args:
        truth: What is known of the prompt.
        gone: What the editor deletes from it.
        other: What is known of the other patient's prompt.
        others_gone: What the editor deletes from that.
    """
    shared = truth.values.keys() & other.values.keys()
    found = {*gone} - truth.slots(shared)
    for name in shared:
        slots, others = sorted(truth.values[name].slots), sorted(other.values[name].slots)
        found |= {slot for number, slot in enumerate(slots) if others[min(number, len(others) - 1)] in others_gone}
    return frozenset(found)


class PersonalPatients:
    """The patients, what is known of their prompts, and what deletions from the test patients' prompts earn.

    Args:
        options: The options.
    """

    def __init__(self, options: Options) -> None:
        """Read the cohort and the prompts."""
        cohort, _ = read_cohort(options.cohort)
        known = {patient.patient_id: patient for patient in cohort}
        models = ModelOptions(
            llm=options.llm, encoder=options.encoder, n_edits=N_EDITS, protect=PROTECT, long_texts="chunks"
        )
        self.patients = self.judge = RealPatients("test", options.episodes, options.run, models, CallOptions())
        if options.judge is not None:
            in_float32 = options.judge.startswith("local:")  # hardly any replies then depend on the batch
            models = replace(models, llm=options.judge, llm_dtype="float32" if in_float32 else "auto")
            self.judge = RealPatients("test", options.episodes, options.run / "judge", models, CallOptions())
        self.training, self.test = (
            [truth_of(episode, known[episode.patient_id], cohort.schema) for episode in episodes]
            for episodes in (self.patients.train, self.patients.held_out)
        )

    @property
    def identity(self) -> dict[str, Any]:
        """Everything besides the agents and their encoder that determines the results."""
        same, judge = self.judge is self.patients, self.judge.identity
        kept = {} if same else {f"judge_{name}": judge[name] for name in judge if name.startswith("llm")}
        return {name: value for name, value in (self.patients.identity | kept).items() if name != "encoder"}

    @contextmanager
    def working(self) -> Iterator[None]:
        """Lock the folders with the replies."""
        with ExitStack() as stack:
            for patients in dict.fromkeys((self.patients, self.judge)):
                stack.enter_context(patients.working())
            yield

    def known(self, editor: str) -> dict[str, Any]:
        """Return what an editor of ``known_editors`` earns with as many deletions as the edit budget allows."""
        slots = known_editors(self.training, self.test)[editor]
        budgets = EditRules(N_EDITS).budgets(self.patients.held_out.lengths).tolist()
        return self._judged([tuple(sorted(gone)[:most]) for gone, most in zip(slots, budgets, strict=True)])

    def fitted(self, name: str, budget: int, seed: int) -> dict[str, Any]:
        """Fit an agent, and return what it earns."""
        edits = self.patients.refined(registry.make(name, seed=seed), budget, N_EDITS)
        return self._judged([tuple(edit.slot for edit in each) for each in edits])

    def _judged(self, deleted: Sequence[tuple[int, ...]]) -> dict[str, Any]:
        """Return the change of F1, also with other patients' values, the margin, and the shares of words kept."""
        judged = self.judge.judged(self._edits(deleted))
        kept: dict[str, list[float]] = {"right": [], "other": []}
        for truth, gone in zip(self.test, deleted, strict=True):
            for key, names in (("right", truth.own), ("other", truth.values.keys() - truth.own)):
                slots = truth.slots(names)
                if slots:
                    kept[key].append(len(slots.difference(gone)) / len(slots))
        return {
            "deltas": judged["deltas"],
            "swapped": self._swapped(deleted).round(6).tolist(),
            "margin": judged["metrics"]["margin"],
            "edits": judged["edits"],
            "deleted": round(float(np.mean([*map(len, deleted)])), 5),
            **{key: round(float(np.mean(shares)), 5) for key, shares in kept.items()},
        }

    def _swapped(self, deleted: Sequence[tuple[int, ...]]) -> npt.NDArray[np.float64]:
        """Return the change of F1 with the values of other patients, however many words are then deleted."""
        order = np.random.default_rng(0).permutation(len(deleted))
        others = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))  # nobody gets their own
        swapped = [
            sorted(with_values_of(self.test[i], gone, self.test[others[i]], deleted[others[i]]))
            for i, gone in enumerate(deleted)
        ]
        test, every = self.patients.held_out, range(len(deleted))
        prompts = Prompts(test, every, kept_after(test, every, self._edits(swapped)))
        return self.judge.earned([reply.text for (reply,) in self.judge.replies(list(prompts))])

    def _edits(self, deleted: Iterable[Sequence[int]]) -> Edits:
        return [deletions(episode, gone) for episode, gone in zip(self.patients.held_out, deleted, strict=True)]


def measure(options: Options) -> dict[str, Any]:
    """Do the runs that the output file lacks, and return its content.

    Returns:
        ``about``: the identity of the patients and models; ``runs``: all runs by editor, number of calls and seed.

    Raises:
        ValueError: The file has runs with other patients or another LLM.
    """
    runs = {key_of(name, 0, 0): (name, 0, 0) for name in (RULE, MARKS, IDEAL)}
    for name, budget, seed in product(options.agents, options.budget, range(options.seeds)):
        kind = registry.class_of(name)
        label = f"{name} ({options.encoder})" if kind.needs_embeddings else name
        calls, number = budget if kind.learns else 0, seed if kind.seeded else 0
        runs[key_of(label, calls, number)] = (name, calls, number)
    patients = PersonalPatients(options)
    found: dict[str, Any] = {"about": patients.identity, "runs": {}}
    if options.json.is_file():
        kept = json.loads(options.json.read_text(encoding="utf-8"))
        check_identity(options.json, kept["about"], found["about"])
        found["runs"] = kept["runs"]
    missing = [key for key in runs if key not in found["runs"]]
    with patients.working():
        for key in tqdm(missing, unit="run"):
            name, budget, seed = runs[key]
            is_known = name in (RULE, MARKS, IDEAL)
            found["runs"][key] = patients.known(name) if is_known else patients.fitted(name, budget, seed)
            write_json(options.json, found)
    return found


def key_of(name: str, budget: int, seed: int) -> str:
    """Return the name of a run in the output file."""
    return f"{name}, {budget} calls, seed {seed}"


def table(found: Mapping[str, Any]) -> str:
    """Return a Markdown table of all runs, with intervals over patients and seeds, the best editors first.

    Args:
        found: What ``measure`` returned.
    """
    heads = ["values kept, or agent", "calls", "change of F1", f"minus {RULE}", "minus another patient's values"]
    heads += ["margin", "words deleted", "of right values kept, %", "of others kept, %", "edits", "seeds"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for key, run in found["runs"].items():
        name, calls, _ = key.rsplit(", ", 2)
        groups.setdefault((name, calls.removesuffix(" calls")), []).append(run)
    rule = np.array(found["runs"][key_of(RULE, 0, 0)]["deltas"])
    rows = []
    for (name, calls), runs in groups.items():
        deltas, swapped = (np.array([run[key] for run in runs]) for key in ("deltas", "swapped"))
        gain, beyond, own = (
            in_points(crossed_bootstrap(each, np.random.default_rng(0)))
            for each in (deltas, deltas - rule, deltas - swapped)
        )
        margin, right, other = (100 * np.mean([run[key] for run in runs]) for key in ("margin", "right", "other"))
        deleted, edits = (np.mean([run[key] for run in runs]) for key in ("deleted", "edits"))
        cells = [name, "-" if calls == "0" else f"{int(calls):,}", gain, "" if name == RULE else beyond, own]
        cells += [f"{margin:.2f}", f"{deleted:.0f}", f"{right:.0f}", f"{other:.0f}", f"{edits:.0f}", str(len(runs))]
        rows.append((-deltas.mean(), f"| {' | '.join(cells)} |"))
    return "\n".join([*lines, *(line for _, line in sorted(rows))])


def main(options: Options) -> None:
    """Measure, and print the table."""
    print(table(measure(options)))


if __name__ == "__main__":
    main(tyro.cli(Options))
