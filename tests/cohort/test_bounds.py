"""Tables of strangers: bounded in memory, one line for each thing that is wrong, nothing that drives a terminal."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from pmlm_env.cohort import CohortError, read_cohort
from pmlm_env.cohort.sources import table_files as tables
from tests.cohort.three_patients import CHECKUPS, LABS, PATIENTS, values_of

Folder = Callable[..., Path]


def refused(path: Path, **options: str) -> str:
    """Return the one line that a cohort is refused with."""
    with pytest.raises(CohortError) as caught:
        read_cohort(path, **options)
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 500
    return said


def test_a_cell_of_many_characters_is_refused(folder: Folder) -> None:
    patients = PATIENTS.replace("Nothing to do.", "x" * 200_000)
    assert "patients.csv, line 3: not a row of CSV" in (said := refused(folder(patients=patients, labs=LABS)))
    assert "shorten the cell to 131,072 characters" in said


def test_a_quote_that_never_ends_is_refused(folder: Folder) -> None:
    patients = PATIENTS + 'D4,normal,"' + "Rest.\n" * 100_000
    assert "patients.csv, line 5: not a row of CSV" in refused(folder(patients=patients, labs=LABS))


def test_a_line_that_never_ends_is_refused(folder: Folder) -> None:
    path = folder(patients=PATIENTS)
    (path / "labs.csv").write_bytes(b"patient_id,date,indicator,value\n" + b",x" * (2**23 + 1))
    assert "labs.csv, line 2 has more than 16,777,216 characters" in refused(path)


@pytest.mark.parametrize("end", ["", "\n1,2\n"])
def test_a_hundred_thousand_columns_are_refused(folder: Folder, end: str) -> None:
    header = "patient_id,date," + ",".join(f"c{i}" for i in range(100_000))
    assert "labs.csv has 100,002 columns; at most 5,000 are read" in refused(
        folder(patients=PATIENTS, labs=header + end)
    )


def test_too_many_cells_are_refused(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_CELLS", 20)
    assert "labs.csv has more than 20 cells" in refused(folder(patients=PATIENTS, labs=LABS))


def test_a_file_of_too_many_bytes_is_refused_unread(folder: Folder) -> None:
    path = folder(patients=PATIENTS)
    with (path / "labs.csv").open("wb") as file:
        file.truncate(2**31)
    assert "labs.csv has 2,147,483,648 bytes; at most 1,073,741,824 are read" in refused(path)


@pytest.mark.parametrize("name", ["patients", "labs"])
def test_a_nul_byte_is_refused_with_its_line(folder: Folder, name: str) -> None:
    texts = {"patients": PATIENTS, "labs": LABS}
    texts[name] = texts[name].replace("B2", "B\0", 1)
    line = 3 if name == "patients" else 2
    assert f"{name}.csv, line {line}: contains a NUL byte" in refused(folder(**texts))


def test_a_formula_is_text(folder: Folder) -> None:
    cohort, _ = read_cohort(folder(patients=PATIENTS.replace("31", "=cmd|' /C calc'!A0"), labs=LABS))
    assert cohort[0].extra == {"age": "=cmd|' /C calc'!A0"}


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\r"])
def test_what_other_programs_take_for_a_line_end_is_a_character_of_a_cell(folder: Folder, mark: str) -> None:
    patients = PATIENTS.replace("Rest, and come back.", f"Rest.{mark}Come back.").replace("31", f'"3{mark}1"')
    cohort, _ = read_cohort(folder(patients=patients, labs=LABS, wide=CHECKUPS))
    assert cohort[0].reference == f"Rest.{mark}Come back."
    assert cohort[0].extra == {"age": f"3{mark}1"}
    assert len(cohort) == 3


# Parquet


@pytest.fixture
def parquet(folder: Folder) -> Callable[..., Path]:
    """Return a function that writes labs.parquet of the columns given."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    def write(**columns: object) -> Path:
        path = folder(patients=PATIENTS)
        pq.write_table(pa.table(columns), path / "labs.parquet")
        return path

    return write


