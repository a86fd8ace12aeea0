"""Several processes that fine-tune together learn what one learns."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from pmlm_env.llm.lora.adapters import Adapter
from pmlm_env.llm.lora.settings import LoraSettings
from pmlm_env.llm.lora.training import fine_tune
from pmlm_env.llm.lora.tunable import TunableLM
from pmlm_env.processes import Processes
from tests import fresh
from tests.llm.lora.conftest import Load
from tests.llm.lora.tuned_together import EXAMPLES, SETTINGS, VALIDATION, tuned
from tests.llm.tiny_llms import tiny_model


@pytest.fixture(scope="module")
def dropping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model that has dropout."""
    folder = tmp_path_factory.mktemp("models") / "dropping"
    tiny_model(folder, num_hidden_layers=2, attention_dropout=0.3)
    return folder


def _together(model: Path, tmp_path: Path) -> Path:
    """Let two processes fine-tune a model, and return the folder of the adapters."""
    env = {**os.environ, "PMLM_CACHE": str(tmp_path / "cache")}
    out = tmp_path / "out"
    for ended in fresh.run_together(2, "-m", "tests.llm.lora.tuned_together", model, out, env=env):
        assert ended.returncode == 0, ended.stderr
    return out


def _check_same(found: Adapter, expected: Adapter) -> None:
    assert found.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        torch.testing.assert_close(found.tensors[name], tensor, rtol=0, atol=1e-5)


def test_the_adapters_of_two_processes_are_those_of_one_even_with_dropout(dropping: Path, tmp_path: Path) -> None:
    out = _together(dropping, tmp_path)
    for name, expected in tuned(str(dropping)).items():
        assert any(tensor.any() for key, tensor in expected.tensors.items() if "lora_B" in key)
        _check_same(Adapter.load(out / name), expected)


def test_two_processes_go_on_where_one_was_interrupted(
    dropping: Path, tmp_path: Path, load: Load, adapters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = load(dropping)
    scores = iter([-100.0])
    with monkeypatch.context() as patch:
        patch.setattr("pmlm_env.llm.lora.training.validation_score", lambda *_: lambda: next(scores))
        with pytest.raises(StopIteration):
            fine_tune(lm, EXAMPLES, VALIDATION, SETTINGS, seed=1)
    (begun,) = adapters.iterdir()
    assert [path.name for path in begun.iterdir() if path.name != ".lock"] == ["training.safetensors"]
    (tmp_path / "cache").mkdir()
    adapters.rename(tmp_path / "cache" / "lora")
    out = _together(dropping, tmp_path)
    _check_same(Adapter.load(out / "likelihood"), fine_tune(lm, EXAMPLES, VALIDATION, SETTINGS, seed=1))


def test_more_processes_than_examples_in_a_batch_are_refused(lm: TunableLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pmlm_env.llm.lora.training.helping", lambda: Processes(0, 4))
    with pytest.raises(ValueError, match=r"a batch has 3 examples, too few for 4 processes: start at most 3"):
        fine_tune(lm, EXAMPLES, VALIDATION, LoraSettings(batch_size=3))
