from __future__ import annotations

import configparser
import fnmatch
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import pmlm_env
from agents.cli.main import main

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if ":: Python :: 3." in line]


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
    for requirement in _requirements(without=("dev", "docs", "trl", "vllm", "wandb"), python="3.11"):
        (lower,) = (part.version for part in requirement.specifier if part.operator == ">=")
        lowest[canonicalize_name(requirement.name)] = Version(lower)
    lowest["torch"] = _pins("constraints.txt")["torch"]  # constraints-oldest.txt says why
    pins = _pins("constraints-oldest.txt")
    assert {name: pins.get(name) for name in lowest} == lowest


def test_the_usual_environment_is_within_the_ranges() -> None:
    pins = _pins("constraints.txt")
    for requirement in _requirements(without=("rllib", "vllm")):
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier


def test_the_version_is_printed_and_the_help_names_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for option in ("--version", "--help"):
        with pytest.raises(SystemExit) as stop:
            main(None, [option])
        assert stop.value.code == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == f"pmlm-env {pmlm_env.__version__}\n"
    assert "--version" in printed[1].splitlines()[0]


def test_the_citation_is_of_this_version_and_of_the_paper_that_readme_names() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # which the format needs
    assert (citation["title"], str(citation["version"])) == ("pmlm-env", pmlm_env.__version__)
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]
    (paper,) = citation["references"]
    assert paper["url"] == PROJECT["urls"]["Paper"]
    assert paper["url"] in (ROOT / "README.md").read_text(encoding="utf-8")


def test_github_runs_the_commands_of_ci_under_every_supported_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    jobs = workflow["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == PYTHONS
    commands = {line for job in jobs.values() for step in job["steps"] for line in step.get("run", "").splitlines()}
    ours = set(re.findall(r"make [a-z-]+", (ROOT / ".ci" / "run").read_text(encoding="utf-8")))
    assert {command for command in commands if command.startswith("make ")} == ours | {"make setup"}
    torch, option, _ = shlex.split(workflow["env"]["TORCH"])
    assert (Version(torch.removeprefix("torch==")), option) == (_pins("constraints.txt")["torch"], "--index-url")


def test_every_target_of_make_that_contributors_are_told_of_is_there() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = re.findall(r"\bmake ([a-z-]+)", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert {"setup", "lint", "test"} <= set(named) <= set(targets)


class TestDockerfile:
    """What can be said of it without a server that builds images."""

    def test_its_python_is_supported(self) -> None:
        (image,) = _instructions("FROM")
        assert re.fullmatch(r"python:(3\.\d+)-slim", image)
        assert image[len("python:") : -len("-slim")] in PYTHONS

    def test_every_file_that_it_copies_is_there_and_is_not_ignored(self) -> None:
        admitted = [line[1:] for line in _lines(ROOT / ".dockerignore") if line.startswith("!")]
        copied = [source for line in _instructions("COPY") for source in shlex.split(line)[:-1]]
        assert {"agents", "pmlm_env", "pyproject.toml", "setup.cfg"} <= set(copied)
        for source in copied:
            assert (ROOT / source).exists(), source
            assert any(fnmatch.fnmatch(source, pattern) for pattern in admitted), source

    def test_what_the_package_is_built_from_is_copied(self) -> None:
        copied = [source for line in _instructions("COPY") for source in shlex.split(line)[:-1]]
        assert {PROJECT["readme"], *PROJECT["license-files"]} <= set(copied)

    def test_its_commands_are_valid_shell_and_install_pytorch_for_cpus_before_the_package(self) -> None:
        commands = _instructions("RUN")
        for command in commands:
            subprocess.run(["bash", "-n", "-c", command], check=True)
        (torch,) = [i for i, command in enumerate(commands) if "download.pytorch.org/whl/cpu" in command]
        ((package, extras),) = [
            (i, found[1].split(",")) for i, each in enumerate(commands) if (found := re.search(r"/src\[(.*?)\]", each))
        ]
        assert torch < package
        assert set(extras) <= PROJECT["optional-dependencies"].keys()
        assert all("--constraint /tmp/constraints.txt" in commands[i] for i in (torch, package))

    def test_it_starts_the_command_line_of_the_package(self) -> None:
        (program,) = _instructions("ENTRYPOINT")
        assert yaml.safe_load(program) == [*PROJECT["scripts"]]


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]


def _instructions(name: str) -> list[str]:
    """The arguments of every instruction of a kind in the Dockerfile, with continued lines joined."""
    text = "\n".join(_lines(ROOT / "Dockerfile")).replace("\\\n", " ")
    return re.findall(rf"^{name} (.+)$", text, re.MULTILINE)


def _requirements(without: tuple[str, ...], python: str | None = None) -> list[Requirement]:
    """What pyproject.toml asks for, but for some extras, under the Python that runs or another."""
    extras = PROJECT["optional-dependencies"]
    lines = PROJECT["dependencies"] + [line for name in extras if name not in without for line in extras[name]]
    requirements = [each for each in map(Requirement, lines) if each.name != PROJECT["name"]]
    return _that_apply(requirements, python)


def _pins(file: str) -> dict[str, Version]:
    """What a constraints file pins under the Python that runs."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    requirements = _that_apply([Requirement(line) for line in lines if line and not line.startswith("#")])
    return {canonicalize_name(each.name): Version(str(each.specifier).removeprefix("==")) for each in requirements}


def _that_apply(requirements: list[Requirement], python: str | None = None) -> list[Requirement]:
    environment = {"python_version": python} if python else None
    return [each for each in requirements if each.marker is None or each.marker.evaluate(environment)]
