"""TOML files from anybody: an error is one line that names the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pmlm_env.io.toml import read_toml


def fault(path: Path) -> str:
    with pytest.raises(ValueError, match=path.name) as caught:
        read_toml(path)
    assert str(caught.value).isprintable()
    return str(caught.value)


def written(folder: Path, raw: bytes) -> Path:
    path = folder / "file.toml"
    path.write_bytes(raw)
    return path


def test_a_file_is_read_with_or_without_the_mark_that_windows_puts_before_it(tmp_path: Path) -> None:
    for mark in (b"", b"\xef\xbb\xbf"):
        assert read_toml(written(tmp_path, mark + 'a = "é"\r\n'.encode())) == {"a": "é"}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"a = ", "is not TOML: Invalid value"),
        (b"\xff\xfe", "is not TOML: 'utf-8' codec can't decode byte 0xff"),
        (b"a = " + b"[" * 40_000, "nested too deeply"),
        (b"a = " + b"{b = " * 5_000, "nested too deeply"),
        (b"#" * 50_001, "is larger than 50,000 bytes: choose another file"),
        (b"a = nan", "'a' is nan, which is not allowed"),
        (b"[t]\na = [1, [-inf]]", "'a' is -inf, which is not allowed"),
        (b"a = 1e999", "'a' is inf, which is not allowed"),
        (b"a = 9223372036854775808", "'a' is a number of more than 64 bits"),
        (b"a = 0x" + b"f" * 10_000, "'a' is a number of more than 64 bits"),
        (b"a = " + b"9" * 10_000, "is not TOML"),
        (b'"\\u001b[2J" = nan', r"'\x1b[2J' is nan"),
    ],
    ids=lambda value: value[:20].decode("latin-1") if isinstance(value, bytes) else "",
)
def test_what_cannot_be_used_is_said_in_one_line(tmp_path: Path, raw: bytes, words: str) -> None:
    assert words in fault(written(tmp_path, raw))


def test_what_cannot_be_opened_is_said_in_one_line(tmp_path: Path) -> None:
    assert fault(tmp_path / "none.toml").endswith("none.toml: No such file or directory")
    assert "Is a directory" in fault(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="this user may read every file")
def test_a_file_that_may_not_be_read_is_said_in_one_line(tmp_path: Path) -> None:
    path = written(tmp_path, b"")
    path.chmod(0)
    assert "Permission denied" in fault(path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="this system has no such file")
def test_a_file_without_end_is_not_read_to_its_end() -> None:
    assert "is larger than" in fault(Path("/dev/zero"))
