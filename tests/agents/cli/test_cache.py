from __future__ import annotations

import json
import os
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents.cli import cache as command
from agents.cli.reading import read
from pmlm_env.llm.base import Completion, Request
from pmlm_env.llm.lora.kept import adapter_folder
from pmlm_env.llm.storage.cache import CachedReply, ReplyCache
from tests.commands import pmlm

pytestmark = pytest.mark.once

SMALL = '{"base_url": "https://example.org/v1", "model": "small", "temperature": 0}'
ODD = "她 \ud800\0\"' \n\u2028"


def pmlm_cache(*arguments: object) -> None:
    command.run(read("cache", command.Config, [str(a) for a in arguments]))


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run with two replies of one LLM and one, a year old, of another."""
    folder = tmp_path / "run"
    cache = ReplyCache(folder / "replies.sqlite")
    cache.put(
        SMALL, {Request("a"): Completion("re a", 10, 2, "stop"), Request(ODD, 1): Completion(ODD, 20, 3, "length")}
    )
    old = {"text": "re b", "prompt_tokens": 5, "completion_tokens": 1, "finish_reason": "stop", "model": ""}
    cache.add([CachedReply({"llm": "responder:v1", "prompt": "b", "sample": 0}, old, time.time() - 365 * 86400)])
    return folder


def kept(path: Path) -> list[CachedReply]:
    return list(ReplyCache(path / "replies.sqlite" if path.is_dir() else path))


def test_stats_count_replies_and_tokens_by_llm(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pmlm_cache("stats", run_folder)
    out = capsys.readouterr().out
    assert re.search(r"replies.sqlite: 3 replies, \d+\.\d MB\ncached from \d{4}-.* to \d{4}-", out)
    assert re.search(r"\n +2 +30 +5  small at https://example.org/v1\n +1 +5 +1  responder:v1\n", out)


def test_stats_tell_pools_with_a_model_of_the_same_name_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = ReplyCache(tmp_path / "a")
    for pool in ("ward", "clinic"):
        cache.put(f'{{"endpoints": "{pool}", "model": "m"}}', {Request("a"): Completion("re a", 10, 2, "stop")})
    pmlm_cache("stats", tmp_path / "a")
    out = capsys.readouterr().out
    assert re.search(r" 1 +10 +2  m at ward\n", out)
    assert re.search(r" 1 +10 +2  m at clinic\n", out)


def test_stats_of_an_empty_cache_have_no_dates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ReplyCache(tmp_path / "a").check_writable()
    pmlm_cache("stats", tmp_path / "a")
    assert re.fullmatch(r"\S+/a: 0 replies, 0.\d MB\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (("--older-than-days", "30"), {"a", ODD}),
        (("--llm", "small"), {"b"}),
        (("--llm", '"temperature": 0'), {"b"}),
        (("--llm", "small", "--older-than-days", "30"), {"a", ODD, "b"}),
        (("--older-than-days", "0"), set()),
    ],
)
def test_prune_removes_what_meets_the_options(
    run_folder: Path, options: tuple[str, ...], left: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    pmlm_cache("prune", run_folder, *options)
    assert {reply.request["prompt"] for reply in kept(run_folder)} == left
    assert capsys.readouterr().out == f"{3 - len(left)} replies removed\n"


def test_prune_gives_the_room_back(tmp_path: Path) -> None:
    cache = ReplyCache(tmp_path / "a")
    cache.put("llm", {Request(f"secret {i}" * 100): Completion("re", 1, 1, "stop") for i in range(1000)})
    cache.close()
    before = (tmp_path / "a").stat().st_size
    pmlm_cache("prune", tmp_path / "a", "--llm", "llm")
    assert (tmp_path / "a").stat().st_size < before / 10
    assert b"secret" not in (tmp_path / "a").read_bytes()


@pytest.mark.parametrize("options", [(), ("--llm", ""), ("--older-than-days", "-1"), ("--older-than-days", "nan")])
def test_prune_wants_to_know_which(run_folder: Path, options: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="--older-than-days"):
        pmlm_cache("prune", run_folder, *options)
    assert len(kept(run_folder)) == 3


def test_what_is_exported_and_imported_is_the_same(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pmlm_cache("export", run_folder, tmp_path / "out.jsonl")
    pmlm_cache("import", tmp_path / "copy", tmp_path / "out.jsonl")
    assert kept(tmp_path / "copy") == kept(run_folder)
    out = tmp_path / "out.jsonl"
    assert capsys.readouterr().out == f"3 replies written to {out}\n3 replies in {out}, 3 of them new\n"


def test_an_export_is_plain_json_lines_for_its_owner_alone(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    pmlm_cache("export", run_folder, out)
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").split("\n")[:-1]]
    assert [set(line) for line in lines] == [{"request", "reply", "created"}] * 3
    assert {line["request"]["prompt"] for line in lines} == {"a", "b", ODD}
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_two_exports_of_the_same_replies_are_equal(run_folder: Path, tmp_path: Path) -> None:
    ReplyCache(tmp_path / "other").add(reversed(kept(run_folder)))
    pmlm_cache("export", run_folder, tmp_path / "1.jsonl")
    pmlm_cache("export", tmp_path / "other", tmp_path / "2.jsonl")
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()


def test_an_export_overwrites_nothing(run_folder: Path) -> None:
    with pytest.raises(ValueError, match="already exists: choose another file"):
        pmlm_cache("export", run_folder, run_folder / "replies.sqlite")
    assert len(kept(run_folder)) == 3


def test_an_export_that_fails_leaves_no_half(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object) -> Any:
        yield replies[0]
        raise OSError("the disk is full")

    replies = kept(run_folder)
    monkeypatch.setattr(command.ReplyCache, "__iter__", fail)
    with pytest.raises(OSError, match="full"):
        pmlm_cache("export", run_folder, tmp_path / "out.jsonl")
    assert os.listdir(tmp_path) == ["run"]


def test_an_import_leaves_what_is_there_and_says_what_was_new(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = ReplyCache(tmp_path / "mine")
    cache.put(SMALL, {Request("a"): Completion("my own", 10, 2, "stop")})
    pmlm_cache("export", run_folder, tmp_path / "out.jsonl")
    pmlm_cache("import", tmp_path / "mine", tmp_path / "out.jsonl")
    assert capsys.readouterr().out.endswith("3 replies in " + str(tmp_path / "out.jsonl") + ", 2 of them new\n")
    assert len(cache) == 3
    assert cache.get(SMALL, [Request("a")])[0].text == "my own"


def changed(**parts: object) -> Callable[[dict[str, Any]], object]:
    def change(line: dict[str, Any]) -> object:
        for path, value in parts.items():
            target = line
            *parents, last = path.split("__")
            for parent in parents:
                target = target[parent]
            target[last] = value
        return line

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: "{" + json.dumps(line), "it is not JSON"),
        (lambda line: [line], "it should be an object of request, reply, created"),
        (lambda line: {**line, "more": 1}, "it should be an object of request, reply, created"),
        (changed(request="secret"), "request should be an object of llm, prompt, sample"),
        (changed(request__prompt=7), "request.prompt should be text"),
        (changed(request__sample=True), "request.sample should be a whole number"),
        (changed(request__llm=None), "request.llm should be an object or text"),
        (changed(reply__text=None), "reply.text should be text"),
        (changed(reply__prompt_tokens=1.5), "reply.prompt_tokens should be a whole number"),
        (changed(reply__finish_reason="secret"), "reply.finish_reason should be stop or length"),
        (changed(created="2026"), "created should be a number"),
        (changed(created=float("nan")), "created should be seconds since 1970"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_imported(
    run_folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    pmlm_cache("export", run_folder, tmp_path / "out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    bad = change(json.loads(lines[1]))
    lines[1] = bad if isinstance(bad, str) else json.dumps(bad)
    (tmp_path / "bad.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="^" + re.escape(f"{tmp_path}/bad.jsonl, line 2: {message}; nothing was")) as e:
        pmlm_cache("import", tmp_path / "new", tmp_path / "bad.jsonl")
    assert "secret" not in str(e.value)
    assert not (tmp_path / "new").exists()


def test_a_file_cut_short_or_not_in_utf_8_is_a_bad_line(run_folder: Path, tmp_path: Path) -> None:
    pmlm_cache("export", run_folder, tmp_path / "out.jsonl")
    content = (tmp_path / "out.jsonl").read_bytes()
    for bad, line in ((content[:-20], 3), (b"\xff\xfe" + content, 1), (content + b"\n", 4)):
        (tmp_path / "bad.jsonl").write_bytes(bad)
        with pytest.raises(ValueError, match=f"line {line}: it is not JSON"):
            pmlm_cache("import", tmp_path / "new", tmp_path / "bad.jsonl")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("stats", "missing"), "missing does not exist"),
        (("stats", "empty"), "empty has no replies.sqlite"),
        (("prune", "missing", "--llm", "x"), "missing does not exist"),
        (("export", "missing", "out"), "missing does not exist"),
        (("import", "new", "missing"), "missing is not a file"),
        (("import", "missing/new", "file"), "missing/new does not exist"),
    ],
)
def test_a_path_that_is_not_there_is_one_line_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("file").touch()
    with pytest.raises(ValueError, match=f"^{message}: "):
        pmlm_cache(*arguments)
    assert sorted(os.listdir()) == ["empty", "file"]


def test_an_export_needs_a_folder_that_is_there(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="missing does not exist: create it first"):
        pmlm_cache("export", run_folder, tmp_path / "missing" / "out")


# Adapters


@pytest.fixture
def adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder with two adapters, and the folder that they are in."""
    monkeypatch.setenv("PMLM_CACHE", str(tmp_path))
    for name in ("one", "two"):
        with adapter_folder(name) as folder:
            (folder / "adapter.safetensors").write_bytes(bytes(600_000))
    return tmp_path / "lora"


def test_adapters_are_counted_and_removed(adapters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pmlm("cache", "adapters") == 0
    assert capsys.readouterr().out == f"{adapters}: 2 adapters, 1.2 MB\n"
    assert pmlm("cache", "adapters", "--remove") == 0
    assert capsys.readouterr().out == f"2 adapters removed from {adapters}\n"
    assert [*adapters.iterdir()] == []
    assert pmlm("cache", "adapters") == 0
    assert capsys.readouterr().out == f"{adapters}: 0 adapters, 0.0 MB\n"


def test_an_adapter_that_is_being_trained_is_not_removed(adapters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with adapter_folder("two") as folder:
        assert pmlm("cache", "adapters", "--remove") == 2
        assert f"the adapter in {folder} is being trained: wait until that ends" in capsys.readouterr().err
        assert (folder / "adapter.safetensors").is_file()
