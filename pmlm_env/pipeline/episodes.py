"""From a ``Cohort`` to an ``EpisodeSet``: stages 1 to 3 are fitted to the training patients, then applied to all."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.schema import Cohort
from pmlm_env.cohort.split import RANDOM, SPLIT_DATE, Split, index_dates, split_cohort, usual_cuts
from pmlm_env.cohort.wording import named
from pmlm_env.core.episodes import CHECKUPS_FILE, Episode, EpisodeSet
from pmlm_env.core.episodes import Split as SplitName
from pmlm_env.pipeline.config import PipelineConfig
from pmlm_env.pipeline.fitted import Pipeline, make_predictor
from pmlm_env.pipeline.report import Coverage, PipelineReport, unseen_labels
from pmlm_env.predictors import evaluate, out_of_fold_proba
from pmlm_env.predictors.calibration import at_temperature
from pmlm_env.prompting import InitialPrompt
from pmlm_env.retrieval import out_of_fold_vectors
from pmlm_env.weights import cache_dir

if TYPE_CHECKING:
    from pmlm_env.cohort.simulator import Language

logger = logging.getLogger(__name__)

#: Patients whose prompts are made at once; bounds the memory.
BATCH = 16_384


def build_episodes(
    cohort: Cohort,
    config: PipelineConfig | None = None,
    *,
    limits: Mapping[SplitName, int | None] | None = None,
    seed: int = 0,
    device: str = "auto",
) -> tuple[EpisodeSet, PipelineReport, Pipeline]:
    """Fit stages 1 and 2 on the training patients and fill the prompts of all patients.

    Training patients' predictions are out of fold, and so are their vectors if the patient encoder learns from labels,
    so that their prompts are about as good as those of unseen patients. The out-of-fold predictions also give the
    temperature that calibrates everybody's probabilities (Guo et al., ICML 2017); it does not change which label is
    predicted. Patients without a label are not used for fitting, whatever their date; they are predicted in the same
    way as test patients.

    Args:
        cohort: All patients.
        config: Settings.
        limits: Maximum number of prompts per split, for randomly drawn patients, preferring those with a label and a
            reply; None or no entry = all. The limits do not affect how stages 1 and 2 are fitted and evaluated.
        seed: Draws the folds, the networks and the patients.
        device: Where the patient encoder runs.

    Returns:
        The episodes, the metrics of stages 1 and 2, and the fitted pipeline, which makes the same prompts for
        patients of validation and test.

    Raises:
        ValueError: Train has fewer than ``k + 1`` patients with a label, test is empty although its limit is not 0,
            or the template, the predictor, the patient encoder or the retriever does not exist or does not fit.
    """
    episodes: list[Episode] = []
    report, pipeline = make_episodes(cohort, episodes.extend, config, limits=limits, seed=seed, device=device)
    return EpisodeSet(episodes, cohort.schema.labels), report, pipeline


def make_episodes(
    cohort: Cohort,
    take: Callable[[list[Episode]], None],
    config: PipelineConfig | None = None,
    *,
    limits: Mapping[SplitName, int | None] | None = None,
    seed: int = 0,
    device: str = "auto",
) -> tuple[PipelineReport, Pipeline]:
    """Do what ``build_episodes`` does, without holding the episodes of all patients.

    Args:
        cohort: All patients.
        take: Gets the episodes, those of ``BATCH`` patients at a time, in order; ``writing_episodes`` has one that
            writes them.
        config: Settings.
        limits: See ``build_episodes``.
        seed: See ``build_episodes``.
        device: See ``build_episodes``.

    Returns:
        The metrics of stages 1 and 2, and the fitted pipeline.

    Raises:
        ValueError: As ``build_episodes``.
    """
    config = config or PipelineConfig()
    split = split_cohort(
        cohort,
        by=config.split_by,
        train_until=config.train_until,
        validation_until=config.validation_until,
        enough=config.k + 1,
        seed=seed,
    )
    parts: dict[SplitName, Cohort] = {"train": split.train, "validation": split.validation, "test": split.test}
    labeled_train = split.train.take(np.flatnonzero(split.train.y != ""))
    _check_splits(cohort, config, split, labeled_train, bool(len(split.test)) or (limits or {}).get("test") == 0)
    InitialPrompt(config.template, config.peers, cohort.schema).check(cohort)
    _warn_of_rare_labels(labeled_train, config.n_folds)
    pipeline = Pipeline.fit(labeled_train, config, seed=seed, device=device)
    logger.info("Fitting to %d parts of them, for out-of-fold prompts of training patients", config.n_folds)
    rng = np.random.default_rng(seed)
    train_proba = out_of_fold_proba(
        lambda: make_predictor(config, seed, device), labeled_train, config.n_folds, rng=rng, name=config.predictor
    )
    pipeline = pipeline.calibrated(train_proba, labeled_train.y)
    train_proba = at_temperature(train_proba, pipeline.manifest.temperature)
    train_vectors = pipeline.training.vectors
    if config.patient_encoder == "labels":
        train_vectors = out_of_fold_vectors(pipeline.encoder, labeled_train, seed, config.n_folds, device)
    logger.info("Stage 3: filling the prompts")
    numbers = ", ".join(f"{name} {len(part):,}" for name, part in parts.items())
    report = PipelineReport(split=f"{split.how}; patients: {numbers}", coverage=Coverage.of(cohort))
    for name, part in parts.items():
        if not len(part):
            continue
        limit = (limits or {}).get(name)
        chosen = np.arange(len(part)) if limit is None else _draw_patients(part, limit, rng)
        known, probas, same = part.y != "", [], 0
        for start in range(0, len(part), BATCH):
            rows = slice(start, start + BATCH)
            some = part[rows]
            proba, vectors = pipeline.predict_proba(some), pipeline.encoder.encode(some)
            if name == "train":
                fitted = slice(n := int(known[:start].sum()), n + int(known[rows].sum()))
                proba[known[rows]], vectors[known[rows]] = train_proba[fitted], train_vectors[fitted]
            found = pipeline.find_peers(vectors, some)
            same += sum(
                p.label == who.label for who, peers in zip(some, found, strict=True) if who.label for p in peers
            )
            probas.append(proba)
            wanted = chosen[(chosen >= start) & (chosen < start + BATCH)] - start
            take(pipeline.fill(some, name, proba, vectors, found, wanted))
        if known.any():
            report.predictor[name] = evaluate(
                np.concatenate(probas), pipeline.predictor.labels, part.y, labeled_train.y
            )
            if unseen := unseen_labels(part.y, labeled_train.y.tolist()):
                report.unseen[name] = unseen
            report.peer_agreement[name] = same / (int(known.sum()) * config.k)
            report.chance_agreement[name] = _chance_agreement(part, labeled_train)
    return report, pipeline


def _chance_agreement(part: Cohort, labeled_train: Cohort) -> float:
    """Return the mean share of other people's training stays that have the patient's label."""
    of_label = Counter(labeled_train.y.tolist())
    stays = Counter(patient.person for patient in labeled_train)
    alike = Counter((patient.person, patient.label) for patient in labeled_train)
    known = [patient for patient in part if patient.label]
    same_label: Counter[int] = Counter()  # by the number of own training stays
    for each in known:
        same_label[stays[each.person]] += of_label[each.label] - alike[each.person, each.label]
    return sum(n / (len(known) * (len(labeled_train) - n_own)) for n_own, n in same_label.items())


def _draw_patients(part: Cohort, limit: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    drawn = rng.permutation(len(part))
    incomplete = np.array([not (part[int(i)].label and part[int(i)].reference) for i in drawn], dtype=np.bool_)
    return np.sort(drawn[np.argsort(incomplete, kind="stable")][:limit])


def _check_splits(cohort: Cohort, config: PipelineConfig, split: Split, labeled_train: Cohort, has_test: bool) -> None:
    """Check that train and test have enough patients, before anything is fitted.

    Raises:
        ValueError: They do not; the message has the range of dates, the cuts, and cuts that would work.
    """
    enough = len(labeled_train) > config.k
    if enough and has_test:
        return
    labeled = np.array([bool(patient.label) for patient in cohort], dtype=np.bool_)
    if labeled.sum() <= config.k:
        raise ValueError(
            f"{labeled.sum()} of {len(cohort)} patients have a label, but {config.k} peers each need {config.k + 1} "
            "training patients with one: put new patients into one table with earlier ones, or use fewer peers (--k)"
        )
    other = "make no test prompts (`pmlm prepare --max-test 0`)" if enough else "use fewer peers (--k)"
    train_until, validation_until = (
        (f"up to --train-until {split.cuts[0]}", f"after --validation-until {split.cuts[1]}")
        if split.cuts
        else (f"split: {split.how}",) * 2
    )
    wrong = (
        f"{len(labeled_train)} patients with a label are in train ({train_until}), but {config.k} peers each need "
        f"{config.k + 1}"
        if not enough
        else f"no patient is in test ({validation_until})"
    )
    if split.cuts is None:
        raise ValueError(f"{wrong}: split otherwise (--split-by {SPLIT_DATE} or {RANDOM}), or {other}")
    by = config.split_by or SPLIT_DATE
    days = np.sort(index_dates(cohort, by))
    cuts = usual_cuts(days)
    advice = (
        f"move the cuts, for instance --train-until {cuts[0]} --validation-until {cuts[1]}"
        if cuts
        else f"split by another date (--split-by) or at random (--split-by {RANDOM})"
    )
    raise ValueError(
        f"{wrong}: the {len(days)} patients' dates ({by}) run from {days[0]} to {days[-1]}; {advice}, or {other}"
    )


def _warn_of_rare_labels(labeled_train: Cohort, n_folds: int) -> None:
    labels, counts = np.unique(labeled_train.y, return_counts=True)
    rare = [str(label) for label in labels[counts < n_folds]]
    if rare:
        logger.warning(
            "%d of %d labels have fewer than %d training patients each, too few to learn from: %s",
            *(len(rare), len(labels), n_folds, named(rare)),
        )


#: The default cohort of ``gym.make("PMLM-v0")``: small, so that the first call takes seconds.
_DEMO_PATIENTS, _DEMO_SEED = 600, 0


def demo_episodes(language: Language = "en") -> EpisodeSet:
    """Return the episodes of a small simulated cohort, made once and stored in the cache folder.

    Args:
        language: The language of prompts and letters: "en" or "zh".
    """
    from pmlm_env import __version__
    from pmlm_env.cohort.simulator import schema_in, simulate_cohort

    config = PipelineConfig()
    template = InitialPrompt(config.template, config.peers, schema_in(language)).parts
    made_of = [__version__, _DEMO_PATIENTS, _DEMO_SEED, asdict(config), template, CHECKUPS_FILE]
    text = json.dumps(made_of, default=dict)
    target = cache_dir() / "episodes" / f"demo-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if not target.is_dir():
        logger.info("Creating the simulated episodes in %s (only once)", target)
        cohort = simulate_cohort(_DEMO_PATIENTS, seed=_DEMO_SEED, language=language)
        episodes, _, _ = build_episodes(cohort, config, device="cpu")
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent))
        episodes.save(scratch)
        try:
            scratch.rename(target)
        except OSError:  # another process has created the same episodes
            shutil.rmtree(scratch)
    return EpisodeSet.load(target)
