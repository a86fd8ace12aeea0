"""JSON from files: read within limits, and what is wrong with it in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pmlm_env.io.checked_files import read_object
from pmlm_env.io.files import write_json


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    content = {"text": "\u0153 \ud800", "numbers": [1, 2.5, None], "inner": {"yes": True}}
    write_json(tmp_path / "a.json", content)
    assert read_object(tmp_path / "a.json") == content


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is damaged: it is not JSON"),
        ("\xff", "is damaged: it is not JSON"),
        ("[" * 100_000, "is damaged: it is not JSON"),
        ("[1]", "is damaged: it contains [1] instead of an object"),
        ('{"a": 1, "a": 2}', ": 'a' occurs twice"),
        ('{"a": NaN}', ": it contains NaN, which is not a number"),
        (None, "is missing"),
    ],
)
@pytest.mark.parametrize("cure", ["", "make it again"])
def test_what_cannot_be_read_is_one_line_with_the_cure(text: str | None, said: str, cure: str, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    if text is not None:
        file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        read_object(file, cure)
    line = str(caught.value)
    assert line.startswith(str(file))
    assert line.endswith(f"{said}: {cure}" if cure else said)
    assert "\n" not in line


def test_a_file_is_read_up_to_its_limit_and_no_further(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"a": "' + "b" * (2**20 - 9) + '"}')
    assert file.stat().st_size == 2**20
    assert len(read_object(file, largest=2**20)["a"]) == 2**20 - 9
    file.write_text('{"a": "' + "b" * (2**20 - 8) + '"}')
    with pytest.raises(ValueError, match="is larger than 1 MiB"):
        read_object(file, largest=2**20)
    file.write_bytes(b" " * (16 * 2**20 + 1))
    with pytest.raises(ValueError, match="is larger than 16 MiB"):
        read_object(file)
