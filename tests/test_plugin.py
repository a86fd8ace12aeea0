"""Parts of an installed package, by name and by path, in every command, the benchmark and gym.make."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from safetensors.numpy import load_file

import agents.registry
from agents.benchmark.config import BenchmarkConfig
from agents.run_folder import RunFolder
from pmlm_env import EpisodeSet
from pmlm_env.cohort import read_cohort
from pmlm_env.cohort.schema import Schema
from pmlm_env.cohort.sources import SOURCES
from pmlm_env.pipeline import Pipeline, build_episodes
from pmlm_env.pipeline_config import PipelineConfig
from tests.real.runs import pmlm

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest

pytestmark = pytest.mark.usefixtures("quick_stages")

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "tests" / "plugin"
PAGE = (ROOT / "docs" / "write-your-own.md").read_text(encoding="utf-8")
BASH = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
COMMANDS = [line for block in BASH for line in block.splitlines() if "pmlm " in line]
PYTHON = re.findall(r"^```python\n(.*)\n```$", PAGE, re.MULTILINE)  # those of one line

#: The package's parts by option: their names, and their paths.
_POINTS = tomllib.loads((PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
NAMES = {f"--{group[5:-1]}": name for group, points in _POINTS.items() for name in points}
PATHS = {f"--{group[5:-1]}": path for group, points in _POINTS.items() for path in points.values()}

FEW = ["--n-folds", "2", "--max-train", "12", "--max-validation", "0", "--max-test", "6", "--device", "cpu"]
SHORT = ["--budget", "60", "--n-edits", "3", "--device", "cpu"]

ROUGE = RougeScorer(["rougeL"])


def _named(parts: dict[str, str], *options: str) -> list[str]:
    return [word for option in options for word in (option, parts[option])]


def _stages(parts: dict[str, str]) -> list[str]:
    kwargs = ["--source-kwargs", '{"date": "admitted"}', "--retriever-kwargs", '{"metric": "manhattan"}']
    return [*_named(parts, "--source", "--predictor", "--retriever"), *kwargs, "--predictor-kwargs", '{"C": 0.5}']


def _models(parts: dict[str, str]) -> list[str]:
    kwargs = ["--reward-kwargs", '{"measure": "recall"}', "--encoder-kwargs", '{"size": 8}']
    return [*_named(parts, "--reward", "--encoder", "--llm"), *kwargs, "--llm-kwargs", '{"timeout": 30}']


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder where the package is installed, on this process's path."""
    folder = tmp_path_factory.mktemp("installed")
    source = shutil.copytree(PLUGIN, folder / "source")  # which the build writes into
    site = folder / "site"
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    install = [sys.executable, "-m", "pip", "install", *offline, "--target", str(site), str(source)]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        patch.setenv("EXAMPLE_LLM", "cat")  # the reply is the prompt
        yield site
    for name in [name for name in sys.modules if name.partition(".")[0] == "example_parts"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def work(installed: Path, quick_stages: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder: a cohort as tables and as JSON lines, and its prompts, made by the package's parts."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert pmlm("simulate", "--out", "cohort", "--patients", 80) == 0
        cohort, _ = read_cohort("cohort")
        lines = []
        for patient in cohort:
            labs = [
                {"date": str(day), **{name: value for name, value in zip(cohort.schema.names, row) if value == value}}
                for day, row in zip(patient.dates, patient.values.tolist(), strict=True)
            ]
            row = {"id": patient.patient_id, "admitted": str(patient.split_date), "labs": labs}
            lines.append(json.dumps({**row, "label": patient.label, "reply": patient.reference}) + "\n")
        Path("patients.jsonl").write_text("".join(lines))
        shutil.copy(installed / "example_parts" / "template.txt", folder)
        prepare = ["--cohort", "patients.jsonl", "--template", "template.txt", *FEW]
        assert pmlm("prepare", *prepare, "--out", "prepared", *_stages(NAMES)) == 0
        train = ["--episodes", "prepared", *SHORT]
        assert pmlm("train", *train, "--run", "run", *_models(NAMES), *_named(NAMES, "--agent")) == 0
        yield folder


def _score(reply: str, reference: str) -> float:
    return ROUGE.score(reference, reply)["rougeL"].recall


def _shortened(episode: Any, part: str, n: int = 3) -> str:
    """The prompt without the last words of a part."""
    slots = [slot for slot, role in enumerate(episode.roles) if role == part]
    return episode.prompt if not part else _without(episode, set(slots[len(slots) - n :]))


def _without(episode: Any, slots: set[int]) -> str:
    words = [(word.text, word.space) for slot, word in enumerate(episode.initial.words) if slot not in slots]
    return "".join(text + space for text, space in words).strip()


# The page and the package


@pytest.mark.parametrize("file", [*sorted((PLUGIN / "example_parts").glob("[!_]*.*")), PLUGIN / "pyproject.toml"])
def test_the_page_shows_each_file_as_it_is(file: Path) -> None:
    assert f"\n{file.read_text(encoding='utf-8')}```\n" in PAGE


def test_the_package_needs_no_private_name_of_ours() -> None:
    code = "".join(file.read_text(encoding="utf-8") for file in (PLUGIN / "example_parts").glob("*.py"))
    imports = re.findall(r"^from (?:agents|pmlm_env)\S* import .*", code, re.MULTILINE)
    assert len(imports) > 10
    assert not [line for line in imports if re.search(r"[ .]_", line)]


def test_our_packages_do_not_mention_it() -> None:
    for file in [*(ROOT / "pmlm_env").rglob("*.py"), *(ROOT / "agents").rglob("*.py")]:
        assert not re.search("example.parts", file.read_text(encoding="utf-8")), file


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_page_runs(line: str, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(line, comments=True)
    while "=" in words[0]:
        monkeypatch.setenv(*words.pop(0).split("=", 1))
    monkeypatch.setenv("EXAMPLE_LLM", "cat")  # not the LLM of somebody's machine
    command, *options = words[1:]
    if command == "prepare":
        options += FEW
    elif command == "benchmark":
        options += ["--budget", "80", "--seeds", "1"]
    elif "--help" not in options:
        options += SHORT
        options += [] if "--llm" in options else ["--llm", "responder"]
        options += [] if "--reward" in options else ["--reward", "rouge-l"]
        quick = ["--patients", "2", "--rollouts", "2"] if "--encoder" in options else ["--agent", "one-part"]
        options += [] if "--agent" in options else quick
    shutil.copytree(work, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    assert pmlm(command, *options) == 0


@pytest.mark.parametrize("line", PYTHON)
def test_a_line_of_python_of_the_page_runs(line: str, work: Path) -> None:
    names = {"agents": agents, "gym": gym, "PipelineConfig": PipelineConfig, "SOURCES": SOURCES}
    exec(line, {**names, "Path": Path, "Schema": Schema})


def test_the_page_has_a_command_and_a_line_of_python_for_each_part() -> None:
    for option, name in NAMES.items():
        assert any(f"{option} {name}" in line for line in COMMANDS), option
        assert any(f'"{name}"' in line for line in PYTHON), option


# Stages 1 to 3


def test_paths_make_the_same_prompts_as_names(work: Path, tmp_path: Path) -> None:
    prepare = ["--cohort", "patients.jsonl", "--template", "template.txt", *FEW]
    assert pmlm("prepare", *prepare, "--out", tmp_path, *_stages(PATHS)) == 0
    assert EpisodeSet.load(tmp_path).digest == EpisodeSet.load("prepared").digest
