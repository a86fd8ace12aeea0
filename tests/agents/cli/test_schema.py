"""`pmlm schema`, and prompts of patients whose schema is made from their tables."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from pmlm_env.cohort import Schema
from pmlm_env.core.episodes import EpisodeSet
from tests.commands import pmlm

pytestmark = pytest.mark.once


def write_men(folder: Path, n: int = 60) -> Path:
    """Write ``n`` men, half of them with heart failure, as a hospital has them: conventional units, LOINC's names."""
    draw = random.Random(1)
    people, rows = ["patient_id,label,reference,split_date,sex"], ["patient_id,date,indicator,value,unit,code"]
    for i in range(n):
        failing = i % 2 == 0
        label = "heart failure" if failing else "pneumonia"
        year = 2021 if i < n // 2 else 2023
        people.append(
            f"M{i},{label},Discharge diagnosis: {label}. Advice: come back in {1 + i % 5} weeks.,{year}-12-01,male"
        )
        for day in (1, 2):
            for name, unit, mean in (
                ("NT-proBNP", "pg/mL", 4000 if failing else 100),
                ("Hemoglobin [Mass/volume] in Blood", "g/dL", 13.5),
                ("Base Excess", "mEq/L", -2),
            ):
                rows.append(f"M{i},{year}-11-0{day},{name},{mean * draw.uniform(0.8, 1.2):.2f},{unit},")
    folder.mkdir()
    (folder / "patients.csv").write_text("\n".join(people) + "\n", encoding="utf-8")
    (folder / "labs.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def test_the_schema_is_written_into_the_folder_and_rules_from_then_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = write_men(tmp_path / "men")
    assert pmlm("schema", "--cohort", cohort) == 0
    path = cohort / "schema.toml"
    assert f"{path} has 3 indicators; `pmlm prepare` reads the cohort by it" in capsys.readouterr().out
    text = path.read_text(encoding="utf-8")
    assert "# 100% of the patients, median 13.5" in text
    assert 'name = "nt_probnp"' in text
    path.write_text(text.replace('name = "hgb", unit = "g/dL", low = 2, high = 26', 'name = "hgb", unit = "g/L"'))
    assert Schema.load(path).indicators[1].unit == "g/L"
    assert pmlm("prepare", "--cohort", cohort, "--out", tmp_path / "prepared", "--device", "cpu") == 0
    assert Schema.load(tmp_path / "prepared" / "pipeline" / "schema.json").indicators[1].unit == "g/L"


def test_a_schema_that_is_there_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cohort = write_men(tmp_path / "men")
    assert pmlm("schema", "--cohort", cohort) == 0
    before = (cohort / "schema.toml").read_bytes()
    assert pmlm("schema", "--cohort", cohort) == 2
    assert "schema.toml exists: change it with an editor, or name another file with --out" in capsys.readouterr().err
    assert (cohort / "schema.toml").read_bytes() == before


def test_another_file_may_be_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cohort, out = write_men(tmp_path / "men"), tmp_path / "men.json"
    assert pmlm("schema", "--cohort", cohort, "--out", out) == 0
    assert f"`pmlm prepare` reads the cohort by it with --schema {out}" in capsys.readouterr().out
    assert set(Schema.load(out).names) == {"nt_probnp", "hgb", "base_excess"}
    assert pmlm("schema", "--cohort", cohort, "--out", tmp_path / "men.txt") == 2
    assert "the name must end in .toml or .json" in capsys.readouterr().err


def test_men_with_heart_failure_get_a_sensible_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cohort, out = write_men(tmp_path / "men"), tmp_path / "prepared"
    options = ("--train-until", "2021-12-31", "--validation-until", "2022-12-31")
    assert pmlm("prepare", "--cohort", cohort, "--out", out, "--device", "cpu", *options) == 0
    episodes = EpisodeSet.load(out)
    assert len(episodes) == 60
    for episode in episodes:
        prompt = episode.prompt.casefold()
        assert not [word for word in ("pregnan", "woman", "obstetric", "fetal", " she ", " her ") if word in prompt]
    failing = next(each for each in episodes if each.label == "heart failure" and each.split == "test")
    assert "heart failure" in failing.prompt
    assert "a patient has 100% of the 3 indicators on average" in capsys.readouterr().out
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["report"]["predictor"]["test"]["micro_f1"] > 0.9
    assert report["report"]["coverage"]["indicators"] == {"base_excess": 1.0, "hgb": 1.0, "nt_probnp": 1.0}
