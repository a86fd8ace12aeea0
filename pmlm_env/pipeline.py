"""Stages 1 to 3 joined: Cohort -> EpisodeSet."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from pmlm_env.cohort.schema import Cohort
from pmlm_env.cohort.split import Split, split_by_date
from pmlm_env.episodes import Episode, EpisodeSet
from pmlm_env.episodes import Split as SplitName
from pmlm_env.predictor import BoostedTrees, Predictor, PredictorReport, evaluate, out_of_fold_proba
from pmlm_env.prompting import InitialPrompt, PeerForm
from pmlm_env.retrieval import PatientEncoder, Retriever, out_of_fold_vectors
from pmlm_env.weights import cache_dir

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PipelineConfig:
    """How initial prompts are made.

    Attributes:
        k: Peers per patient (the paper's k).
        peers: How ``{peers}`` gives their labels: counted, or listed from the nearest on.
        template: ``default``, ``short``, ``paper``, ``raw``, or a template file; see docs/templates.md.
        n_folds: Folds of the out-of-fold predictions and vectors of training patients.
        train_until: Last day of train.
        validation_until: Last day of validation; what comes after is test.
        split_by: ``split_date``, or the name of another date column of the patients' table.
    """

    k: int = 10
    peers: PeerForm = "counted"
    template: str = "default"
    n_folds: int = 5
    train_until: str = "2021-12-31"
    validation_until: str = "2022-06-30"
    split_by: str = "split_date"


@dataclass(frozen=True)
class PipelineReport:
    """How good stages 1 and 2 are.

    Attributes:
        predictor: Figures of stage 1 by split; those of train are out of fold.
        peer_agreement: Share of peers that have the patient's own label, by split.
        chance_agreement: The same for peers drawn at random from train, by split.
    """

    predictor: dict[str, PredictorReport] = field(default_factory=dict)
    peer_agreement: dict[str, float] = field(default_factory=dict)
    chance_agreement: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return a line for each split."""
        lines = []
        for split, report in self.predictor.items():
            peers, chance = self.peer_agreement[split], self.chance_agreement[split]
            lines.append(f"{split}: {report}; peers with her label {peers:.2f} (by chance {chance:.2f})")
        return "\n".join(lines)


def build_episodes(
    cohort: Cohort,
    config: PipelineConfig | None = None,
    *,
    limits: Mapping[SplitName, int | None] | None = None,
    seed: int = 0,
    make_predictor: Callable[[int], Predictor] = BoostedTrees,
    device: str = "auto",
) -> tuple[EpisodeSet, PipelineReport]:
    """Fit stages 1 and 2 on the training patients and fill everybody's prompt.

    Training patients' predictions and vectors are out of fold, so that their prompts are about as good as those of
    patients never seen.

    Args:
        cohort: All patients.
        config: Settings.
        limits: Most patients of a split to make prompts for, drawn at random; None or no entry = all. Stages 1 and 2
            learn from all training patients, and are judged on all of the others, whatever the limits.
        seed: Draws the folds, the networks and the patients.
        make_predictor: Makes an unfitted stage-1 model from a seed.
        device: Where the patient encoder runs.

    Raises:
        ValueError: No patient is in train, or fewer than ``k + 1``.
    """
    config = config or PipelineConfig()
    split = split_by_date(
        cohort, train_until=config.train_until, validation_until=config.validation_until, by=config.split_by
    )
    if len(split.train) <= config.k:
        raise ValueError(
            f"{len(split.train)} patients are in train (up to {config.train_until}), but {config.k} peers each need "
            f"{config.k + 1}: move --train-until, or ask for fewer peers"
        )
    template = InitialPrompt(config.template, config.peers)
    template.check(cohort)
    rng = np.random.default_rng(seed)
    logger.info("Stage 1: fitting the predictor to %d patients (%d times)", len(split.train), config.n_folds + 1)
    predictor = make_predictor(seed).fit(split.train)
    train_proba = out_of_fold_proba(lambda: make_predictor(seed), split.train, config.n_folds, rng=rng)
    logger.info("Stage 2: fitting the patient encoder to %d patients (%d times)", len(split.train), config.n_folds + 1)
    encoder = PatientEncoder.fit(split.train, seed, device)
    retriever = Retriever(encoder.encode(split.train), [p.patient_id for p in split.train], list(split.train.y))
    train_vectors = out_of_fold_vectors(encoder, split.train, seed, config.n_folds, device)
    logger.info("Stage 3: filling the prompts")
    report = PipelineReport()
    episodes: list[Episode] = []
    for name, part in _parts(split).items():
        if not len(part):
            continue
        proba = train_proba if name == "train" else predictor.predict_proba(part)
        vectors = train_vectors if name == "train" else encoder.encode(part)
        found = retriever.peers(vectors, [patient.patient_id for patient in part], config.k)
        labels = tuple(sorted({*split.train.y})) if name == "train" else predictor.labels
        report.predictor[name] = evaluate(proba, labels, part.y)
        report.peer_agreement[name] = float(
            np.mean([peer.label == patient.label for patient, peers in zip(part, found, strict=True) for peer in peers])
        )
        report.chance_agreement[name] = float(np.mean([np.mean(split.train.y == label) for label in part.y]))
        limit = (limits or {}).get(name)
        chosen = np.arange(len(part)) if limit is None else np.sort(rng.permutation(len(part))[:limit])
        for i in chosen:
            patient, predicted = part[int(i)], labels[int(proba[i].argmax())]
            peer_labels = tuple(peer.label for peer in found[i])
            probabilities = dict(zip(map(str, labels), proba[i].tolist(), strict=True))
            words, roles = template.fill(predicted, peer_labels, probabilities, patient)
            episodes.append(
                Episode(
                    patient_id=patient.patient_id,
                    split=name,
                    words=words,
                    roles=roles,
                    vector=vectors[i],
                    reference=patient.reference,
                    label=patient.label,
                    predicted=str(predicted),
                    peers=peer_labels,
                )
            )
    return EpisodeSet(episodes), report


def _parts(split: Split) -> dict[SplitName, Cohort]:
    return {"train": split.train, "validation": split.validation, "test": split.test}


#: The cohort behind ``gym.make("PMLM-v0")``: small, so that the first call takes seconds.
_DEMO_PATIENTS, _DEMO_SEED = 600, 0


def demo_episodes() -> EpisodeSet:
    """Return the episodes of a small simulated cohort, made once and kept in the cache folder."""
    from pmlm_env import __version__
    from pmlm_env.cohort.simulator import simulate_cohort

    config = PipelineConfig()
    template = InitialPrompt(config.template, config.peers).parts
    text = json.dumps([__version__, _DEMO_PATIENTS, _DEMO_SEED, asdict(config), template])
    target = cache_dir() / "episodes" / f"demo-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if not target.is_dir():
        logger.info("Making the simulated episodes once, in %s", target)
        episodes, _ = build_episodes(simulate_cohort(_DEMO_PATIENTS, seed=_DEMO_SEED), config, device="cpu")
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent))
        episodes.save(scratch)
        try:
            scratch.rename(target)
        except OSError:  # another process was quicker, with the same result
            shutil.rmtree(scratch)
    return EpisodeSet.load(target)
