"""`pmlm train --wandb PROJECT`, with the real package in its offline mode."""

from __future__ import annotations

import json
import logging
import re
import struct
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from agents.run_folder import RunFolder
from pmlm_env.core.episodes import EpisodeSet
from tests.real.runs import error, prepare, small_bert, train

pytestmark = [pytest.mark.once, pytest.mark.real]

needs_wandb = pytest.mark.skipif(find_spec("wandb") is None, reason="needs wandb: pip install 'pmlm-env[wandb]'")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("work") / "prepared")


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let wandb neither send anything nor read or write anything in the home folder."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "HOME"):
            patch.setenv(name, str(home))
        yield


@pytest.fixture
def read_anew() -> Iterator[None]:
    """Let wandb read the environment again, which it does once in a process."""
    import wandb

    wandb.teardown()
    yield
    wandb.teardown()


@pytest.fixture(scope="module")
def run(prepared: Path, offline: None) -> RunFolder:
    """A run of two updates."""
    run = RunFolder(prepared.parent / "mine")
    assert train(prepared, run.path, "--wandb", "prompts") == 0
    assert len(run.metrics()) == 2
    return run


def records(folder: Path) -> list[Any]:
    """Read what wandb has written of the one run in a folder: a LevelDB log of protobuf messages."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    content, found, at = file.read_bytes(), [], 7
    assert len(content) < 32768  # one block, in which every record is whole
    while at < len(content):
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        assert kind == 1
        found.append(Record.FromString(content[at + 7 : at + 7 + length]))
        at += 7 + length
    return found


def history(folder: Path) -> list[dict[str, Any]]:
    """The metrics of each step."""
    steps = [record.history for record in records(folder) if record.WhichOneof("record_type") == "history"]
    return [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in step.item} | {"step": step.step.num}
        for step in steps
    ]


@needs_wandb
def test_wandb_has_the_numbers_of_every_update(run: RunFolder) -> None:
    sent = history(run.path)
    assert [line["step"] for line in sent] == [1, 2]
    for line, ours in zip(sent, run.metrics(), strict=True):
        numbers = {f"train/{name}": value for name, value in ours.items() if name not in ("update", "deltas")}
        assert {name: value for name, value in line.items() if name in numbers} == pytest.approx(numbers)
        assert set(line) - set(numbers) == {"step", "_step", "_runtime", "_timestamp"}


@needs_wandb
def test_the_run_has_the_name_of_its_folder_and_the_settings(run: RunFolder) -> None:
    (started,) = [record.run for record in records(run.path) if record.WhichOneof("record_type") == "run"]
    config = {item.key: json.loads(item.value_json) for item in started.config.update}
    assert (started.project, started.display_name) == ("prompts", "mine")
    assert (config["agent"], config["budget"], config["llm"], config["n_edits"]) == (
        "leave-one-out",
        12,
        "responder",
        2,
    )
    assert config["settings"] == run.settings()["settings"]


@needs_wandb
def test_nothing_of_a_patient_is_in_any_file_of_wandb(run: RunFolder, prepared: Path) -> None:
    written = b"".join(file.read_bytes() for file in (run.path / "wandb").rglob("*") if file.is_file())
    assert b"train/delta" in written
    for episode in EpisodeSet.load(prepared):
        for text in (episode.label, episode.prompt[:30], episode.reference[:30]):
            assert text.encode() not in written
        # As a word of its own: "test-1" is also in the name of pytest's folder, pytest-1009.
        assert not re.search(rf"\b{episode.patient_id}\b".encode(), written)
    for secret in (b"--episodes", str(prepared).encode()):  # of the command line, which may have anything
        assert secret not in written


@needs_wandb
def test_a_model_in_a_folder_is_named_without_the_path_to_it(run: RunFolder) -> None:
    written = b"".join(file.read_bytes() for file in (run.path / "wandb").rglob("*") if file.is_file())
    assert str(small_bert()).encode() not in written
    (started,) = [record.run for record in records(run.path) if record.WhichOneof("record_type") == "run"]
    config = {item.key: json.loads(item.value_json) for item in started.config.update}
    assert (config["encoder"], config["scorer"]) == (small_bert().name, small_bert().name)


@needs_wandb
def test_nothing_of_the_machine_is_sent_but_its_kind_and_versions(run: RunFolder) -> None:
    found = records(run.path)
    kinds = {record.WhichOneof("record_type") for record in found}
    assert not kinds & {"environment", "files", "stats", "output", "output_raw", "output_logger", "artifact"}
    (started,) = [record.run for record in found if record.WhichOneof("record_type") == "run"]
    assert (started.host, started.git.remote_url) == ("", "")


@needs_wandb
def test_the_project_is_not_stored_so_that_a_run_of_somebody_else_sends_nothing(run: RunFolder, prepared: Path) -> None:
    assert "prompts" not in run.config.read_text()
    before = len(list(run.path.glob("wandb/offline-run-*")))
    assert train(prepared, run.path, "--resume", budget=16) == 0
    assert len(run.metrics()) == 3
    assert len(list(run.path.glob("wandb/offline-run-*"))) == before


@needs_wandb
def test_a_resumed_run_goes_on_with_the_next_update(prepared: Path, offline: None, tmp_path: Path) -> None:
    assert train(prepared, tmp_path / "mine") == 0
    assert train(prepared, tmp_path / "mine", "--resume", "--wandb", "prompts", budget=16) == 0
    assert [line["step"] for line in history(tmp_path / "mine")] == [3]


@needs_wandb
def test_the_command_says_how_to_upload(
    prepared: Path, offline: None, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    assert train(prepared, tmp_path / "mine", "--wandb", "prompts") == 0
    (folder,) = (tmp_path / "mine" / "wandb").glob("offline-run-*")
    assert f"Weights & Biases: to upload the metrics, wandb sync {folder}" in caplog.messages
    assert "wandb:" not in "".join(capsys.readouterr())


@needs_wandb
def test_training_goes_on_if_wandb_fails(
    prepared: Path, offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import wandb

    def broken(*given: object, **more: object) -> None:
        raise ConnectionError("the service\nhas ended.")

    monkeypatch.setattr(wandb.Run, "log", broken)
    assert train(prepared, tmp_path / "mine", "--wandb", "prompts") == 0
    assert len(RunFolder(tmp_path / "mine").metrics()) == 2
    said = [line for line in caplog.messages if "Weights & Biases gets no more" in line]
    assert said == ["Weights & Biases gets no more metrics of this run: the service has ended"]


@needs_wandb
@pytest.mark.usefixtures("offline", "read_anew")
def test_without_a_login_the_command_says_in_one_line_how_to_go_on(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody answers there
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    run = tmp_path / "mine"
    assert train(prepared, run, "--wandb", "prompts") == 1
    said = error(capsys)
    assert said.startswith("pmlm train: --wandb: Weights & Biases started no run: ")
    assert "log in with `wandb login`, set WANDB_MODE=offline, or leave out --wandb" in said
    assert said.endswith(f"continue with pmlm train --run {run} --resume --wandb prompts")


@needs_wandb
def test_a_name_that_no_project_can_have_is_refused_before_anything_begins(
    prepared: Path, offline: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(prepared, tmp_path / "mine", "--wandb", "a/b") == 2
    assert error(capsys).startswith("pmlm train: --wandb 'a/b' is no name of a project: ")
    assert train(prepared, tmp_path / "mine", "--wandb", "") == 2
    assert error(capsys) == "pmlm train: --wandb needs the name of a project on Weights & Biases"
    assert not (tmp_path / "mine" / "config.json").exists()


def test_without_the_package_the_command_says_how_to_get_it(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert train(prepared, tmp_path / "mine", "--wandb", "prompts") == 2
    assert error(capsys) == "pmlm train: --wandb needs wandb: install it with `pip install 'pmlm-env[wandb]'`"
    assert not (tmp_path / "mine" / "config.json").exists()