def test_a_long_text_in_every_row_of_a_small_parquet_file_is_refused(parquet: Callable[..., Path]) -> None:
    pa = pytest.importorskip("pyarrow")
    rows = 300_000
    text = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * 500_000]))
    path = parquet(patient_id=text.dictionary_encode(), date=pa.nulls(rows))
    assert (path / "labs.parquet").stat().st_size < 1_000_000
    assert "labs.parquet, column patient_id: a cell has more than 131,072 characters" in refused(path)


def test_more_rows_of_parquet_than_can_be_read_are_refused(
    parquet: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MAX_CELLS", 1000)
    assert "labs.parquet has more than 1,000 cells" in refused(parquet(a=[1] * 600, b=[2] * 600))


@pytest.mark.parametrize("cells", [[[1, 2]], [{"a": 1}]])
def test_parquet_columns_of_lists_are_refused(parquet: Callable[..., Path], cells: list[object]) -> None:
    assert "labs.parquet, column value: contains " in refused(parquet(value=cells))


@pytest.mark.parametrize("raw", [b"", b"PAR1", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_what_is_no_parquet_file_is_refused(folder: Folder, raw: bytes) -> None:
    pytest.importorskip("pyarrow")
    (folder(patients=PATIENTS) / "labs.parquet").write_bytes(raw)
    assert "labs.parquet: not a Parquet file" in refused(folder())


def test_a_damaged_parquet_file_is_refused(parquet: Callable[..., Path]) -> None:
    path = parquet(patient_id=["B2"], indicator=["hgb"])
    raw = (path / "labs.parquet").read_bytes()
    (path / "labs.parquet").write_bytes(raw.replace(b"indicator", b"indi\xfdator"))  # a name that is not UTF-8
    assert "labs.parquet: not a Parquet file" in refused(path)


@pytest.mark.parametrize("type_name", ["string", "large_string", "binary", "dictionary"])
def test_every_kind_of_parquet_text_is_read(parquet: Callable[..., Path], type_name: str) -> None:
    pa = pytest.importorskip("pyarrow")
    ids = pa.array(["B2", "B2", None])
    ids = ids.dictionary_encode() if type_name == "dictionary" else ids.cast(getattr(pa, type_name)())
    path = parquet(
        patient_id=ids,
        date=pa.array(["2022-01-01", "2022-01-01", None]),
        indicator=pa.array(["hgb", "plt", None]),
        value=pa.array([99.5, 200.0, float("nan")]),
    )
    cohort, _ = read_cohort(path)
    assert values_of(cohort[0]) == {("2022-01-01", "hgb"): 99.5, ("2022-01-01", "plt"): 200}


# What reaches a terminal

ESCAPE = "\x1b[2J\x1b]0;owned\x07\u202e"


@pytest.mark.parametrize("name", ["patients", "labs", "wide"])
@pytest.mark.parametrize("place", ["header", "cell"])
def test_no_message_drives_a_terminal_or_is_endless(
    folder: Folder, caplog: pytest.LogCaptureFixture, name: str, place: str
) -> None:
    texts = {"patients": PATIENTS, "labs": LABS, "wide": CHECKUPS}
    bad = ESCAPE + "y" * 5000
    if place == "header":
        texts[name] = texts[name].replace("age", bad).replace("unit", bad).replace("plt", bad)
    else:
        texts[name] = texts[name].replace("007,", f"{bad},").replace("2021-05-01", bad).replace("g/L", bad)
    path = folder(**texts)
    options = {"checkups": "wide.csv"} if name == "wide" else {"labs": "labs.csv"}
    with caplog.at_level(logging.INFO):
        try:
            said = str(read_cohort(path, **options)[1])
        except CohortError as error:
            said = str(error)
    said += "".join(caplog.messages)
    assert not any(c in said for c in "\x1b\x07\u202e")
    assert len(said) < 2000
