"""``pmlm prepare``: its input, messages and output files."""

from __future__ import annotations

import csv
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from pmlm_env.cohort import write_cohort
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.pipeline.sent import check_sent
from tests.commands import pmlm
from tests.standins import EchoLLM

pytestmark = pytest.mark.usefixtures("quick_stages")

#: Characters that other programs treat as line endings.
MARKS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e\r"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    write_cohort(simulate_cohort(60, seed=1), folder)
    return folder


Change = Callable[[list[dict[str, str]]], object]


def changed(tables: Path, folder: Path, change: Change, name: str = "patients.csv") -> Path:
    """Write the tables into ``folder`` with the rows of one changed."""
    folder.mkdir()
    for path in tables.glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        if path.name == name:
            change(rows)
        with (folder / path.name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return folder


def prepare(folder: Path, *arguments: str) -> int:
    usual = ["--k", "2", "--n-folds", "2", "--device", "cpu"]
    return pmlm("prepare", "--cohort", folder, "--out", folder / "out", *usual, *arguments)


def test_replies_with_line_separators_come_back_whole(tables: Path, tmp_path: Path) -> None:
    def change(rows: list[dict[str, str]]) -> None:
        for row, mark in zip(rows, MARKS, strict=False):
            row["reference"] += f"{mark}Come back."

    folder = changed(tables, tmp_path / "marks", change)
    assert prepare(folder) == 0
    episodes = EpisodeSet.load(folder / "out")
    assert len(episodes) == 60
    assert {mark for mark in MARKS for e in episodes if e.reference.endswith(f"{mark}Come back.")} == set(MARKS)


def test_the_report_has_baseline_interval_and_coverage_and_the_file_what_was_read(
    tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(rows: list[dict[str, str]]) -> None:
        late = [row for row in rows if row["split_date"] > "2022-06-30"]
        late[0]["label"] = late[1]["reference"] = ""

    folder = changed(tables, tmp_path / "new", change)
    assert prepare(folder) == 0
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.startswith("test: ")]
    share = r"\d+\.\d%"
    found = re.match(
        rf"test: accuracy {share} \[{share}, {share}\] on (\d+) of (\d+) patients, {share} by predicting '.+?' for",
        line,
    )
    assert found is not None
    assert int(found[2]) - int(found[1]) == 1
    read = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))["cohort"]
    assert (read["patients"], read["unlabeled"], read["unanswered"], read["values_after_index"]) == (60, 1, 1, 0)
    assert (
        "majority_accuracy" in json.loads((folder / "out" / "report.json").read_text())["report"]["predictor"]["test"]
    )


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("personal", r"\d+ prompts are in .*out, (\d+) of them different\n"),
        ("one.txt", r"\d+ prompts are in .*out, but only 1 of them different: .* --template personal adds"),
    ],
)
def test_the_number_of_different_prompts_is_said(
    template: str, said: str, tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tables / "one.txt").write_text("instruction: Write the discharge note.\n")
    assert prepare(tables, "--template", template if template == "personal" else tables / template) == 0
    found = re.search(said, capsys.readouterr().out)
    assert found is not None
    if template == "personal":
        assert int(found[1]) == len({episode.words for episode in EpisodeSet.load(tables / "out")}) > 30


def test_after_a_stop_between_its_files_no_earlier_template_stands_for_the_new_prompts(
    tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: object) -> None:
        raise KeyboardInterrupt

    folder = changed(tables, tmp_path / "new", lambda rows: None)
    assert prepare(folder) == 0
    with monkeypatch.context() as patch:
        patch.setattr("pmlm_env.pipeline.Pipeline.save", stopped)
        assert prepare(folder, "--template", "raw") == 130
    assert "days before the latest" in EpisodeSet.load(folder / "out")[0].prompt
    with pytest.raises(ValueError, match=r"template.txt is missing, .* prepare it again"):
        check_sent(folder / "out", EchoLLM(), send_values=False)
    assert prepare(folder) == 0
    check_sent(folder / "out", EchoLLM(), send_values=False)


