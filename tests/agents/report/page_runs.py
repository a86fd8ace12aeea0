"""Run folders of made-up patients, as `pmlm evaluate` leaves them, for tests of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from agents.evaluation.controls import CONTROLS
from agents.evaluation.metrics import METRICS
from agents.evaluation.variants import AGENT, KEEP_ALL, RANDOM, evaluation_of
from agents.run_folder import RunFolder
from agents.settings import plain
from agents.training.config import TrainConfig
from pmlm_env.core.edits import Edit
from pmlm_env.core.episodes import Episode, EpisodeSet
from pmlm_env.core.labels import Label
from pmlm_env.core.traces import Trace, TracedReply
from pmlm_env.core.words import joined
from pmlm_env.io.files import write_json
from pmlm_env.llm.base import Completion, Request
from pmlm_env.llm.responder import Responder
from pmlm_env.llm.storage.cache import ReplyCache

LABELS = ("gestational diabetes", "thalassemia", "uterine scar")
ALIASES = (Label("gestational diabetes", ("GDM",)), Label("thalassemia"), Label("uterine scar"))

_FORM = (
    "Write the discharge note that her obstetrician would write, in a single paragraph of four sentences. Sentence one "
    'is "Discharge diagnosis:" and the condition. Sentences two and three say how the pregnancy and the delivery went '
    'and what the examinations showed. Sentence four is "Advice:" and two or three short instructions.'
)


def make_patients(n: int) -> EpisodeSet:
    """Prompts of the length of the default template's, and doctors' replies; P0 has gestational diabetes."""
    rng = np.random.default_rng(0)
    episodes = []
    for i in range(n):
        label, other = LABELS[i % 3], LABELS[(i + 1) % 3]
        parts = {
            "background": "A pregnant woman leaves hospital today.",
            "self": f"Her laboratory tests suggest {label}.",
            "peer": f"Of 10 similar past patients, 7 of 10 had {label}, 3 of 10 had {other}.",
            "instruction": _FORM,
        }
        words = [(word, role) for role, text in parts.items() for word in text.split()]
        reference = f"Diagnosis at discharge: {label}. " + " ".join(
            f"The examination of week {rng.integers(20, 40)} showed {rng.integers(50, 200)} g/L and no other finding."
            for _ in range(5)
        )
        episodes.append(
            Episode(
                patient_id=f"P{i}",
                split="test",
                words=tuple(word for word, _ in words),
                roles=tuple(role for _, role in words),  # type: ignore[misc]
                vector=rng.normal(size=8).astype(np.float32),
                reference=reference,
                label=label,
                predicted=label if i % 4 else other,
                peers=(label,) * 7 + (other,) * 3,
            )
        )
    return EpisodeSet(episodes, ALIASES)


def edited(episode: Episode, slots: Sequence[int], variant: str, reply: str, f1: float, **more: Any) -> Trace:
    """A trace of some deletions, each with a probability of 25 %; F1 of the untouched prompt's reply is 0.6."""
    initial = f"Discharge diagnosis: {episode.predicted}. Advice: rest and drink water."
    middle: dict[str, Any] = dict.fromkeys(METRICS, 0.5)
    names = {"diagnosis_named": float(episode.label in reply), "words": float(len(reply.split()))}
    others = any(label in reply for label in LABELS if label != episode.label)
    before = {**middle, "bertscore_f1": 0.6, "diagnosis_named": float(episode.label in initial)}
    before["wrong_diagnosis_named"] = float(episode.label not in initial)
    values: dict[str, Any] = {
        "edits": tuple(Edit("delete", slot, episode.words[slot], 0.25) for slot in slots),
        "prompt": joined(episode.words, episode.spaces, [i not in slots for i in range(len(episode.words))]),
        "initial_reply": initial,
        "replies": (TracedReply(reply, 90, 40, "stop", False),),
        "before": before,
        "after": {**middle, **names, "bertscore_f1": f1, "wrong_diagnosis_named": float(others)},
        "reward": f1 - 0.6,
        **more,
    }
    return Trace.of(episode, run="mine", agent="lexicon", variant=variant, seed=0, **values)


def traces_of(patients: EpisodeSet, slots: int = 10) -> list[Trace]:
    """An evaluation in which the agent deletes a patient's first words in turn, and helps every second patient."""
    traces = []
    rng = np.random.default_rng(1)
    for i, episode in enumerate(patients):
        initial = f"Discharge diagnosis: {episode.predicted}. Advice: rest and drink water."
        traces.append(edited(episode, (), KEEP_ALL, initial, 0.6, after=None))
        traces[-1] = replace(traces[-1], after=traces[-1].before, reward=0.0)
        better = f"Discharge diagnosis: {episode.label}. The examination showed no other finding. Advice: rest."
        f1 = 0.6 + (0.02 if i % 2 == 0 else -0.01) + 0.0002 * i
        traces.append(edited(episode, range(1, slots + 1), AGENT, better, f1))
        random = sorted(rng.permutation(len(episode.words))[:slots].tolist())
        traces.append(edited(episode, random, RANDOM, f"{better} Come again in {i} weeks.", 0.58))
        traces += [edited(episode, (), name, f"{name}: {episode.reference}", 0.7) for name in CONTROLS]
    return traces


def write_run(folder: Path, patients: EpisodeSet, traces: Sequence[Trace], **models: Any) -> Path:
    """Write a run folder with an evaluation of these traces, and a prepared folder beside it."""
    prepared = folder.with_name(f"{folder.name}-prepared")
    patients.save(prepared)
    run = RunFolder(folder)
    folder.mkdir()
    config = TrainConfig(prepared, folder, "lexicon", budget=120)
    config = replace(config, models=replace(config.models, llm="responder", **models))
    run.start(config, Responder().identity, patients.digest)
    for update in range(1, 5):
        line = {"update": update, "deltas": [0.01 * update] * 12, "failed": 0, "llm_calls": 20 * update}
        shares = {f"share_{name}": 0.1 for name in ("llm", "encoder", "scorer", "models")}
        run.append_metrics({**line, **shares, "budget_spent": 20 * update})
    run.traces.append(traces)
    about = {"agent": "lexicon", "split": "test", "seed": 0, "updates": 4, "budget_spent": 80}
    found = {**about, "without_label_or_reference": 0, **evaluation_of(traces, 0), "models": plain(config.models)}
    write_json(run.evaluation, found)
    return folder


def keep_reply(run: Path, prompt: str, reply: str, identity: str | None = None) -> None:
    """Add a reply to the run's cache, as a run that asked this prompt would."""
    cache = ReplyCache(RunFolder(run).replies)
    cache.put(identity or Responder().identity, {Request(prompt): Completion(reply, 90, 20, "stop", "responder")})
    cache.close()
