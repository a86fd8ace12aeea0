"""Turn patient records into prompts: ``pmlm prepare``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from agents.model_options import CohortFiles, ModelOptions
from agents.settings import plain
from pmlm_env.cohort.sections import with_sections
from pmlm_env.core.episode_files import writing_episodes
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.languages import is_chinese, n_words
from pmlm_env.io.files import locked, make_folder, write_json
from pmlm_env.pipeline.config import PipelineConfig
from pmlm_env.pipeline.files import MANIFEST_FILE, PIPELINE_FOLDER, TEMPLATE_FILE
from pmlm_env.weights import CHINESE_MODEL, state


@dataclass(frozen=True)
class PrepareConfig:
    """Fit stages 1 and 2 on a cohort's training patients and write every patient's prompt.

    Attributes:
        files: The cohort.
        out: Output folder, for episodes.jsonl, vectors.safetensors, checkups.safetensors (all patients' check-ups),
            labels.json, report.json, and pipeline/, which has the training patients' ids and labels and makes prompts
            for new patients.
        pipeline: How prompts are generated.
        reference_sections: Headings of the sections to keep of each reference, such as ``"Discharge Instructions"``; by
            default, all of it.
        max_train: Maximum number of training patients to generate prompts for, drawn at random; None = all. Stages 1
            and 2 always learn from all training patients.
        max_validation: Maximum number of validation patients; None = all.
        max_test: Maximum number of test patients; None = all.
        seed: Seed of the folds, the networks and the sampling of patients.
        device: Device of the patient encoder, and of a predictor that is an LLM.
    """

    files: CohortFiles
    out: Path = Path("prepared")
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)
    reference_sections: tuple[str, ...] = ()
    max_train: int | None = None
    max_validation: int | None = None
    max_test: int | None = None
    seed: int = 0
    device: str = "auto"


Config = PrepareConfig


def run(config: PrepareConfig) -> int:
    """Generate an episode set from a cohort.

    Raises:
        CohortError: The cohort's files are missing or damaged, or cannot be split.
        ValueError: Another command uses ``out``, or ``out`` is a file.
    """
    from pmlm_env.pipeline import make_episodes
    from pmlm_env.predictors import PREDICTORS
    from pmlm_env.prompting import InitialPrompt
    from pmlm_env.retrieval import RETRIEVERS

    # What is misspelt is said before large tables are read.
    InitialPrompt(config.pipeline.template)
    PREDICTORS.find(config.pipeline.predictor)
    RETRIEVERS.find(config.pipeline.retriever)
    cohort, read = config.files.read()
    if config.reference_sections:
        cohort, line = with_sections(cohort, config.reference_sections)
        read = replace(read, notes=(*read.notes, line))
        print(line)
    with locked(config.out):
        of_records = InitialPrompt(config.pipeline.template, schema=cohort.schema).of_records
        with writing_episodes(config.out, cohort.schema.labels, of_records=of_records) as writer:
            report, pipeline = make_episodes(
                cohort,
                writer.add,
                config.pipeline,
                limits={"train": config.max_train, "validation": config.max_validation, "test": config.max_test},
                seed=config.seed,
                device=config.device,
            )
            # An earlier pipeline must not be taken for that of these prompts, even if this process is killed; and
            # without its template the prompts are not sent to another machine.
            make_folder(config.out / PIPELINE_FOLDER)
            for name in (MANIFEST_FILE, TEMPLATE_FILE):
                (config.out / PIPELINE_FOLDER / name).unlink(missing_ok=True)
        pipeline.save(config.out / PIPELINE_FOLDER)
        found = {"settings": plain(config), "cohort": plain(read), "report": plain(report)}
        write_json(config.out / "report.json", found)
        episodes = EpisodeSet.load(config.out)
    print(report)
    print(_on_long_references(episodes), end="")
    print(f"{len(episodes)} prompts are in {config.out}{_on_equal_prompts(episodes)}")
    return 0


def _on_equal_prompts(episodes: EpisodeSet) -> str:
    """Return how many prompts differ, to follow their number, and what can be done if most have an equal."""
    different = len({hash(episode.words) for episode in episodes})  # prompts of a large cohort are not kept in memory
    if different > len(episodes) / 2:
        return f", {different} of them different"
    return (
        f", but only {different} of them different: patients with the same prediction and peers have the same prompt, "
        "and the same edits. --template personal adds what is their own, the latest values (docs/templates.md)"
    )


#: Texts of at most this many bytes need no token count: BERT-family tokenizers never give more tokens than bytes.
_SURELY_SHORT = 500


def _on_long_references(episodes: EpisodeSet) -> str:
    """Return a line about references that are too long for the default scorer; "" if there are none."""
    references = [episode.reference for episode in episodes if episode.reference]
    suspects = [text for text in references if len(text.encode()) > _SURELY_SHORT]
    if not suspects:
        return ""
    if is_chinese(episodes[0].language):
        return _on_long_chinese_references(references)
    scorer = ModelOptions().scorer
    if state(scorer) != "ready":
        return (
            f"{len(suspects)} of {len(references)} references may be too long for BERTScore to compare in full. To "
            f"count them, run `pmlm models --fetch {scorer}`, then this command again\n"
        )
    from pmlm_env.rewards.bertscore import BertScorer

    judge = BertScorer(scorer, device="cpu")
    n = judge.too_long(suspects)
    if not n:
        return ""
    return (
        f"{n} of {len(references)} references are longer than the {judge.limit} pieces (roughly {judge.limit * 3 // 4} "
        f"words) that the default scorer, {scorer}, takes: BERTScore compares only their beginnings, and ignores "
        "the rest. `pmlm train --long-texts chunks` compares them in full, and "
        "`pmlm prepare --reference-sections` keeps only what matters of them\n"
    )


#: Pieces that BERTs take, the two special ones not counted. A Chinese BERT has a piece for each character.
_CHINESE_LIMIT = 510


def _on_long_chinese_references(references: Sequence[str]) -> str:
    """Return a line about Chinese references that are too long for a Chinese BERT; "" if there are none."""
    n = sum(n_words(text) > _CHINESE_LIMIT for text in references)
    if not n:
        return ""
    return (
        f"{n} of {len(references)} references are longer than the {_CHINESE_LIMIT} characters that a Chinese BERT "
        "takes: with `--scorer bert-base-chinese`, BERTScore compares only their beginnings, and ignores the rest. "
        f"`pmlm train --long-texts chunks` compares them in full, so does `--scorer {CHINESE_MODEL}`, which takes "
        "longer texts, and `pmlm prepare --reference-sections` keeps only what matters of them\n"
    )
