"""Which patient encoder a pipeline has: trained on labels, untrained, or trained before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pmlm_env.cohort.schema import Cohort, Schema
from pmlm_env.io.checked_files import file_in, read_object
from pmlm_env.retrieval.base import PatientEncoder
from pmlm_env.retrieval.encoder import NetworkEncoder
from pmlm_env.retrieval.encoder_files import CONFIG_FILE, CURE, ENCODER_FOLDER, encoder_in
from pmlm_env.retrieval.summary_encoder import SummaryEncoder


def patient_encoder(name: str, schema: Schema, seed: int, device: str) -> Callable[[Cohort], PatientEncoder]:
    """Return what fits a patient encoder to the training patients, or returns one that was trained before.

    Args:
        name: ``labels``, ``summaries``, or the folder of an encoder or of the run in which one was trained.
        schema: The schema of the patients to encode.
        seed: Seed of an encoder that is trained.
        device: Where a network is trained and encodes.

    Raises:
        ValueError: There is no such encoder, or it was trained on patients of another schema, or is damaged.
    """
    if name == "labels":
        return lambda train: NetworkEncoder.fit(train, seed, device)
    if name == "summaries":
        return SummaryEncoder.fit
    folder = encoder_in(Path(name).expanduser())
    if not (folder / CONFIG_FILE).exists():
        raise ValueError(
            f"there is no patient encoder {name}: use labels, summaries, or a folder with {CONFIG_FILE} or "
            f"{ENCODER_FOLDER}/{CONFIG_FILE}"
        )
    trained = load_patient_encoder(folder, schema, device)
    return lambda _: trained


def load_patient_encoder(folder: Path, schema: Schema, device: str = "auto") -> PatientEncoder:
    """Read what ``PatientEncoder.save`` wrote.

    Args:
        folder: The folder.
        schema: The schema of the patients to encode.
        device: Where a network encodes.

    Raises:
        ValueError: The encoder was fitted to patients of another schema, or a file is missing or damaged.
    """
    path = file_in(folder, CONFIG_FILE)
    kind = read_object(path, CURE).get("kind", "network")  # earlier versions had networks alone
    if kind == "network":
        return NetworkEncoder.load(folder, schema, device)
    if kind == "summaries":
        return SummaryEncoder.load(folder, schema)
    raise ValueError(f"{path} is of another version of pmlm-env: {CURE}")
