"""What leaves the machine: the requests of every stage, searched for everything that is marked in a cohort."""

from __future__ import annotations

import csv
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pmlm_env.llm.responder import Responder
from tests.commands import pmlm
from tests.llm.endpoint import Endpoint, chat, serve

pytestmark = [pytest.mark.once, pytest.mark.real, pytest.mark.usefixtures("quick_stages")]

KEY = "sk-secret-0123456789abcdef"
#: Digits that every laboratory value of the marked cohort ends in.
MARK = "77413"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serve() as state:
        state.answer = lambda count, prompt: chat("Quincereply. " + Responder().generate([prompt])[0].text)
        yield state


def _pmlm(command: str, *arguments: object) -> None:
    assert pmlm(command, *arguments) == 0


def _marked_cohort(folder: Path) -> tuple[set[str], set[str], set[str]]:
    """Write a cohort whose values can be told from all else; return its identifiers, dates and references."""
    _pmlm("simulate", "--out", folder, "--patients", 120)
    patients, checkups = folder / "patients.csv", folder / "checkups.csv"
    rows = list(csv.DictReader(patients.open(encoding="utf-8", newline="")))
    records = list(csv.DictReader(checkups.open(encoding="utf-8", newline="")))
    names = {row["patient_id"]: f"MARKEDPERSON{i:04}X" for i, row in enumerate(rows)}
    for i, row in enumerate(rows):
        row.update(patient_id=names[row["patient_id"]], reference=f"Quaintword{i} {row['reference']}")
    for record in records:
        record["patient_id"] = names[record["patient_id"]]
        for column, value in record.items():
            if re.fullmatch(r"\d+\.\d+", value):
                record[column] = value + MARK
            elif re.fullmatch(r"\d+", value):
                record[column] = f"{value}.{MARK}"
    for path, table in ((patients, rows), (checkups, records)):
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, table[0])
            writer.writeheader()
            writer.writerows(table)
    text = patients.read_text(encoding="utf-8") + checkups.read_text(encoding="utf-8")
    assert text.count(MARK) > 1000
    return set(names.values()), set(re.findall(r"\d{4}-\d\d-\d\d", text)), {f"Quaintword{i}" for i in range(len(rows))}


def test_no_stage_sends_anything_of_a_patient_but_the_prompt_and_nothing_secret_is_written_down(
    endpoint: Endpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    names, dates, references = _marked_cohort(tmp_path / "cohort")
    prepared, run = tmp_path / "prepared", tmp_path / "run"
    _pmlm("prepare", "--cohort", tmp_path / "cohort", "--out", prepared, "--n-folds", 2, "--max-test", 4)
    assert endpoint.n_requests == 0
    llm = ["--llm", "openai:m", "--base-url", endpoint.url]
    agent = ["--agent", "lexicon", "--budget", 24, "--patients", 3, "--rollouts", 2, "--n-edits", 3, "--device", "cpu"]
    _pmlm("train", "--episodes", prepared, "--run", run, *llm, *agent)
    _pmlm("evaluate", "--run", run, "--base-url", endpoint.url)
    _pmlm("doctor", *llm)
    printed = caplog.text + "".join(capsys.readouterr())
    before = endpoint.n_requests
    new = ["--cohort", tmp_path / "cohort", "--out", tmp_path / "refined.jsonl"]  # prints patients for their reader
    _pmlm("refine", "--model", run, *new, "--reply", *llm, "--device", "cpu")
    assert endpoint.n_requests > before + 20

    traces = (run / "traces.jsonl").read_text(encoding="utf-8")
    assert any(name in traces for name in names)  # texts of patients are in this file, and in no summary
    summary = (run / "evaluation.json").read_text(encoding="utf-8")
    assert not [text for text in (*names, *references, *set(endpoint.prompts)) if text in summary]
    assert endpoint.n_requests > 12
    for body, headers, path in zip(endpoint.bodies, endpoint.headers, endpoint.paths, strict=True):
        sent = json.dumps([body, {k: v for k, v in headers.items() if k.lower() != "authorization"}, path])
        assert MARK not in sent
        for secret in (*names, *dates, *references, KEY):
            assert secret not in sent
    # Beyond that: the numbers in a prompt are counts of peers, and there are ten peers.
    numbers = {int(number) for prompt in endpoint.prompts for number in re.findall(r"\d+", prompt)}
    assert max(numbers) <= 10

    for secret in (KEY, *set(endpoint.prompts), *names, *references):
        assert secret not in printed
    assert printed.count("Quincereply") == 1  # pmlm doctor shows the reply that it was asked to fetch
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), f"the key is in {file.name}"


def test_peers_are_counted_unless_they_are_asked_for_by_name(tmp_path: Path) -> None:
    _pmlm("simulate", "--out", tmp_path / "cohort", "--patients", 120)
    texts = []
    for more in ([], ["--peers", "listed"]):
        out = tmp_path / f"prepared{len(more)}"
        _pmlm("prepare", "--cohort", tmp_path / "cohort", "--out", out, "--n-folds", 2, "--max-train", 3, *more)
        texts.append((out / "episodes.jsonl").read_text(encoding="utf-8"))
    assert ["nearest" in text for text in texts] == [False, True]
