"""Encoders, scorers and language models from a folder of somebody else's: no code of theirs, no pickle, one line."""

from __future__ import annotations

import ast
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from agents.baselines.self_information import LocalLM
from pmlm_env import EpisodeSet
from pmlm_env.encoders.bert import WordEncoder
from pmlm_env.rewards.bertscore import BertScorer
from tests.commands import pmlm
from tests.standins import make_episodes

ROOT = Path(__file__).parents[2]
OWN_CODE = {"model_type": "stranger", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder with a tokenizer, all of it as it should be."""
    folder = tmp_path_factory.mktemp("whole")
    words = Tokenizer(WordLevel({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=words, **names).save_pretrained(folder)
    shape = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=4, max_position_embeddings=16, **shape)).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to damage, beside a module that must not be imported; nobody is there to answer questions."""
    shutil.copytree(whole, tmp_path / "model")
    (tmp_path / "model" / "evil.py").write_text("import pathlib; pathlib.Path(__file__).with_name('ran').touch()\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    return tmp_path / "model"


def _encode(folder: Path) -> torch.Tensor:
    return WordEncoder(str(folder), "cpu").encode([["well", "now"]], np.ones((1, 2), dtype=np.bool_))


def _change(folder: Path, file: str = "config.json", **values: Any) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def _pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _not_finite(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["embeddings.LayerNorm.bias"][3] = float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:99])


def _without_special_tokens(folder: Path) -> None:
    _change(folder, "tokenizer_config.json", cls_token=None, sep_token=None)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "code of its own": (lambda f: _change(f, **OWN_CODE), "needs custom code, which is never run"),
    "a kernel": (lambda f: _change(f, _attn_implementation="stranger/kernel"), "needs custom code"),
    "pickled weights": (
        _pickled,
        r"has only pickled weights \(pytorch_model.bin\), which are never loaded.*python -c",
    ),
    "an adapter": (lambda f: (f / "adapter_config.json").write_text("{}"), "is an adapter"),
    "quantized": (lambda f: _change(f, quantization_config={"quant_method": "mxfp4"}), "is quantized"),
    "more layers": (lambda f: _change(f, num_hidden_layers=3), "its weights lack encoder.layer.2"),
    "endless layers": (
        lambda f: _change(f, num_hidden_layers=10**7),
        "num_hidden_layers = 10,000,000: the limit is 1,000",
    ),
    "huge": (lambda f: _change(f, hidden_size=10**9), "its hidden_size is 1000000000, not 1 to 8,192"),
    "a huge vocabulary": (
        lambda f: _change(f, vocab_size=10**12),
        "describes .* weights, but the files have only .* bytes",
    ),
    "other shapes": (lambda f: _change(f, intermediate_size=10), "do not match its config.json"),
    "a size that is text": (lambda f: _change(f, hidden_size="8"), "hidden_size"),
    "no sizes": (lambda f: (f / "config.json").write_text('{"model_type": "clip"}'), "is not an encoder"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), "cannot be loaded"),
    "another JSON": (lambda f: (f / "config.json").write_text("[]"), "cannot be loaded"),
    "nested JSON": (lambda f: (f / "config.json").write_text("[" * 10**5), "cannot be loaded"),
    "damaged tokenizer": (lambda f: (f / "tokenizer.json").write_text("{"), "cannot be loaded"),
    "no special tokens": (_without_special_tokens, "has no cls_token or sep_token"),
    "not finite": (_not_finite, "embeddings.LayerNorm.bias has numbers that are not finite"),
    "truncated": (_truncated, "bytes: download the model again"),
    "bytes that are no weights": (lambda f: (f / "model.safetensors").write_bytes(bytes(10**4)), "cannot be loaded"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no weights"),
}


def test_an_encoder_of_ones_own_is_loaded(folder: Path) -> None:
    assert _encode(folder).isfinite().all()


@pytest.mark.parametrize("kind", DAMAGE)
def test_an_encoder_that_cannot_be_is_refused_in_one_line_that_names_it(folder: Path, kind: str) -> None:
    damage, message = DAMAGE[kind]
    damage(folder)
    with pytest.raises((ValueError, OSError), match=message) as caught:
        _encode(folder)
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)
    assert not (folder / "ran").exists()


