"""The wheel that the source distribution gives, in a new environment and outside the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import pmlm_env

pytestmark = [pytest.mark.once, pytest.mark.real]

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("pmlm_env", "agents")


def run(*command: object, cwd: Path) -> str:
    """Run a command that sees nothing of the repository, and return what it prints."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "setup.cfg", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"):
        shutil.copy(ROOT / file, source)
    code = "import setuptools.build_meta; print(setuptools.build_meta.build_sdist('dist'))"
    return source / "dist" / run(sys.executable, "-c", code, cwd=source).splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "wheel", *offline, "--wheel-dir", sdist.parent, sdist, cwd=sdist.parent)
    (wheel,) = sdist.parent.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment with the wheel, and with the libraries of the one that runs the tests."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    # Packages that this folder has in editable form are not found through a path: their own .pth files are not read.
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    install = ("install", "--no-deps", "--no-index", "--disable-pip-version-check", wheel)
    run(sys.executable, "-m", "pip", "--python", python, *install, cwd=folder)
    return folder / "bin"


def test_every_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    ours = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == ours


def test_the_installed_command_names_its_version(programs: Path, tmp_path: Path) -> None:
    assert run(programs / "pmlm", "--version", cwd=tmp_path) == f"pmlm-env {pmlm_env.__version__}\n"


def test_the_installed_demo_runs_outside_the_repository(programs: Path, tmp_path: Path) -> None:
    where = run(programs / "python", "-c", "import agents, pmlm_env; print(agents, pmlm_env)", cwd=tmp_path)
    assert where.count(str(programs.parent)) == 2
    run(programs / "pmlm", "simulate", "--out", "cohort", "--patients", 80, cwd=tmp_path)
    small = ["--llm", "responder", "--n-edits", 3, "--budget", 16, "--patients", 2, "--rollouts", 2, "--n-folds", 2]
    few = ["--train-patients", 12, "--test-patients", 2, "--device", "cpu"]
    out = run(programs / "pmlm", "demo", "--cohort", "cohort", *small, *few, cwd=tmp_path)
    assert re.search(r"^after \(agent\) ", out, re.MULTILINE)
    assert re.search(r"^control: echo ", out, re.MULTILINE)
    assert "Everything is in runs/demo/" in out
    assert (tmp_path / "runs" / "demo" / "report.html").is_file()  # whose templates are files of the package


def test_the_installed_package_registers_the_environments(programs: Path, tmp_path: Path) -> None:
    code = "import gymnasium, pmlm_env; print(gymnasium.make('PMLMLite-v0').reset(seed=0)[0].keys())"
    assert "action_mask" in run(programs / "python", "-c", code, cwd=tmp_path)
