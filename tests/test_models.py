from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pmlm_env.device import choose_device
from pmlm_env.models import BUNDLED, BundledModel, ModelError, resolve


def test_a_directory_is_itself_and_a_hub_name_stays(tmp_path: Path) -> None:
    assert resolve(str(tmp_path)) == str(tmp_path.resolve())
    assert resolve("google-bert/bert-base-uncased") == "google-bert/bert-base-uncased"


def test_a_path_that_does_not_exist_is_not_taken_for_a_hub_name() -> None:
    with pytest.raises(ModelError, match=r"no such model directory: \./nowhere. Bundled models: minilm"):
        resolve("./nowhere")


def test_a_package_that_is_not_installed_says_how_to_get_it() -> None:
    missing = BundledModel("none==1", "no_such_module_here", "x", "0", "a model")
    with pytest.raises(ModelError, match="pmlm models --fetch"):
        missing.check()


def test_a_damaged_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "weights_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "w.bin").write_bytes(b"right")
    monkeypatch.syspath_prepend(tmp_path)
    model = BundledModel("x==1", "weights_package", "w.bin", hashlib.sha256(b"right").hexdigest(), "x")
    model.check()
    (package / "w.bin").write_bytes(b"wrong")
    with pytest.raises(ModelError, match="has SHA-256"):
        model.check()


def test_every_bundled_model_is_pinned_and_hashed() -> None:
    for model in BUNDLED.values():
        assert "==" in model.requirement
        assert len(bytes.fromhex(model.sha256)) == 32


def test_a_device_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="use auto, cpu, cuda"):
        choose_device("tpu")
    import torch

    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="sees no GPU"):
            choose_device("cuda")
