from __future__ import annotations

import configparser
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import pmlm_env

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest

pytestmark = pytest.mark.once

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


def test_the_oldest_environment_has_the_lowest_versions_admitted() -> None:
    lowest: dict[str, Version] = {}
    for requirement in _requirements(without=("dev", "docs", "vllm"), python="3.11"):
        (lower,) = (part.version for part in requirement.specifier if part.operator == ">=")
        lowest[canonicalize_name(requirement.name)] = Version(lower)
    lowest["torch"] = _pins("constraints.txt")["torch"]  # constraints-oldest.txt says why
    pins = _pins("constraints-oldest.txt")
    assert {name: pins.get(name) for name in lowest} == lowest


def test_the_usual_environment_is_within_the_ranges() -> None:
    pins = _pins("constraints.txt")
    for requirement in _requirements(without=("rllib", "vllm")):
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier


def _requirements(without: tuple[str, ...], python: str | None = None) -> list[Requirement]:
    """What pyproject.toml asks for, but for some extras, under the Python that runs or another."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = project["dependencies"] + [line for name in extras if name not in without for line in extras[name]]
    requirements = [each for each in map(Requirement, lines) if each.name != project["name"]]
    return _that_apply(requirements, python)


def _pins(file: str) -> dict[str, Version]:
    """What a constraints file pins under the Python that runs."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    requirements = _that_apply([Requirement(line) for line in lines if line and not line.startswith("#")])
    return {canonicalize_name(each.name): Version(str(each.specifier).removeprefix("==")) for each in requirements}


def _that_apply(requirements: list[Requirement], python: str | None = None) -> list[Requirement]:
    environment = {"python_version": python} if python else None
    return [each for each in requirements if each.marker is None or each.marker.evaluate(environment)]
