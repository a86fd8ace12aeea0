"""From patients to refined prompts and replies, the paper's Algorithm 1: ``pmlm refine``."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.evaluation.replies import traced
from agents.evaluation.variants import AGENT
from agents.problem import Editor
from agents.run_folder import RunFolder
from agents.serving.config import OUT, RefineConfig
from agents.serving.refine import Refiner, run_of
from agents.serving.replies import editing_llm, is_regular, replies_of, replying_llm
from agents.serving.table import table
from pmlm_env.cohort import Schema
from pmlm_env.cohort.sources.tables import schema_of
from pmlm_env.cohort.wording import named
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.traces import Trace, TracedPeer
from pmlm_env.io.files import locked_file, make_folder, write
from pmlm_env.llm import LLM
from pmlm_env.pipeline.files import pipeline_in
from pmlm_env.pipeline.sent import check_sent
from pmlm_env.rewards.delta import error_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prompts:
    """Initial prompts, with what else is known of their patients.

    Attributes:
        episodes: The prompts.
        more: For each of them, further fields of its trace.
        folder: The prepared folder that they, or the models that made them, are from.
    """

    episodes: EpisodeSet
    more: Sequence[dict[str, Any]]
    folder: Path


def refine(config: RefineConfig) -> list[Trace]:
    """Refine prompts, ask for replies if they are wanted, print a table, and write what is known of each patient.

    Returns:
        A trace of each patient, without scores.

    Raises:
        ValueError: There is no such agent, pipeline, cohort, or patient; the cohort does not match the pipeline, or the
            pipeline the agent; or ``out`` holds something else, or is in use by another command.
        LLMError: The LLM cannot be used at all, for example without a key.
        OSError, DatabaseError: A file cannot be read or written.
    """
    only_prints = not (config.reply or config.out or config.files.cohort)
    out = None if only_prints else config.out or OUT
    if out is not None:
        _check_replaceable(out)
    run = run_of(config.model)
    refiner = Refiner.from_pretrained(
        config.model,
        config.device,
        encoder=config.encoder,
        encoder_kwargs=config.encoder_kwargs,
        protect=config.protect,
        allow_import=config.allow_import,
    )
    if config.editor is not None and refiner.agent.editor is None:
        raise ValueError(f"--editor has no effect: the agent {refiner.agent.name} asks no LLM itself; leave it out")
    prompts = _prepared(config, run) if config.files.cohort is None else _new_patients(config, run)
    alone = locked_file(out) if out is not None and is_regular(out) else nullcontext()
    with alone:
        traces = _traces(config, run, refiner, prompts, out)
    if errors := [trace.error for trace in traces if trace.error]:
        logger.warning(
            "%d of %d patients have no reply, the last because: %s. Run the command again: it asks for these alone",
            *(len(errors), len(traces), errors[-1]),
        )
    return traces


def _traces(
    config: RefineConfig, run: RunFolder | None, refiner: Refiner, prompts: Prompts, out: Path | None
) -> list[Trace]:
    """Refine the prompts, ask for the replies, and write or print what there is."""
    llm, budget = (None, None) if out is None or not config.reply else replying_llm(config, run, out)
    if llm is not None:
        check_sent(prompts.folder, llm, config.calls.send_values)

    def make_editor(editor: Editor) -> LLM:
        made = editing_llm(editor, config, run, out, budget)
        check_sent(prompts.folder, made, config.calls.send_values)
        return made

    refiner.editor = make_editor
    refined = refiner.refine_all(prompts.episodes)
    texts = [each.prompt for each in refined]
    if out is None:
        print("\n".join(" ".join(text.split()) for text in texts))
    replies = [[]] * len(texts) if llm is None else [[reply] for reply in replies_of(llm, texts, config)]
    traces = [
        Trace.of(
            episode,
            run=run.path.resolve().name if run is not None else config.model,
            agent=refiner.agent.name,
            variant=AGENT,
            seed=refiner.agent.seed,
            edits=each.edits,
            prompt=each.prompt,
            initial_reply="",
            replies=traced(reply),
            before={},
            after={},
            reward=None,
            error=error_of(reply),
            **more,
        )
        for episode, each, reply, more in zip(prompts.episodes, refined, replies, prompts.more, strict=True)
    ]
    if out is not None:
        _write(out, traces, with_replies=llm is not None)
    return traces


def _prepared(config: RefineConfig, run: RunFolder | None) -> Prompts:
    """Read prompts that ``pmlm prepare`` made."""
    folder = config.episodes or Path("prepared")
    everybody = EpisodeSet.load(folder)
    split = config.split or "test"
    episodes = everybody.of(split, include_unscored=True)
    _compare(run, everybody, folder)
    if config.patient is not None:
        ids = [episode.patient_id for episode in episodes]
        if config.patient not in ids:
            raise ValueError(f"{folder} has no {split} patient {config.patient}: see its episodes.jsonl")
        index = ids.index(config.patient)
        episodes = episodes[index : index + 1]
    return Prompts(episodes, [{}] * len(episodes), folder)


def _new_patients(config: RefineConfig, run: RunFolder | None) -> Prompts:
    """Predict new patients, find their peers among the training patients, and make their prompts."""
    from pmlm_env.pipeline import Pipeline  # takes seconds, because it imports scikit-learn

    folder = config.pipeline or (None if run is None else run.prepared())
    if folder is None:
        raise ValueError(
            f"{config.model} is not a run folder: name the prepared folder that it was trained on with --pipeline"
        )
    if not pipeline_in(folder).is_dir():
        raise ValueError(
            f"there is no pipeline in {folder}: name the prepared folder that has it with --pipeline, or make it again "
            "with `pmlm prepare`"
        )
    pipeline = Pipeline.load(folder, device=config.device, allow_import=config.allow_import)
    if (folder / "episodes.jsonl").is_file():
        _compare(run, EpisodeSet.load(folder), folder)
    assert config.files.cohort is not None
    _check_schema(config.files.cohort, pipeline.schema)
    cohort, report = config.files.read(pipeline.schema, new_patients=True)
    if config.patient is not None:
        ids = [patient.patient_id for patient in cohort]
        if config.patient not in ids:
            without = config.patient in report.patients_without_checkups
            what = "no laboratory value of patient" if without else "no patient"
            raise ValueError(f"{config.files.cohort} has {what} {config.patient}: see its tables")
        cohort = cohort.take([ids.index(config.patient)])
    found, labels = pipeline.apply(cohort), pipeline.predictor.labels
    more = [
        {
            "probabilities": dict(zip(labels, proba, strict=True)),
            "peers": tuple(TracedPeer(peer.label, peer.patient_id, peer.similarity) for peer in peers),
        }
        for proba, peers in zip(found.probabilities.tolist(), found.peers, strict=True)
    ]
    return Prompts(found.episodes, more, folder)


def _check_schema(cohort: Path, schema: Schema) -> None:
    """Check that a schema in the cohort's folder, if there is one, has the indicators and units of the pipeline's.

    Raises:
        ValueError: It has others, or is not valid.
    """
    if not any((cohort / name).exists() for name in ("schema.toml", "schema.json")):
        return
    own, needed = ({each.name: each.unit for each in it.indicators} for it in (schema_of(cohort), schema))
    if different := [name for name in {**own, **needed} if own.get(name) != needed.get(name)]:
        raise ValueError(
            f"the schema in {cohort} and that of the training patients differ in {named(different)}: new patients need "
            "the indicators and units of the training patients; convert the tables, and remove the schema"
        )


def _compare(run: RunFolder | None, everybody: EpisodeSet, folder: Path) -> None:
    """Warn if the episodes of a prepared folder differ from those that the run was trained on."""
    if run is None:
        return
    try:
        run.check_episodes(everybody.digest)
    except ValueError:
        logger.warning(
            "%s holds other episodes than %s was trained on: its patient vectors may mean other things, for "
            "`pmlm prepare` fits stages 1 and 2 anew",
            folder,
            run.path,
        )


def _check_replaceable(out: Path) -> None:
    """Check that a file does not exist, was written by ``pmlm refine``, or is a pipe or a device.

    Raises:
        ValueError: It holds something else.
    """
    if out.is_dir():
        raise ValueError(f"{out} is a folder: name the file to write")
    if not out.is_file():
        return
    with out.open("rb") as file:
        first = file.readline()
    try:
        # The first trace of an evaluation is that of another variant, an unedited prompt.
        if not first or (
            {"patient_id", "prompt", "edits"} <= (content := json.loads(first)).keys()
            and content.get("variant", AGENT) == AGENT
        ):
            return
    except (ValueError, AttributeError, RecursionError):
        pass
    raise ValueError(f"{out} is not a file that pmlm refine wrote: choose another --out")


def _write(out: Path, traces: Sequence[Trace], with_replies: bool) -> None:
    """Write the traces, and print a table of them and where they are."""
    make_folder(out.parent)
    write(out, "".join(trace.to_json() + "\n" for trace in traces))
    if not is_regular(out):
        return
    print(table(traces, with_replies))
    kept = sum(reply.cached is True for trace in traces for reply in trace.replies)
    old = f" ({kept} of them from the cache)" if kept else ""
    more = f", edits, and replies{old}" if with_replies else " and edits"
    print(f"\n{out} has all of it (patients: {len(traces)}): probabilities, peers, prompts before and after{more}.")
    print(f"One patient, with the whole prompt: pmlm show --refined {shlex.quote(str(out))} --patient ID")