def test_where_transformers_has_the_architecture_a_models_own_code_is_left_out(whole: Path, folder: Path) -> None:
    expected = _encode(whole)
    _change(folder, auto_map=OWN_CODE["auto_map"])
    _change(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Slow", "evil.Fast"]})
    assert torch.equal(_encode(folder), expected)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("kind", ["code of its own", "pickled weights", "not finite"])
def test_a_scorer_is_refused_alike(folder: Path, kind: str) -> None:
    damage, message = DAMAGE[kind]
    damage(folder)
    with pytest.raises(ValueError, match=message):
        BertScorer(str(folder), num_layers=1, device="cpu").score(["well"], ["well"])
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("kind", ["code of its own", "pickled weights"])
def test_the_model_that_measures_self_information_is_refused_alike(folder: Path, kind: str) -> None:
    damage, message = DAMAGE[kind]
    damage(folder)
    with pytest.raises(ValueError, match=message):
        _ = LocalLM(str(folder), "cpu")._model
    assert not (folder / "ran").exists()


def test_the_command_that_the_refusal_names_makes_the_model_loadable(whole: Path, folder: Path) -> None:
    expected = _encode(whole)
    folder = folder.rename(folder.with_name("a 'model' of \"$(touch ran)`touch ran`"))
    _pickled(folder)
    with pytest.raises(ValueError, match="python -c") as caught:
        _encode(folder)
    _, option, code = shlex.split(str(caught.value).partition("if you trust them: ")[2])
    subprocess.run([sys.executable, option, code], check=True, capture_output=True)
    assert torch.equal(_encode(folder), expected)
    assert not Path("ran").exists()


def test_a_refused_encoder_ends_a_command_with_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    EpisodeSet(make_episodes(4)).save(tmp_path / "prepared")
    _change(folder, **OWN_CODE)
    run = ["--episodes", str(tmp_path / "prepared"), "--run", str(tmp_path / "run"), "--device", "cpu"]
    assert pmlm("train", *run, "--llm", "responder", "--encoder", folder) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"pmlm train: {folder} needs custom code, which is never run: choose a model whose architecture is "
        "built into transformers"
    ]


def _calls() -> list[tuple[str, str, dict[str, object]]]:
    """Every call in the sources that may load what somebody else made: where, what, with which constants."""
    found = []
    for path in sorted(
        p for part in ("pmlm_env", "agents", "benchmarks", "examples") for p in (ROOT / part).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                constants = {k.arg: k.value.value for k in node.keywords if k.arg and isinstance(k.value, ast.Constant)}
                found.append((f"{path.relative_to(ROOT)}:{node.lineno}", ast.unparse(node.func), constants))
    return found


def test_every_call_that_loads_a_model_refuses_its_code_and_its_pickles() -> None:
    loaders = ("from_pretrained", "from_config")
    loading = [call for call in _calls() if call[1].endswith(loaders) and "auto" in call[1].lower()]
    assert len(loading) >= 6
    for where, function, constants in loading:
        if function == "AutoModelForCausalLM.from_config":  # of what ``AutoConfig.for_model`` made
            continue
        assert constants.get("trust_remote_code") is False, where
        if function.endswith("from_pretrained") and "Config" not in function and "Tokenizer" not in function:
            assert constants.get("use_safetensors") is True, where


#: Files that import modules by name: of ours, from tables in them, and those that the user asks for.
BY_NAME = {"pmlm_env/__init__.py", "pmlm_env/pipeline/__init__.py", "pmlm_env/registry.py", "agents/cli/main.py"}


def test_nothing_in_the_sources_unpickles_or_evaluates() -> None:
    forbidden = {"eval", "exec", "compile", "__import__", "torch.load", "importlib.import_module"}
    modules = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml"}
    for where, function, constants in _calls():
        assert function not in forbidden, where
        assert function != "import_module" or where.partition(":")[0] in BY_NAME, where
        assert function.split(".")[0] not in modules, where
        assert constants.get("allow_pickle") is not True, where
