"""The sources are for any patient: what is only for obstetric patients has its own places."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: What is only for obstetric patients, the rules of English grammar, which name all pronouns, and the ICD's chapters.
EXEMPT = (
    "pmlm_env/cohort/simulator",
    "pmlm_env/cohort/schemas/obstetric.toml",
    "pmlm_env/prompting/templates/en/obstetric",
    "pmlm_env/llm/obstetric_sentences.py",
    "pmlm_env/envs/lite/rules.py",
    "pmlm_env/cohort/naming/english.py",
    "pmlm_env/cohort/naming/scope.py",
    "pmlm_env/cohort/sources/icd.py",
)
WORD = re.compile(
    r"\b(?:she|hers?|herself|wom[ae]n|pregnan\w*|obstetric\w*|midwi\w*|mothers?|he|his|him)\b", re.IGNORECASE
)
#: The name of the schema and of its family of templates, and what is named after it.
NAME = re.compile(
    r"""(["`']+)obstetric(?:-zh)?\1|\bOBSTETRIC(?:_ZH)?\b|\bobstetric(?=\.toml)|\b_?obstetric_sentences\b"""
)


def _files() -> list[Path]:
    files = [path for top in ("pmlm_env", "agents") for path in (ROOT / top).rglob("*") if path.is_file()]
    return [path for path in files if "__pycache__" not in path.parts]


def _is_exempt(path: Path) -> bool:
    return any(path.relative_to(ROOT).is_relative_to(place) for place in EXEMPT)


def test_no_source_speaks_of_women_or_men_outside_the_obstetric_parts() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in _files()
        if not _is_exempt(path)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if WORD.search(NAME.sub("", line))
    ]
    assert found == []


def test_each_obstetric_part_is_there_and_speaks_of_them() -> None:
    for place in EXEMPT:
        inside = [path.read_text(encoding="utf-8") for path in _files() if (ROOT / place) in (path, *path.parents)]
        assert any(WORD.search(text) for text in inside), place
