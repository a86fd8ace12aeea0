"""Men with five indicators and labels of their own, from tables to refined prompts and replies, by the command line."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from agents.run_folder import RunFolder
from pmlm_env.cohort import read_cohort
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.traces import Trace
from pmlm_env.pipeline import Pipeline
from tests.commands import pmlm
from tests.real.runs import small_bert
from tests.schemas import MEN

pytestmark = [
    pytest.mark.once,
    pytest.mark.real,
    pytest.mark.usefixtures("quick_stages", "hashed_sentences", "no_figures"),
]

#: Of each label: the indicator that it changes, how the doctor calls it, and what the doctor advises.
LABELS = {
    "no disease": ("crp", "no abnormality", "come again in two years"),
    "gout": ("urate", "gouty arthritis", "drink enough; avoid beer"),
    "prostate cancer": ("psa", "carcinoma of the prostate", "see the urologist tomorrow"),
}
USUAL = {"psa": 1.5, "creatinine": 85.0, "urate": 320.0, "hemoglobin": 150.0, "crp": 2.0}
#: Of pregnancy, of women, and of what the obstetric cohort diagnoses.
FOREIGN = re.compile(
    r"pregnan|obstetric|wom[ae]n\b|\bs?he\b|\bhers?\b|antenatal|gestation|deliver|birth|f[eo]etal|uter|placent|membranes"
    r"|thalass|\bcord\b",
    re.IGNORECASE,
)
_CUTS = ("--train-until", "2021-12-31", "--validation-until", "2022-03-31")
_QUICK = ("--k", "3", "--n-folds", "2", "--device", "cpu")


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _write_cohort(folder: Path) -> None:
    (folder / "schema.toml").write_text(MEN, encoding="utf-8")
    rng = np.random.default_rng(0)
    patients: list[dict[str, object]] = []
    checkups: list[dict[str, object]] = []
    for i in range(48):
        label = list(LABELS)[i % 3]
        changed, name, advice = LABELS[label]
        day = f"202{1 + i // 36}-{1 + i % 12:02d}"
        patients.append(
            {
                "patient_id": f"M{i}",
                "split_date": f"{day}-28",
                "label": label,
                "reference": f"Discharge diagnosis: {name}. He feels well. Advice: {advice}.",
            }
        )
        for date in ("03", "17"):
            values = {key: round(value * rng.lognormal(0, 0.1), 2) for key, value in USUAL.items()}
            values[changed] = round(2.5 * values[changed], 2)
            checkups.append({"patient_id": f"M{i}", "date": f"{day}-{date}", **values})
    _write(folder / "patients.csv", patients)
    _write(folder / "checkups.csv", checkups)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on such men, evaluated."""
    folder = tmp_path_factory.mktemp("men")
    _write_cohort(folder)
    assert pmlm("prepare", "--cohort", folder, "--out", folder / "prepared", *_CUTS, *_QUICK) == 0
    models = ["--llm", f"responder:{folder / 'schema.toml'}", "--scorer", small_bert(), "--device", "cpu"]
    agent = ["--agent", "lexicon", "--budget", "12", "--patients", "3", "--rollouts", "2", "--n-edits", "3"]
    assert pmlm("train", "--episodes", folder / "prepared", "--run", folder / "run", *agent, *models) == 0
    assert pmlm("evaluate", "--run", folder / "run") == 0
    return folder


def _traces(work: Path, *variants: str) -> list[Trace]:
    """The records of the test patients' prompts and replies, of some variants."""
    return [trace for trace in RunFolder(work / "run").traces.read() if trace.variant in variants]


def _foreign(texts: Iterable[str]) -> list[str]:
    return [text for text in texts if FOREIGN.search(text)]


def test_prompts_are_about_these_patients(work: Path) -> None:
    episodes = EpisodeSet.load(work / "prepared")
    assert len(episodes) == 48
    assert _foreign(episode.prompt for episode in episodes) == []
    assert all(episode.prompt.startswith("A patient is discharged from care today.") for episode in episodes)
    assert {episode.predicted for episode in episodes} <= LABELS.keys()
    assert {label.name for label in episodes.known_labels} == LABELS.keys()


def test_prompts_for_new_patients_are_the_same_and_know_the_same_labels(work: Path) -> None:
    cohort, _ = read_cohort(work)
    new = Pipeline.load(work / "prepared", device="cpu").episodes(cohort[36:])
    prepared = EpisodeSet.load(work / "prepared").of("test")
    assert new.known_labels == prepared.known_labels == cohort.schema.labels
    prompts = {episode.patient_id: episode.prompt for episode in new}
    assert len(prepared) == 9
    assert all(prompts[episode.patient_id] == episode.prompt for episode in prepared)


def test_raw_prompts_show_the_five_indicators(work: Path) -> None:
    options = ["--template", "raw", "--out", work / "raw", "--max-train", "2"]
    assert pmlm("prepare", "--cohort", work, *options, *_CUTS, *_QUICK) == 0
    prompts = [episode.prompt for episode in EpisodeSet.load(work / "raw")]
    assert _foreign(prompts) == []
    for indicator in USUAL:
        assert all(f"{indicator} " in prompt for prompt in prompts)


def test_refined_prompts_and_replies_have_no_word_about_pregnancy(work: Path) -> None:
    traces = _traces(work, "random", "agent")
    replies = [reply.text for trace in traces for reply in trace.replies]
    assert len(replies) == len(traces) == 18
    assert all(len(trace.edits) == 3 for trace in traces if trace.variant == "agent")
    assert _foreign([*(trace.prompt for trace in traces), *replies]) == []
    assert all(any(name in reply for reply in replies) for name in ("gout", "prostate cancer"))


def test_a_condition_is_recognized_by_the_aliases_of_the_schema(work: Path) -> None:
    label_of = {name: label for label, (_, name, _) in LABELS.items()}
    letters = _traces(work, "random-letter", "fixed-letter", "peer-letter", "label-letter")
    assert len(letters) == 36
    for trace in letters:
        (written,) = {label for name, label in label_of.items() if f": {name}." in trace.replies[0].text}
        assert trace.after["diagnosis_named"] == (written == trace.label)
        assert trace.after["wrong_diagnosis_named"] == (written != trace.label)


def test_no_file_of_the_run_has_a_word_about_pregnancy(work: Path) -> None:
    files = [path for folder in ("prepared", "run") for path in (work / folder).rglob("*.json*")]
    assert len(files) > 5
    texts = [path.read_text(encoding="utf-8").replace("He feels well", "") for path in files]
    assert _foreign(texts) == []


def test_a_schema_in_a_language_without_templates_is_told_in_one_line(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "schema.toml").write_text(MEN.replace('language = "en"', 'language = "de"'), encoding="utf-8")
    options = ["--schema", tmp_path / "schema.toml", "--out", tmp_path / "out"]
    assert pmlm("prepare", "--cohort", work, *options, *_CUTS, *_QUICK) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pmlm prepare: ")]
    assert "no built-in templates in the schema's language, 'de': give your own template file (--template)" in line
    (tmp_path / "kurz.txt").write_text("self: Vermutet wird {predicted}.\n", encoding="utf-8")
    options += ["--template", tmp_path / "kurz.txt"]
    assert pmlm("prepare", "--cohort", work, *options, *_CUTS, *_QUICK) == 0
    assert {episode.language for episode in EpisodeSet.load(tmp_path / "out")} == {"de"}
