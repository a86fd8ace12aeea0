"""The files of a saved pipeline: its settings, with checksums of all files, and its training patients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from pmlm_env.io.checked_files import file_in, read_object, read_tensors
from pmlm_env.io.files import sha256, write, write_json

#: The subfolder of what `pmlm prepare` writes.
PIPELINE_FOLDER = "pipeline"

MANIFEST_FILE, PEERS_FILE, VECTORS_FILE = "pipeline.json", "peers.json", "peers.safetensors"
SCHEMA_FILE, TEMPLATE_FILE, PREDICTOR_FOLDER = "schema.json", "template.txt", "predictor"
SCALER_FILE = "scaler.safetensors"

CURE = "prepare it again with `pmlm prepare`"

#: Limit on the bytes of ``PEERS_FILE``, enough for a million patients with long ids and labels.
_LARGEST_PEERS = 2**28


def pipeline_in(folder: Path) -> Path:
    """Return the folder of the pipeline, given this folder or the one that ``pmlm prepare`` wrote."""
    return folder if (folder / MANIFEST_FILE).exists() else folder / PIPELINE_FOLDER


@dataclass(frozen=True)
class Part:
    """A replaceable part of a pipeline.

    Attributes:
        name: Its name in the registry.
        kwargs: Its keyword arguments, JSON values.
    """

    name: str
    kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class Manifest:
    """The settings of a saved pipeline, in ``MANIFEST_FILE``.

    Attributes:
        k: Peers per patient.
        peers: The form of the peers in prompts.
        predictor: Stage 1.
        retriever: The search of stage 2.
        temperature: What calibrates the predictor's probabilities (``at_temperature``); 1 leaves them as they are.
    """

    k: int
    peers: str
    predictor: Part
    retriever: Part
    temperature: float = 1.0


@dataclass(frozen=True, eq=False)
class TrainingPatients:
    """The patients that peers are found among.

    Attributes:
        ids: Their patient ids, all different.
        labels: Their true labels.
        vectors: Their vectors, shape (N, d), float32.
        persons: The person of each; empty = each is the patient of the same id.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    vectors: npt.NDArray[np.float32]
    persons: tuple[str, ...] = ()

    @cached_property
    def label_of(self) -> dict[str, str]:
        """The true label of each patient, by id."""
        return dict(zip(self.ids, self.labels, strict=True))

    @cached_property
    def person_of(self) -> dict[str, str]:
        """The person of each patient, by id."""
        return dict(zip(self.ids, self.persons or self.ids, strict=True))

    @cached_property
    def stays(self) -> Counter[str]:
        """The number of stays of each person."""
        return Counter(self.persons or self.ids)

    def save(self, folder: Path) -> None:
        """Write ``PEERS_FILE`` and ``VECTORS_FILE``."""
        write_json(
            folder / PEERS_FILE,
            {"ids": self.ids, "labels": self.labels} | ({"persons": self.persons} if self.persons else {}),
        )
        write(folder / VECTORS_FILE, save({"vectors": np.ascontiguousarray(self.vectors)}))

    @classmethod
    def load(cls, folder: Path, vector_size: int) -> TrainingPatients:
        """Read what ``save`` wrote.

        Raises:
            ValueError: A file is missing or damaged, or they do not belong together.
        """
        path = file_in(folder, PEERS_FILE)
        content = read_object(path, CURE, _LARGEST_PEERS)
        ids, labels, persons = content.get("ids"), content.get("labels"), content.get("persons", [])
        for each in (ids, labels, persons):
            if not isinstance(each, list) or not all(isinstance(text, str) for text in each):
                raise ValueError(f"{path} is damaged: {CURE}")
        assert isinstance(ids, list)
        assert isinstance(labels, list)
        assert isinstance(persons, list)
        if not ids or len(ids) != len(labels) or len(set(ids)) < len(ids) or len(persons) not in (0, len(ids)):
            raise ValueError(f"{path} is damaged: it has {len(ids)} ids and {len(labels)} labels: {CURE}")
        shapes = {"vectors": (len(ids), vector_size)}
        vectors = read_tensors(file_in(folder, VECTORS_FILE), shapes, cure=CURE)["vectors"].numpy()
        return cls(tuple(ids), tuple(labels), vectors, tuple(persons))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``MANIFEST_FILE``, after all other files of the folder."""
    files = {
        path.relative_to(folder).as_posix(): [path.stat().st_size, sha256(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    parts = {"predictor": manifest.predictor, "retriever": manifest.retriever}
    described = {part: {"name": each.name, "kwargs": {**each.kwargs}} for part, each in parts.items()}
    settings = {"k": manifest.k, "peers": manifest.peers, "temperature": manifest.temperature}
    write_json(folder / MANIFEST_FILE, {"format": 1, **settings, **described, "files": files})


def read_manifest(folder: Path) -> tuple[Manifest, dict[str, tuple[int, str]]]:
    """Read what ``write_manifest`` wrote.

    Returns:
        The settings, and the size and the SHA-256 of each file, for ``check_files``.

    Raises:
        ValueError: The file is missing or damaged, or was written by another version of pmlm-env.
    """
    if not (folder / MANIFEST_FILE).exists():
        raise ValueError(f"{folder} has no {MANIFEST_FILE}: give a folder that `pmlm prepare` made, or make it again")
    path = file_in(folder, MANIFEST_FILE)
    content = read_object(path, CURE)
    if content.get("format") != 1:
        raise ValueError(f"{path} is of another version of pmlm-env: {CURE}")
    try:
        parts = {part: Part(content[part]["name"], content[part]["kwargs"]) for part in ("predictor", "retriever")}
        if not all(isinstance(each.name, str) and isinstance(each.kwargs, dict) for each in parts.values()):
            raise ValueError
        if type(content["k"]) is not int or not isinstance(content["peers"], str):
            raise ValueError
        if type(content["temperature"]) is not float or not 1e-3 <= content["temperature"] <= 1e3:
            raise ValueError
        files = {name: (int(size), str(digest)) for name, (size, digest) in content["files"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(f"{path} is damaged: {CURE}") from None
    return Manifest(content["k"], content["peers"], temperature=content["temperature"], **parts), files


def check_files(folder: Path, files: Mapping[str, tuple[int, str]]) -> None:
    """Check that all files are there as they were written.

    Raises:
        ValueError: A file is missing or was changed, or is a link to outside the folder.
    """
    for name, (size, digest) in files.items():
        path = file_in(folder, name)
        if path.stat().st_size != size or sha256(path) != digest:
            raise ValueError(f"{path} is damaged, or of another pipeline: {CURE}")
