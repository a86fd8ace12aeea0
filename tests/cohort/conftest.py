from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Folder = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Return a function that writes texts as files: folder(patients=..., labs=...)."""

    def write(**texts: str) -> Path:
        for stem, text in texts.items():
            (tmp_path / f"{stem}.csv").write_bytes(text.encode())
        return tmp_path

    return write
