"""Folders of pipelines that are damaged, incomplete, or made by a stranger: one line that names the file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save
from sklearn.ensemble import HistGradientBoostingClassifier
from skops.io import dumps

from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.pipeline import Pipeline, PipelineConfig
from pmlm_env.pipeline.files import TrainingPatients
from pmlm_env.predictors import BoostedTrees

pytestmark = pytest.mark.usefixtures("quick_stages")

FILES = (
    "patient_encoder.json", "patient_encoder.safetensors", "peers.json", "peers.safetensors", "pipeline.json",
    "predictor/model.skops", "predictor/predictor.json", "scaler.safetensors", "schema.json", "template.txt",
)  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "pipeline"
    Pipeline.fit(simulate_cohort(60, seed=1), PipelineConfig(k=3), device="cpu").save(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "pipeline"))


def refused(folder: Path, name: str) -> str:
    """The one line that a pipeline's file is refused with."""
    with pytest.raises(ValueError, match=r"pipeline") as caught:
        Pipeline.load(folder)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 500
    assert str(folder / name) in line
    return line


def test_these_are_the_files(saved: Path) -> None:
    assert sorted(path.relative_to(saved).as_posix() for path in saved.rglob("*") if path.is_file()) == [*FILES]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _huge(path: Path) -> None:
    os.truncate(path, 2**40)  # a sparse file; who reads it is killed


def _outside(path: Path) -> None:
    path.rename(path.parents[2] / "elsewhere")
    path.symlink_to(path.parents[2] / "elsewhere")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("damage", [Path.unlink, _cut, _flip, _huge, _outside, _pipe])
@pytest.mark.parametrize("name", FILES[:4] + FILES[5:])
def test_a_file_that_is_not_as_it_was_is_named(folder: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(folder / name)
    refused(folder, name)


@pytest.mark.parametrize("damage", [_cut, _huge, _outside, _pipe])
def test_a_damaged_manifest_is_named(folder: Path, damage: Callable[[Path], None]) -> None:
    damage(folder / "pipeline.json")
    refused(folder, "pipeline.json")


def test_a_folder_without_a_pipeline_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no pipeline\.json: give a folder that `pmlm prepare` made, or make it"):
        Pipeline.load(tmp_path)


def test_a_file_of_another_pipeline_is_noticed(folder: Path, tmp_path: Path) -> None:
    Pipeline.fit(simulate_cohort(60, seed=1), PipelineConfig(k=3), seed=5, device="cpu").save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "peers.safetensors", folder / "peers.safetensors")
    assert "is damaged, or of another pipeline: prepare it again" in refused(folder, "peers.safetensors")


def change(folder: Path, **changes: Any) -> None:
    """Change the manifest; None removes a value."""
    path = folder / "pipeline.json"
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def forge(folder: Path, name: str, content: bytes) -> None:
    """Put in a file of one's own, with its checksum."""
    (folder / name).write_bytes(content)
    files = json.loads((folder / "pipeline.json").read_text())["files"]
    change(folder, files=files | {name: [len(content), hashlib.sha256(content).hexdigest()]})


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2}, {"format": None}, {"k": None}, {"k": "10"}, {"k": True}, {"k": 0}, {"k": 10**9},
        {"predictor": None}, {"predictor": "boosted-trees"}, {"retriever": {"name": 3, "kwargs": {}}},
        {"temperature": None}, {"temperature": "1"}, {"temperature": 0.0}, {"temperature": -1.0},
        {"files": None}, {"files": [1]}, {"files": {"peers.json": 3}}, {"retriever": {"name": "cosine", "kwargs": []}},
    ],
)  # fmt: skip
def test_a_manifest_with_other_values_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    change(folder, **changes)
    refused(folder, "pipeline.json")


@pytest.mark.parametrize("name", ["../secret.txt", "/etc/passwd"])
def test_a_manifest_cannot_point_out_of_its_folder(folder: Path, name: str) -> None:
    (folder.parent / "secret.txt").write_text("secret")
    change(folder, files={name: [6, "0"]})
    with pytest.raises(ValueError, match="outside its folder"):
        Pipeline.load(folder)


