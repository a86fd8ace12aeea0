from __future__ import annotations

import configparser
from pathlib import Path

import pmlm_env

ROOT = Path(__file__).resolve().parents[1]


def test_every_data_file_goes_into_the_wheel() -> None:
    """An editable install finds files that a wheel leaves out, so the patterns are held against what is there."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    shipped: set[Path] = set()
    for package, patterns in setup["options.package_data"].items():
        folders = [ROOT / package.replace(".", "/")]
        if package == "*":
            folders = [path.parent for top in ("pmlm_env", "agents") for path in (ROOT / top).rglob("__init__.py")]
        shipped |= {
            path for folder in folders for pattern in patterns.split(",") for path in folder.glob(pattern.strip())
        }
    there = {
        path
        for top in ("pmlm_env", "agents")
        for path in (ROOT / top).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert there == shipped
    assert any(path.suffix == ".txt" for path in shipped)


def test_there_is_one_version() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{pmlm_env.__version__}"' in text
