"""Folders and files that hold no model that can be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModel

from pmlm_env.llm.local.local_llm import LocalLLM
from pmlm_env.weights import ModelError
from tests.llm.local.replies import error_of
from tests.llm.tiny_llms import tiny_model


def _adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"")


def _pickled(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"")


def _two_files(folder: Path) -> None:
    for name in ("q4.gguf", "q8.gguf"):
        (folder / name).write_bytes(b"")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_adapter, "is an adapter for another model: merge it into that model first"),
        (_pickled, r"has only pickled weights \(pytorch_model.bin\), which are never loaded; convert them"),
        (_two_files, "contains 2 GGUF files: choose one, such as"),
        (lambda folder: None, r"has no weights \(model.safetensors\): download the model again"),
    ],
)
def test_a_folder_of_another_kind_is_refused_at_once(tmp_path: Path, make: Any, says: str) -> None:
    make(tmp_path)
    with pytest.raises(ModelError, match=says):
        LocalLLM(str(tmp_path))


def test_a_file_of_another_kind_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"is a file: give a folder in Hugging Face's format, or a \.gguf file"):
        LocalLLM(str(tmp_path / "model.bin"))


def test_a_damaged_gguf_file_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(100))
    assert "cannot be loaded: " in error_of(tmp_path / "model.gguf")


def test_a_model_that_needs_code_of_its_own_is_refused_and_its_code_not_run(tmp_path: Path) -> None:
    tiny_model(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config.update(model_type="strange", auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"})
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    (tmp_path / "model" / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    assert "needs custom code, which is never run" in error_of(tmp_path / "model")
    assert not (tmp_path / "ran").exists()


def test_a_folder_whose_weights_are_no_language_model_is_refused(tmp_path: Path) -> None:
    tiny_model(tmp_path, tie_word_embeddings=False)
    AutoModel.from_pretrained(tmp_path).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaForCausalLM"]}))
    assert "its weights lack lm_head.weight (missing: 1): download the model again" in error_of(tmp_path)


def test_truncated_weights_are_named_in_one_line(tmp_path: Path) -> None:
    tiny_model(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    assert "cannot be loaded: " in error_of(tmp_path) or "bytes: download the model again" in error_of(tmp_path)
