"""The pipeline of stages 1 to 3, fitted to training patients: it can be saved, and makes prompts for new patients."""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from reprlib import repr as shortened
from typing import cast

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.schema import Cohort, Patient, Schema
from pmlm_env.cohort.wording import named
from pmlm_env.core.episode import Episode, Split, shared
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.io.checked_files import file_in
from pmlm_env.io.files import replacing_folder, write
from pmlm_env.pipeline.config import PipelineConfig
from pmlm_env.pipeline.files import (
    CURE,
    MANIFEST_FILE,
    PEERS_FILE,
    PREDICTOR_FOLDER,
    SCALER_FILE,
    SCHEMA_FILE,
    TEMPLATE_FILE,
    VECTORS_FILE,
    Manifest,
    Part,
    TrainingPatients,
    check_files,
    pipeline_in,
    read_manifest,
    write_manifest,
)
from pmlm_env.predictors import PREDICTORS, Predictor
from pmlm_env.predictors.base import checked_proba
from pmlm_env.predictors.calibration import at_temperature, fit_temperature
from pmlm_env.predictors.inputs import InputScaler
from pmlm_env.prompting import InitialPrompt, PeerForm
from pmlm_env.retrieval import RETRIEVERS, PatientEncoder, Peer, Retriever, load_patient_encoder, patient_encoder
from pmlm_env.retrieval.base import checked_peers
from pmlm_env.retrieval.encoder_files import CONFIG_FILE, WEIGHTS_FILE

