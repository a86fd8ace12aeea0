"""What the experiments of one output folder share, and what a dry run says that they cost."""

from __future__ import annotations

import csv
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from agents.experiments.digest import cohort_digest
from pmlm_env.cohort import Cohort
from tests.agents.experiments.quick import command, prepared, runs
from tests.commands import pmlm

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("quick_stages", "hashed_sentences", "no_figures")]

PRICES = """[openai.prices."dear"]
prompt = 1000.0
completion = 2000.0
"""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, men: Path, quick_stages: None) -> Path:
    """The output folder of a quick ``table-1`` without agents that learn."""
    out = tmp_path_factory.mktemp("results")
    assert pmlm(*command("table-1", men, "--agents", "random-n", "--out", out)) == 0
    return out


def n_different(out: Path, *roles: str) -> int:
    """Return the number of different prompts of test patients that have some roles: equal ones are asked for once."""
    (test,) = (episodes.of("test") for episodes in prepared(out / "any") if {*episodes[0].roles} == {*roles})
    return len({episode.prompt for episode in test})


@pytest.mark.parametrize("change", [{"extra": {"age": "70"}}, {"person_id": "somebody"}])
def test_prompts_are_made_anew_of_patients_with_other_columns(men_cohort: Cohort, change: dict[str, object]) -> None:
    first, *others = men_cohort
    assert cohort_digest(replace(men_cohort)) == cohort_digest(men_cohort)
    assert cohort_digest(Cohort((replace(first, **change), *others), men_cohort.schema)) != cohort_digest(men_cohort)


def test_prompts_are_made_anew_with_another_schema(men_cohort: Cohort) -> None:
    schema = men_cohort.schema
    label = replace(schema.labels[0], aliases=("so called",))
    indicator = replace(schema.indicators[0], title="Another title")
    for change in ({"labels": (label, *schema.labels[1:])}, {"indicators": (indicator, *schema.indicators[1:])}):
        assert cohort_digest(replace(men_cohort, schema=replace(schema, **change))) != cohort_digest(men_cohort)


def test_each_run_has_the_number_of_its_calls(out: Path) -> None:
    calls = {run["cell"]["row"]: run["calls"] for run in runs(out / "table-1")}
    ours = n_different(out, "background", "self", "peer", "instruction")
    raw = n_different(out, "background", "self", "instruction")
    assert calls["raw-data"] == raw + ours  # all rows are compared with the replies to our unedited prompts
    assert calls["random-n"] > 0
    assert calls["keep-all"] == calls["echo"] == 0


def test_another_experiment_asks_for_no_reply_again_and_makes_no_prompt_again(out: Path, men: Path) -> None:
    made = {folder: folder.stat().st_mtime_ns for folder in (out / "prepared").iterdir() if folder.is_dir()}
    assert pmlm(*command("table-3", men, "--agents", "random-n", "--out", out)) == 0
    calls = {(run["cell"]["prompt"], run["cell"]["row"]): run["calls"] for run in runs(out / "table-3")}
    assert calls["all stages", "keep-all"] == calls["all stages", "random-n"] == 0
    assert calls["without stage 1", "keep-all"] == n_different(out, "background", "peer", "instruction")
    assert calls["without stage 1", "random-n"] > 0
    assert {folder: folder.stat().st_mtime_ns for folder in made} == made


def test_a_dry_run_says_what_missing_runs_cost_at_most(
    out: Path, men: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
    (tmp_path / "providers.toml").write_text(PRICES)
    llm = ["--llm", "openai:dear", "--providers", tmp_path / "providers.toml", "--max-new-tokens", 50]
    arguments = command("table-1", men, "--agents", "surrogate", *llm, "--send-values", "--dry-run")
    assert pmlm(*arguments, "--out", tmp_path / "none") == 0
    said = capsys.readouterr().out
    assert not (tmp_path / "none").exists()
    found = re.search(r"(\d+) LLM calls, about ([\d,]+) tokens in, ([\d,]+) out, cost ([\d.,]+)\n", said)
    assert found is not None
    calls, tokens, completion, cost = (float(number.replace(",", "")) for number in found.groups())
    assert calls == 56  # ten raw-data prompts, ten of ours, ten edited at random, 16 to learn from and ten refined
    assert completion == 50 * calls
    longest = max(len(e.prompt.encode()) for episodes in prepared(out / "table-1") for e in episodes) / 4
    ours = min(max(len(e.prompt.encode()) for e in episodes) for episodes in prepared(out / "table-1")) / 4
    assert 10 * longest + 46 * ours <= tokens <= 1.5 * (10 * longest + 46 * ours)
    assert cost == pytest.approx(tokens * 1e-3 + completion * 2e-3, abs=0.01)
    assert "hours: not known before a run with calls is complete" in said


def test_a_dry_run_of_patients_without_labels_is_one_line(
    men: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unlabeled = tmp_path / "men"
    shutil.copytree(men, unlabeled)
    with (unlabeled / "patients.csv").open(newline="") as file:
        patients = list(csv.DictReader(file))
    with (unlabeled / "patients.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, patients[0])
        writer.writeheader()
        writer.writerows({**patient, "label": ""} for patient in patients)
    assert pmlm(*command("table-1", unlabeled, "--out", tmp_path / "out", "--dry-run")) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "pmlm experiment: no patient of the cohort has a label: add labels to the patients' table"


def test_hours_are_known_from_complete_runs(out: Path, men: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pmlm(*command("table-1", men, "--agents", "surrogate", "--out", out, "--dry-run")) == 0
    said = capsys.readouterr().out
    assert "missing runs: 1, complete ones: 10\n" in said
    assert "26 LLM calls" in said
    timed = [run for run in runs(out / "table-1") if run["calls"]]
    rate = sum(run["seconds"] for run in timed) / sum(run["calls"] for run in timed)
    assert f"about {26 * rate / 3600:.1f} hours, at the {rate:.2g} s a call of 2 complete runs" in said


def test_a_template_file_is_known_by_its_content(out: Path, men: Path, tmp_path: Path) -> None:
    template = tmp_path / "mine.txt"
    for text in ("self: We suspect {predicted}.\n", "self: We fear {predicted}.\n", "self: We fear {predicted}.\n"):
        template.write_text(text)
        arguments = command("deletion-curve", men, "--agents", "random-n", "--template", template)
        assert pmlm(*arguments, "--out", tmp_path) == 0
    described = [run["cell"]["patients"]["pipeline"] for run in runs(tmp_path / "deletion-curve")]
    assert [each["template"] for each in described] == ["mine.txt"] * 4  # echo and agent, two texts
    assert described[0] == described[1] != described[2] == described[3]