@pytest.mark.filterwarnings("always")
def test_many_rare_labels_are_one_line(
    tables: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(rows: list[dict[str, str]]) -> None:
        for i, row in enumerate(rows):
            row["label"] = f"condition {i:03}"

    folder = changed(tables, tmp_path / "rare", change)
    with caplog.at_level("WARNING"), warnings.catch_warnings(record=True) as caught:
        assert prepare(folder) == 0
    (said,) = [message for message in caplog.messages if "labels have fewer than" in message]
    assert "too few to learn from: 'condition 000'" in said
    assert [message for message in caplog.messages if message != said] == []
    assert caught == []
    assert "site-packages" not in capsys.readouterr().err


def test_what_a_library_warns_of_is_one_line_without_a_path(
    tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def loud(*arguments: object, **options: object) -> None:
        warnings.warn("your GPU\nis \x1b[2Jtoo old", UserWarning, stacklevel=1)
        warnings.warn("this will change", FutureWarning, stacklevel=1)
        raise ValueError("enough")

    monkeypatch.setattr("pmlm_env.pipeline.make_episodes", loud)
    assert prepare(tables) == 2
    assert [message for message in caplog.messages if "warning" in message] == [r"warning: your GPU is \x1b[2Jtoo old"]


@pytest.mark.parametrize(
    ("column", "value", "arguments", "message"),
    [
        (
            "split_date",
            "2015-05-05",
            ["--keep-later", "--validation-until", "2022-06-30"],
            "no patient is in test (after --validation-until 2022-06-30)",
        ),
        (
            "split_date",
            "2025-05-05",
            ["--train-until", "2021-12-31"],
            "0 patients with a label are in train (up to --train-until 2021-12-31)",
        ),
        ("label", "", [], "0 of 60 patients have a label"),
        ("split_date", "", ["--drop-bad-rows"], "60 of 60 patients in patients.csv would be left out"),
        ("split_date", "", [], "leave out the bad rows with --drop-bad-rows"),
        ("label", "x", ["--split-by", "Split_date"], "--split-by Split_date (did you mean 'split_date'?)"),
        ("label", "x", ["--train-until", "2030-01-01"], "--train-until 2030-01-01 is after --validation-until"),
        ("label", "x", ["--labs-file", "x.csv"], "has no file 'x.csv'"),
        ("label", "x", ["--labs-file", "x.csv", "--checkups-file", "checkups.csv"], "--labs-file x.csv (long) and"),
    ],
)
def test_what_cannot_be_prepared_is_told_in_the_words_of_the_command_line(
    tables: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    column: str,
    value: str,
    arguments: list[str],
    message: str,
) -> None:
    def change(rows: list[dict[str, str]]) -> None:
        for row in rows:
            row[column] = value

    folder = changed(tables, tmp_path / "bad", change)
    assert prepare(folder, *arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert not re.search(r"\b(references|drop_bad_rows|labs|checkups|by|train_until)=", said)
    assert not (folder / "out").exists()


# Other schemas


def prepare_men(men: Path, out: Path, *arguments: str) -> int:
    template = men / "template.txt"
    template.write_text("self: The patient has {predicted}. {labs:1}\npeer: {peers}\n", encoding="utf-8")
    usual = ["--k", "2", "--n-folds", "2", "--device", "cpu", "--validation-until", "2021-12-31"]
    return pmlm("prepare", "--cohort", men, "--out", out, "--template", template, *usual, *arguments)


def test_a_cohort_with_a_schema_of_its_own_becomes_prompts(
    men: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert prepare_men(men, tmp_path / "out") == 0
    texts = [" ".join(episode.words) for episode in EpisodeSet.load(tmp_path / "out")]
    assert len(texts) == 60
    assert all(re.search(r"psa [\d.]+ ng/mL, creatinine [\d.]+ umol/L, urate [\d.]+ umol/L", text) for text in texts)
    assert "indicators with other names: Hb was read as hemoglobin" in caplog.text
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["cohort"]["read_as"] == {"Hb": "hemoglobin"}


def test_a_schema_on_the_command_line_replaces_that_of_the_cohort(men: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        (men / "schema.toml")
        .read_text()
        .replace('name = "urate"', 'name = "uric_acid"')
        .replace('synonyms = ["uric acid"]', 'synonyms = ["urate"]')
    )
    assert prepare_men(men, tmp_path / "out", "--schema", str(file)) == 0
    assert all("uric acid" in " ".join(episode.words) for episode in EpisodeSet.load(tmp_path / "out"))


def test_the_built_in_schema_may_be_named(men: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare_men(men, tmp_path / "out", "--schema", "obstetric") == 2
    assert "column psa: 'psa' is not an indicator of the schema" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('indicators = [{ name = "psa", lo = 1 }]', "indicator 1 ('psa'): there is no key 'lo' (did you mean 'low'?)"),
        (None, "mine.toml does not exist"),
    ],
)
def test_a_bad_schema_is_refused_in_one_line(
    men: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, message: str
) -> None:
    file = tmp_path / "mine.toml"
    if text is not None:
        file.write_text(text)
    assert prepare_men(men, tmp_path / "out", "--schema", str(file)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


def test_long_references_in_chinese_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rjieba")
    write_cohort(simulate_cohort(60, seed=1, language="zh"), tmp_path / "short")
    options = ("--n-folds", 2, "--out", tmp_path / "prepared", "--schema", "obstetric-zh")
    assert pmlm("prepare", "--cohort", tmp_path / "short", *options) == 0
    assert "characters that a Chinese BERT takes" not in capsys.readouterr().out

    def lengthen(rows: list[dict[str, str]]) -> None:
        for row, length in zip(rows, (511, 510, 900), strict=False):
            row["reference"] = "\u8be6" * length

    long = changed(tmp_path / "short", tmp_path / "long", lengthen)
    assert pmlm("prepare", "--cohort", long, *options) == 0
    said = capsys.readouterr().out
    assert "2 of 60 references are longer than the 510 characters that a Chinese BERT takes" in said
    assert "--long-texts chunks" in said