#: What a saved pipeline consists of: a folder with anything else is not replaced.
_NAMES = {
    *(MANIFEST_FILE, SCHEMA_FILE, TEMPLATE_FILE, PREDICTOR_FOLDER, PEERS_FILE, VECTORS_FILE),
    *(WEIGHTS_FILE, CONFIG_FILE, SCALER_FILE),
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Applied:
    """What a pipeline found for some patients.

    Attributes:
        episodes: One episode per patient, in order, all of split "test".
        probabilities: Each label's probability, float64 (N, n_labels), in the order of the predictor's labels.
        peers: The peers of each patient.
    """

    episodes: EpisodeSet
    probabilities: npt.NDArray[np.float64]
    peers: list[list[Peer]]


@dataclass(frozen=True, eq=False)
class Pipeline:
    """Stages 1 to 3, fitted to training patients, for patients who come later. Usually, use ``fit`` or ``load``.

    Attributes:
        schema: What the patients' cohort measures.
        predictor: Stage 1.
        encoder: The patient encoder of stage 2.
        retriever: The search of stage 2, among the training patients.
        template: Stage 3.
        training: The training patients with a label.
        manifest: The number and form of the peers, how predictor and retriever were made, and the temperature that
            calibrates the predictor's probabilities.
        scaler: Standardizes the check-ups that episodes carry; None in pipelines of earlier versions.
    """

    schema: Schema
    predictor: Predictor
    encoder: PatientEncoder
    retriever: Retriever
    template: InitialPrompt
    training: TrainingPatients
    manifest: Manifest
    scaler: InputScaler | None = None

    @property
    def k(self) -> int:
        """Peers per patient."""
        return self.manifest.k

    @classmethod
    def fit(
        cls, train: Cohort, config: PipelineConfig | None = None, *, seed: int = 0, device: str = "auto"
    ) -> Pipeline:
        """Fit stages 1 and 2; the predictor's probabilities are not calibrated (``build_episodes`` does that).

        Args:
            train: The training patients; those without a label are not used.
            config: Settings. Folds and dates concern only ``build_episodes``.
            seed: Seed of the predictor and the patient encoder.
            device: Where the patient encoder runs.

        Raises:
            ValueError: Fewer than ``k + 1`` patients have a label, or one of them has fewer than ``k`` stays of other
                people, or the template, the predictor, the patient encoder or the retriever does not exist or does not
                fit.
        """
        config = config or PipelineConfig()
        train = train.take(np.flatnonzero(train.y != ""))
        if len(train) <= config.k:
            raise ValueError(
                f"{len(train)} training patients have a label, but {config.k} peers each need {config.k + 1}: "
                "use fewer peers (--k)"
            )
        person, n_stays = Counter(patient.person for patient in train).most_common(1)[0]
        _check_people(len(train) - n_stays, config.k, f"person {person}")
        template = InitialPrompt(config.template, config.peers, train.schema)
        template.check(train)
        predictor = make_predictor(config, seed, device)
        fit_encoder = patient_encoder(config.patient_encoder, train.schema, seed, device)
        RETRIEVERS.check(config.retriever, None, None, None, kwargs=config.retriever_kwargs)
        manifest = Manifest(
            k=config.k,
            peers=config.peers,
            predictor=Part(config.predictor, config.predictor_kwargs),
            retriever=Part(config.retriever, config.retriever_kwargs),
        )
        logger.info("Stage 1: fitting the predictor to %d patients", len(train))
        predictor.fit(train)
        _check_labels(predictor, train.y.tolist(), f"the predictor {config.predictor}")
        logger.info("Stage 2: encoding %d patients", len(train))
        encoder = fit_encoder(train)
        ids, persons = (tuple(getattr(patient, name) for patient in train) for name in ("patient_id", "person"))
        training = TrainingPatients(
            ids, tuple(map(str, train.y)), encoder.encode(train), persons if persons != ids else ()
        )
        retriever = _make_retriever(training, manifest)
        scaler = InputScaler.fit(train)
        fitted = cls(train.schema, predictor, encoder, retriever, template, training, manifest, scaler)
        # A part that breaks its interface is named now, not after the folds were fitted.
        fitted.predict_proba(train[:1])
        fitted.find_peers(training.vectors[:1], train[:1])
        return fitted

    def calibrated(self, out_of_fold: npt.NDArray[np.float64], labels: npt.NDArray[np.str_]) -> Pipeline:
        """Return a pipeline whose probabilities have the temperature that suits predictions of unseen patients.

        Args:
            out_of_fold: Predictions of the training patients by predictors fitted to others, shape (N, n_labels).
            labels: Their true labels, shape (N,).
        """
        temperature = fit_temperature(out_of_fold, self.predictor.labels, labels)
        return replace(self, manifest=replace(self.manifest, temperature=temperature))

    def episodes(self, cohort: Cohort) -> EpisodeSet:
        """Return the episodes of patients who are not among the training patients; see ``apply``."""
        return self.apply(cohort).episodes

    def apply(self, cohort: Cohort) -> Applied:
        """Predict, retrieve and fill for patients who are not among the training patients.

        A patient gets the same episode alone and among others. Labels and replies may be empty, and are not used.

        Raises:
            ValueError: The cohort is empty or has another schema, or a prompt cannot be filled.
        """
        if cohort.schema != self.schema:
            raise ValueError(
                "the patients' schema is not that of the pipeline's training patients: read their tables with the "
                f"pipeline's schema, or {CURE}"
            )
        self.template.check(cohort)
        trained = self.training.label_of
        if known := [patient.patient_id for patient in cohort if patient.patient_id in trained]:
            logger.warning(
                "%d of %d patients are training patients of this pipeline, and predicted better than others; "
                "they are not their own peers: %s",
                *(len(known), len(cohort), named(known)),
            )
        vectors = self.encoder.encode(cohort)
        proba, found = self.predict_proba(cohort), self.find_peers(vectors, cohort)
        filled = self.fill(cohort, "test", proba, vectors, found, range(len(cohort)))
        return Applied(EpisodeSet(filled, self.schema.labels), proba, found)

    def prompt_for(self, patient: Patient) -> Episode:
        """Return the episode of one patient; see ``episodes``."""
        return self.episodes(Cohort((patient,), self.schema))[0]

    def save(self, folder: str | Path) -> None:
        """Write everything into a folder that only its owner can access; nothing is pickled.

        It contains the training patients' ids, labels and vectors, so it has to be protected as their records are.

        Raises:
            ValueError: The folder contains something else than a pipeline.
        """
        folder = Path(folder)
        if folder.exists() and (folder.is_file() or {*os.listdir(folder)} - _NAMES):
            raise ValueError(f"{folder} is or contains something else than a pipeline: choose a new folder")
        with replacing_folder(folder) as scratch:
            (scratch / PREDICTOR_FOLDER).mkdir(mode=0o700)
            self.predictor.save(scratch / PREDICTOR_FOLDER)
            self.encoder.save(scratch)
            self.training.save(scratch)
            self.schema.save(scratch / SCHEMA_FILE)
            if self.scaler is not None:
                self.scaler.save(scratch / SCALER_FILE)
            write(scratch / TEMPLATE_FILE, self.template.text)
            write_manifest(scratch, self.manifest)

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "auto", allow_import: bool = False) -> Pipeline:
        """Read what ``save`` wrote: the same predictions, vectors, peers and prompts to the last digit.

        Args:
            folder: A saved pipeline, or a folder that ``pmlm prepare`` wrote.
            device: Where the patient encoder runs.
            allow_import: Whether a predictor or retriever that is named as package.module:Class may be imported. That
                runs code from outside pmlm-env that the folder names, so it should not come from a stranger.

        Raises:
            ValueError: A file is missing or damaged, or names a class that must not be imported.
        """
        folder = pipeline_in(Path(folder))
        manifest, files = read_manifest(folder)
        predictors = PREDICTORS.find(manifest.predictor.name, allow_import=allow_import)
        RETRIEVERS.find(manifest.retriever.name, allow_import=allow_import)
        check_files(folder, files)
        schema = Schema.load(file_in(folder, SCHEMA_FILE))
        encoder = load_patient_encoder(folder, schema, device)
        training = TrainingPatients.load(folder, encoder.vector_size)
        if not 1 <= manifest.k < len(training.ids):
            raise ValueError(f"{folder / MANIFEST_FILE} asks for {manifest.k} of {len(training.ids)} patients: {CURE}")
        predictor = predictors.load(folder / PREDICTOR_FOLDER)
        _check_labels(predictor, training.labels, str(folder / PREDICTOR_FOLDER))
        template = InitialPrompt(file_in(folder, TEMPLATE_FILE), cast(PeerForm, manifest.peers), schema)
        has_scaler = SCALER_FILE in files  # pipelines of earlier versions have none
        n = len(schema.indicators)
        scaler = InputScaler.load(file_in(folder, SCALER_FILE), n, CURE) if has_scaler else None
        retriever = _make_retriever(training, manifest)
        return cls(schema, predictor, encoder, retriever, template, training, manifest, scaler)

    def predict_proba(self, cohort: Cohort) -> npt.NDArray[np.float64]:
        """Return each label's calibrated probability for each patient, shape (N, n_labels).

        Raises:
            ValueError: The predictor returned something else.
        """
        proba = checked_proba(self.predictor, cohort, self.manifest.predictor.name)
        return at_temperature(proba, self.manifest.temperature)

    def find_peers(self, vectors: npt.NDArray[np.float32], patients: Iterable[Patient]) -> list[list[Peer]]:
        """Return the ``k`` peers of each patient: never themselves, nor another stay of the same person.

        Raises:
            ValueError: The retriever returned another number, or the patient, or too few are other people.
        """
        patients = list(patients)
        stays, person_of = self.training.stays, self.training.person_of
        groups = defaultdict(list)
        for i, patient in enumerate(patients):
            is_own = person_of.get(patient.patient_id) == patient.person  # and nobody is their own peer anyway
            groups[stays[patient.person] - is_own, patient.patient_id in person_of].append(i)
        found: list[list[Peer]] = [[]] * len(patients)
        # More peers are asked for of people with other stays, which are then left out.
        for (n_other, is_trained), rows in sorted(groups.items()):
            peers = self._ask(vectors[rows], [patients[i] for i in rows], n_other, is_trained)
            for i, each in zip(rows, peers, strict=True):
                found[i] = each
        return found

    def _ask(
        self, vectors: npt.NDArray[np.float32], patients: Sequence[Patient], n_other: int, is_trained: bool
    ) -> list[list[Peer]]:
        """Return the peers of patients who have ``n_other`` other stays among the training patients.

        Args:
            vectors: Their vectors.
            patients: The patients.
            n_other: The number of other stays of the same person.
            is_trained: Whether they are training patients.
        """
        ids, name = [patient.patient_id for patient in patients], self.manifest.retriever.name
        persons = self.training.person_of
        _check_people(len(self.training.ids) - is_trained - n_other, self.k, f"patient {ids[0]}")
        k = self.k + n_other
        found = checked_peers(self.retriever.peers(vectors.copy(), ids, k), len(ids), name)
        known = self.training.label_of
        for own, peers in zip(ids, found, strict=True):
            names = {peer.patient_id for peer in peers if known.get(peer.patient_id) == peer.label} - {own}
            if len(names) != k or len(peers) != k:
                raise ValueError(
                    f"the retriever {name} did not return {k} different training patients with their labels for "
                    f"patient {own}"
                )
        return [
            [peer for peer in peers if persons.get(peer.patient_id) != patient.person][: self.k]
            for patient, peers in zip(patients, found, strict=True)
        ]

    def fill(
        self,
        cohort: Cohort,
        split: Split,
        proba: npt.NDArray[np.float64],
        vectors: npt.NDArray[np.float32],
        found: Sequence[Sequence[Peer]],
        chosen: Iterable[int],
    ) -> list[Episode]:
        """Return the episodes of the chosen patients, given the results of stages 1 and 2 for all."""
        labels = self.predictor.labels
        checkups = None if self.scaler is None else self.scaler.checkups(cohort)
        episodes = []
        for i in chosen:
            patient, predicted = cohort[int(i)], labels[int(proba[i].argmax())]
            peer_labels = tuple(peer.label for peer in found[i])
            probabilities = dict(zip(map(str, labels), proba[i].tolist(), strict=True))
            prompt = self.template.fill(
                predicted, peer_labels, probabilities, patient, [peer.similarity for peer in found[i]]
            )
            episodes.append(
                Episode(
                    patient_id=patient.patient_id,
                    split=split,
                    words=shared(prompt.texts),
                    roles=prompt.roles,
                    vector=vectors[i],
                    reference=patient.reference,
                    label=patient.label,
                    predicted=str(predicted),
                    peers=peer_labels,
                    spaces=prompt.spaces,
                    language=prompt.language,
                    checkups=None if checkups is None else checkups[i],
                )
            )
        return episodes