@pytest.mark.parametrize("part", ["predictor", "retriever"])
def test_a_manifest_that_names_a_class_imports_nothing(
    folder: Path, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil_stage.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    change(folder, **{part: {"name": "evil_stage:Evil", "kwargs": {}}})
    with pytest.raises(ValueError, match=f"the {part} is evil_stage:Evil, which is code from outside .*--allow-import"):
        Pipeline.load(folder)
    assert "evil_stage" not in sys.modules


def test_a_class_that_cannot_be_loaded_is_named(folder: Path) -> None:
    change(folder, predictor={"name": "tests.own_stages:First", "kwargs": {}})
    with pytest.raises(ValueError, match=r"the predictor tests\.own_stages:First lacks fit, predict_proba, save, load"):
        Pipeline.load(folder, allow_import=True)


@pytest.mark.parametrize(
    "content",
    [
        {}, [], {"ids": [], "labels": []}, {"ids": ["a"], "labels": ["x", "y"]},
        {"ids": ["a", "a"], "labels": ["x", "y"]}, {"ids": [1, 2], "labels": ["x", "y"]}, {"ids": "ab", "labels": "xy"},
    ],
)  # fmt: skip
def test_peers_that_are_none_are_refused(folder: Path, content: Any) -> None:
    forge(folder, "peers.json", json.dumps(content).encode())
    assert "peers.json is damaged" in refused(folder, "peers.json")


def test_the_peers_of_a_million_patients_with_long_ids_and_labels_are_read(tmp_path: Path) -> None:
    n = 1_000
    # A thousand labels of 150,000 characters take as much as a million of 150.
    patients = TrainingPatients(tuple(map(str, range(n))), ("x" * 150_000,) * n, np.zeros((n, 1), np.float32))
    patients.save(tmp_path)
    assert TrainingPatients.load(tmp_path, 1).label_of == patients.label_of


def test_a_huge_list_of_peers_is_refused(folder: Path) -> None:
    os.truncate(folder / "peers.json", 2**40)
    with pytest.raises(ValueError, match=r"peers\.json is larger than 256 MiB: it was not written by pmlm-env"):
        TrainingPatients.load(folder, 128)


@pytest.mark.parametrize(
    "tensors",
    [
        {"vectors": np.zeros((2, 128), np.float32)},
        {"vectors": np.zeros((60, 127), np.float32)},
        {"vectors": np.zeros((60, 128), np.float64)},
        {"others": np.zeros((60, 128), np.float32)},
        {"vectors": np.full((60, 128), np.nan, np.float32)},
    ],
)
def test_vectors_of_another_shape_are_refused(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    forge(folder, "peers.safetensors", save(tensors))
    refused(folder, "peers.safetensors")


def test_statistics_of_other_indicators_are_refused(folder: Path) -> None:
    tensors = {f"scaler.{name}": np.ones(3) for name in ("median", "mean", "sd")}
    forge(folder, "scaler.safetensors", save(tensors))
    assert "scaler.mean is F64 [3], expected F64 [35]" in refused(folder, "scaler.safetensors")


def test_a_pipeline_of_an_earlier_version_makes_episodes_without_check_ups(folder: Path) -> None:
    new = simulate_cohort(5, seed=2)
    with_them = Pipeline.load(folder).episodes(new)
    assert with_them.has_checkups
    files = json.loads((folder / "pipeline.json").read_text())["files"]
    (folder / "scaler.safetensors").unlink()
    change(folder, files={name: entry for name, entry in files.items() if name != "scaler.safetensors"})
    without = Pipeline.load(folder).episodes(new)
    assert not without.has_checkups
    assert without.digest == with_them.digest


def test_a_schema_that_is_none_is_refused(folder: Path) -> None:
    forge(folder, "schema.json", b'{"indicators": []}')
    refused(folder, "schema.json")


def test_a_schema_with_other_indicators_is_refused(folder: Path) -> None:
    content = json.loads((folder / "schema.json").read_text())
    content["indicators"].reverse()
    forge(folder, "schema.json", json.dumps(content).encode())
    assert "indicators[0] is 'pH', expected 'rbc': fit the encoder again" in refused(folder, "patient_encoder.json")


def test_a_template_of_a_stranger_is_checked(folder: Path) -> None:
    forge(folder, "template.txt", b"self: {0.__class__}")
    refused(folder, "template.txt")


def test_a_predictor_of_other_labels_is_refused(folder: Path) -> None:
    content = json.loads((folder / "peers.json").read_text())
    content["labels"][0] = "something else"
    forge(folder, "peers.json", json.dumps(content).encode())
    assert "not the training patients' labels" in refused(folder, "predictor")


class Unknown:
    """A type that no boosted tree has."""


def test_types_that_no_boosted_tree_has_are_refused_by_name(folder: Path) -> None:
    model = HistGradientBoostingClassifier()
    model.attribute = Unknown()
    forge(folder, "predictor/model.skops", dumps(model))
    line = refused(folder, "predictor/model.skops")
    assert "Unknown" in line
    assert "not part of such a model" in line


def test_a_compressed_model_is_refused_before_it_is_unpacked(folder: Path) -> None:
    path = folder / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("schema.json", b" " * 2**24)
    forge(folder, "predictor/model.skops", path.read_bytes())
    assert "is compressed" in refused(folder, "predictor/model.skops")


def test_another_model_is_refused(folder: Path) -> None:
    forge(folder, "predictor/model.skops", dumps(np.arange(3)))
    assert "is not the model that predictor.json describes" in refused(folder, "predictor/model.skops")


@pytest.mark.parametrize(
    ("field", "value"),
    [("left", 10**6), ("right", 0), ("feature_idx", 10**9), ("feature_idx", -7), ("is_categorical", 1)],
)
def test_trees_that_lead_out_of_memory_are_refused(folder: Path, field: str, value: int) -> None:
    predictor = Pipeline.load(folder).predictor
    assert isinstance(predictor, BoostedTrees)
    predictor._model._predictors[-1][-1].nodes[field][0] = value
    for model in (predictor._packed(), predictor._model):  # the latter as written before trees were packed
        forge(folder, "predictor/model.skops", dumps(model))
        assert "is not the model that predictor.json describes" in refused(folder, "predictor/model.skops")


@pytest.mark.parametrize("sizes", [[[3]], [[10**9]], [[-1, 4]], [[0.5]], [], "3", None])
def test_trees_that_are_packed_otherwise_are_refused(folder: Path, sizes: Any) -> None:
    predictor = Pipeline.load(folder).predictor
    assert isinstance(predictor, BoostedTrees)
    model = predictor._packed()
    model._n_nodes = sizes if sizes is None or isinstance(sizes, str) else np.array(sizes)
    forge(folder, "predictor/model.skops", dumps(model))
    assert "is not the model that predictor.json describes" in refused(folder, "predictor/model.skops")


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"labels": []},
        {"labels": ["b", "a"]},
        {"labels": [1, 2]},
        {"scikit-learn": "\x1b[2J"},
        {"scikit-learn": 1},
        {"columns": [10**6]},
        {"columns": None},
    ],
)
def test_a_description_of_other_trees_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    path = folder / "predictor" / "predictor.json"
    forge(folder, "predictor/predictor.json", json.dumps(json.loads(path.read_text()) | changes).encode())
    refused(folder, "predictor/predictor.json")


def test_another_version_of_scikit_learn_is_said_in_one_line(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = folder / "predictor" / "predictor.json"
    content = json.loads(path.read_text()) | {"scikit-learn": "1.2.3"}
    forge(folder, "predictor/predictor.json", json.dumps(content).encode())
    Pipeline.load(folder)
    (line,) = caplog.messages
    assert "was fitted with scikit-learn 1.2.3, and this is 1." in line
    (folder / "predictor" / "model.skops").write_bytes(b"PK")
    forge(folder, "predictor/model.skops", b"PK")
    assert "it was fitted with scikit-learn 1.2.3, and this is 1." in refused(folder, "predictor/model.skops")
