"""The example package of docs/write-your-own.md: its parts, and the options that choose them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from rouge_score.rouge_scorer import RougeScorer

from pmlm_env.cohort import read_cohort
from pmlm_env.core.episodes import Episode
from pmlm_env.core.words import joined
from tests.commands import pmlm
from tests.real.runs import small_bert

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "tests" / "plugin"
PAGE = (ROOT / "docs" / "write-your-own.md").read_text(encoding="utf-8")
BASH = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
COMMANDS = [line for block in BASH for line in block.splitlines() if "pmlm " in line]
PYTHON = re.findall(r"^```python\n(.*)\n```$", PAGE, re.MULTILINE)  # those of one line
ROUGE = RougeScorer(["rougeL"])
IMPORTS = PAGE.partition("```python\n")[2].partition("```")[0]

#: The package's parts by option: their names, and their paths.
_POINTS = tomllib.loads((PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
NAMES = {f"--{group[5:-1]}": name for group, points in _POINTS.items() for name in points}
PATHS = {f"--{group[5:-1]}": path for group, points in _POINTS.items() for path in points.values()}

FEW = ["--n-folds", "2", "--max-train", "12", "--max-validation", "0", "--max-test", "6", "--device", "cpu"]
SHORT = ["--budget", "60", "--n-edits", "3", "--device", "cpu"]


def named_parts(parts: dict[str, str], *options: str) -> list[str]:
    return [word for option in options for word in (option, parts[option])]


def source_options(parts: dict[str, str], file: object = "patients.jsonl") -> list[object]:
    return ["--cohort", file, "--source", parts["--source"], "--source-kwargs", '{"split_by": "admitted"}']


def stage_options(parts: dict[str, str]) -> list[object]:
    kwargs = ["--retriever-kwargs", '{"metric": "manhattan"}', "--predictor-kwargs", '{"C": 0.5}']
    return [*source_options(parts), *named_parts(parts, "--predictor", "--retriever"), *kwargs, *FEW]


def model_options(parts: dict[str, str]) -> list[str]:
    kwargs = ["--reward-kwargs", '{"measure": "precision"}', "--encoder-kwargs", '{"size": 8}']
    kwargs += ["--llm-kwargs", '{"timeout": 30}', "--scorer", str(small_bert())]  # for tables, whatever it says
    return [*named_parts(parts, "--reward", "--encoder", "--llm"), *kwargs]


def install(folder: Path) -> Path:
    """Install the package below a folder, and return where it is."""
    source = shutil.copytree(PLUGIN, folder / "source")  # which the build writes into
    site = folder / "site"
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    install = [sys.executable, "-m", "pip", "install", *offline, "--target", str(site), str(source)]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return site


def make_run(installed: Path) -> None:
    """Make, in the current folder, a cohort as tables and as JSON lines, and its prompts and a run, by the parts."""
    assert pmlm("simulate", "--out", "cohort", "--patients", 80) == 0
    cohort, _ = read_cohort("cohort")
    names, known = cohort.schema.names, []
    for patient in cohort:
        labs = [
            {"date": str(day), **{names[i]: row[i] for i in np.flatnonzero(np.isfinite(row))}}
            for day, row in zip(patient.dates, patient.values, strict=True)
        ]
        known.append({"id": patient.patient_id, "admitted": str(patient.split_date), "labs": labs})
    new = [{**patient, "id": f"new-{patient['id']}"} for patient in known[-3:]]
    for row, patient in zip(known, cohort, strict=True):
        row |= {"label": patient.label, "reply": patient.reference}
    for file, rows in (("patients.jsonl", known), ("new.jsonl", new)):
        Path(file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copy(installed / "example_parts" / "template.txt", ".")
    assert pmlm("prepare", *stage_options(NAMES), "--template", "template.txt", "--out", "prepared") == 0
    train = ["--episodes", "prepared", *SHORT]
    assert pmlm("train", *train, "--run", "runs/mine", *model_options(NAMES), *named_parts(NAMES, "--agent")) == 0


def score(reply: str, reference: str) -> float:
    """The reward that the package's ``rouge-l`` gives, by rouge-score itself."""
    return ROUGE.score(reference, reply)["rougeL"].precision


def without(episode: Episode, slots: set[int]) -> str:
    """The prompt without the words in these slots."""
    return joined(episode.words, episode.spaces, [slot not in slots for slot in range(len(episode.words))])


def shortened(episode: Episode, part: str) -> str:
    """The prompt without the last three words of a part."""
    return without(episode, {*[slot for slot, role in enumerate(episode.roles) if role == part][-3:]})