def make_predictor(config: PipelineConfig, seed: int, device: str = "auto") -> Predictor:
    """Make an unfitted predictor; the seed and the device are for a class that has parameters of these names.

    Raises:
        ValueError: There is none of this name, or it lacks a method or does not take these arguments.
    """
    return PREDICTORS.make(config.predictor, kwargs=config.predictor_kwargs, offered={"seed": seed, "device": device})


def _check_labels(predictor: Predictor, labels: Iterable[str], who: str) -> None:
    """Check that a fitted predictor predicts the labels of the training patients.

    Raises:
        ValueError: It has others, or another order.
    """
    found = getattr(predictor, "labels", None)
    if found is None:
        raise ValueError(f"{who} has no labels after fit")
    if tuple(found) != tuple(sorted({*labels})):
        raise ValueError(f"{who} predicts {shortened(tuple(found))}, not the training patients' labels")


def _check_people(n_stays: int, k: int, who: str) -> None:
    """Check that there are enough training stays of other people.

    Raises:
        ValueError: There are fewer than ``k``.
    """
    if n_stays < k:
        raise ValueError(
            f"{who} has {n_stays} training stays of other people, too few for {k} peers: use fewer peers (--k)"
        )


def _make_retriever(training: TrainingPatients, manifest: Manifest) -> Retriever:
    part = manifest.retriever
    return RETRIEVERS.make(part.name, training.vectors.copy(), training.ids, training.labels, kwargs=part.kwargs)
