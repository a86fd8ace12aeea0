"""A cohort is the same in every form of file, encoding, order of rows and way of writing dates."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pmlm_env.cohort import CohortError, read_cohort
from pmlm_env.cohort.sources import table_files as tables
from tests.cohort.three_patients import LABS, PATIENTS, assert_same

Folder = Callable[..., Path]
Rows = list[list[str]]


def rows_of(text: str) -> Rows:
    return [*csv.reader(io.StringIO(text))]


def write_csv(
    path: Path, rows: Rows, delimiter: str = ",", encoding: str = "utf-8", quoting: int = csv.QUOTE_MINIMAL
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, quoting=quoting).writerows(rows)
    raw = text.getvalue().encode(encoding)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def write_parquet(path: Path, rows: Rows) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table(dict(zip(rows[0], zip(*rows[1:], strict=True), strict=True))), path)


def write_xlsx(path: Path, rows: Rows) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append([float(cell) if is_number(cell) else as_date(cell) for cell in row])
    book.save(path)


def is_number(cell: str) -> bool:
    try:
        return str(float(cell)) == cell  # so that 007 stays text
    except ValueError:
        return False


def as_date(cell: str) -> object:
    try:
        moment = datetime.fromisoformat(cell)
    except ValueError:
        return cell
    return moment if moment.tzinfo is None else cell  # Excel has no time zones


WRITERS: dict[str, Callable[[Path, Rows], None]] = {
    ".csv": write_csv,
    ".csv.gz": write_csv,
    ".tsv": lambda path, rows: write_csv(path, rows, "\t"),
    ".tsv.gz": lambda path, rows: write_csv(path, rows, "\t", "utf-16"),
    ".parquet": write_parquet,
    ".xlsx": write_xlsx,
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_each_form_of_file_gives_the_same_cohort(folder: Folder, tmp_path: Path, suffix: str) -> None:
    expected, _ = read_cohort(folder(patients=PATIENTS, labs=LABS))
    other = tmp_path / "other"
    other.mkdir()
    for stem, text in (("patients", PATIENTS), ("labs", LABS)):
        WRITERS[suffix](other / f"{stem}{suffix}", rows_of(text))
    assert_same(expected, read_cohort(other)[0])


@pytest.mark.parametrize("named", [None, "utf-8", "UTF8"])
@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "Sep=;;;;"])
def test_a_line_for_excel_before_the_header_says_what_separates_the_cells(
    folder: Folder, tmp_path: Path, line: str, named: str | None
) -> None:
    expected, _ = read_cohort(folder(patients=PATIENTS, labs=LABS))
    other = tmp_path / "other"
    other.mkdir()
    for stem, text in (("patients", PATIENTS), ("labs", LABS)):
        file = other / f"{stem}.csv"
        write_csv(file, rows_of(text), ";", "utf-8")
        file.write_bytes(codecs.BOM_UTF8 + f"{line}\r\n".encode() + file.read_bytes())
    assert_same(expected, read_cohort(other, encoding=named)[0])
    (other / "labs.csv").write_text(f"{line}\npatient_id;date;indicator;value;unit\nB2;soon;hgb;90;\n")
    with pytest.raises(CohortError, match=r"labs\.csv, line 3"):
        read_cohort(other)


cells = st.sampled_from(["90", "90.5", "120.125", "88.25", "<70.5", "99.5 H"])
dates = st.datetimes(datetime(2021, 1, 1), datetime(2021, 4, 30)).map(lambda moment: moment.replace(microsecond=0))
records = st.lists(
    st.tuples(st.sampled_from(["007", "B2"]), dates, st.sampled_from(["hgb", "plt"]), cells), max_size=12
)
date_forms: dict[str, Callable[[datetime], str]] = {
    "iso": lambda moment: moment.isoformat(),
    "zoned": lambda moment: f"{moment.isoformat(sep=' ')}+08:00",
    "german": lambda moment: f"{moment:%d.%m.%Y %H:%M}",
    "oracle": lambda moment: f"{moment:%d-%b-%Y %H:%M:%S}".upper(),
    "compact": lambda moment: f"{moment:%Y%m%d}",
}


@given(
    rows=records,
    data=st.data(),
    suffix=st.sampled_from([".csv", ".csv.gz", ".tsv", ".parquet", ".xlsx"]),
    form=st.sampled_from([*date_forms]),
    comma=st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_cohort_does_not_depend_on_order_or_form(
    rows: list[tuple[str, datetime, str, str]],
    data: st.DataObject,
    suffix: str,
    form: str,
    comma: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    # A result of each patient, and one that tells what marks decimals.
    rows = [("007", datetime(2021, 1, 1), "hgb", "77.5"), ("B2", datetime(2021, 1, 1), "hgb", "90.25"), *rows]
    one, other = (tmp_path_factory.mktemp("cohort") for _ in range(2))
    header = ["patient_id", "date", "indicator", "value"]
    write_csv(one / "labs.csv", [header, *([p, moment.isoformat(), name, value] for p, moment, name, value in rows)])
    shuffled = data.draw(st.permutations(rows))
    changed = [
        [p, date_forms[form](moment), name, value.replace(".", ",") if comma else value]
        for p, moment, name, value in shuffled
    ]
    WRITERS[suffix](other / f"labs{suffix}", [header, *changed])
    for path in (one, other):
        write_csv(path / "patients.csv", rows_of(PATIENTS)[:3])
    (a, report), (b, other_report) = read_cohort(one), read_cohort(other)
    assert_same(a, b)
    counted = ("values", "averaged", "limits", "flagged", "checkups")
    assert [getattr(report, name) for name in counted] == [getattr(other_report, name) for name in counted]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "gb18030", "big5"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_encodings_and_delimiters_change_nothing(folder: Folder, tmp_path: Path, encoding: str, delimiter: str) -> None:
    texts = {"patients": PATIENTS.replace("Mind the sugar.", "\u8840\u7cd6; | \u6ce8\u610f"), "labs": LABS}
    expected, _ = read_cohort(folder(**texts))
    other = tmp_path / "other"
    other.mkdir()
    for stem, text in texts.items():
        write_csv(other / f"{stem}.csv", rows_of(text), delimiter, encoding)
    told = None if encoding in ("utf-8-sig", "utf-16") else encoding
    assert_same(expected, read_cohort(other, encoding=told)[0])


@given(
    rows=st.lists(st.lists(st.text(st.sampled_from('a,;"\n\r \t'), max_size=4), min_size=3, max_size=3), max_size=8),
    block=st.sampled_from([7, 2**20]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
@settings(max_examples=200, deadline=None)
def test_a_file_is_split_as_by_the_csv_module(
    rows: Rows, block: int, end: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from pmlm_env.cohort.sources import csv_files

    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end).writerows([["x", "y", "z"], *rows])
    path = tmp_path_factory.mktemp("csv") / "table.csv"
    path.write_bytes(text.getvalue().encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_files, "_BLOCK", block)
        table = csv_files.read_csv(path)
    reader = csv.reader(io.StringIO(text.getvalue(), newline=""))
    next(reader)
    expected, lines, malformed = [], [], []
    line = reader.line_num + 1
    for row in reader:
        if any(row) and len(row) == 3:
            expected.append(row)
            lines.append(line)
        elif any(row):
            malformed.append((line, len(row)))
        line = reader.line_num + 1
    assert table.malformed == malformed
    assert [[*row] for row in zip(*table.columns.values(), strict=True)] == expected
    assert table.rows.tolist() == lines


# What is refused


def refused(path: Path, **options: str) -> str:
    with pytest.raises(CohortError) as caught:
        read_cohort(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unknown_encoding_is_named(folder: Folder) -> None:
    assert "--encoding 'latin-9000' is not known" in refused(
        folder(patients=PATIENTS, labs=LABS), encoding="latin-9000"
    )


def test_text_of_another_encoding_is_refused(folder: Folder) -> None:
    path = folder(patients=PATIENTS.replace("Rest", "R\u00fche"), labs=LABS)
    assert "patients.csv, from line 1 on: not text in the encoding ascii" in refused(path, encoding="ascii")


@pytest.mark.parametrize(
    "raw", [b"", b"no gzip", gzip.compress(LABS.encode() * 100)[:200]], ids=["empty", "text", "cut"]
)
def test_a_damaged_gzip_file_is_refused(folder: Folder, raw: bytes) -> None:
    path = folder(patients=PATIENTS)
    (path / "labs.csv.gz").write_bytes(raw)
    assert "labs.csv.gz" in refused(path)


def test_a_small_file_that_unpacks_to_too_much_is_refused(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder(patients=PATIENTS)
    (path / "labs.csv.gz").write_bytes(gzip.compress(LABS.encode() + b"x" * 3_000_000))
    from pmlm_env.cohort.sources import csv_files

    monkeypatch.setattr(csv_files, "MAX_BYTES", 2_000_000)
    assert "labs.csv.gz has more than 2,000,000 characters when unpacked" in refused(path)


@pytest.mark.parametrize("raw", [b"", b"PK", b"PK\x03\x04" + b"\0" * 100])
def test_what_is_no_workbook_is_refused(folder: Folder, raw: bytes) -> None:
    pytest.importorskip("openpyxl")
    path = folder(patients=PATIENTS)
    (path / "labs.xlsx").write_bytes(raw)
    assert "labs.xlsx: not an Excel workbook" in refused(path)


def workbook(path: Path, **sheets: Rows) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save(path)


def test_of_several_sheets_the_one_named_as_the_file_is_read(folder: Folder) -> None:
    expected, _ = read_cohort(folder(patients=PATIENTS, labs=LABS))
    path = folder()
    (path / "labs.csv").unlink()
    workbook(path / "labs.xlsx", Notes=[["anything"]], Labs=rows_of(LABS))
    assert_same(expected, read_cohort(path)[0])
    workbook(path / "labs.xlsx", Notes=[["anything"]], Sheet2=rows_of(LABS))
    assert "labs.xlsx has the sheets Notes, Sheet2: name the right one 'labs'" in refused(path)


def test_rows_of_a_workbook_are_told_as_excel_numbers_them(folder: Folder) -> None:
    path = folder(patients=PATIENTS)
    rows = rows_of(LABS)
    workbook(path / "labs.xlsx", labs=[[], *rows[:3], [None], ["B2", "2022-02-05", "alt", -4.5, "U/L"]])
    assert "labs.xlsx, row 6, column value: alt -4.5 is outside" in str(refused_lines(path))


def refused_lines(path: Path) -> str:
    with pytest.raises(CohortError) as caught:
        read_cohort(path)
    return str(caught.value)


def test_a_number_of_a_workbook_with_three_decimals_is_not_grouped_thousands(folder: Folder) -> None:
    path = folder(patients=PATIENTS)
    header = ["patient_id", "date", "indicator", "value"]
    workbook(
        path / "labs.xlsx", labs=[header, ["007", "2021-04-01", "hgb", 90.125], ["007", "2021-04-02", "alt", "12,5"]]
    )
    assert "'12,5' may have a decimal comma" in refused_lines(path)


def test_a_decimal_of_parquet_with_three_places_is_not_grouped_thousands(folder: Folder) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = folder(patients=PATIENTS)
    ids, days = ["007", "B2"], ["2021-04-01", "2021-04-02"]
    columns = {"plt": [Decimal("90.125"), Decimal("210.250")], "hgb": ["112,5", "121"]}
    pq.write_table(pa.table({"patient_id": ids, "date": days, **columns}), path / "checkups.parquet")
    assert "'112,5' may have a decimal comma" in refused_lines(path)


def test_identifiers_that_are_floats_because_some_are_missing_have_all_their_digits(folder: Folder) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = folder(patients=PATIENTS.replace("B2", "123456789012"))
    labs = {
        "patient_id": [123456789012.0, None],
        "date": ["2022-02-01"] * 2,
        "indicator": ["hgb"] * 2,
        "value": [90, 91],
    }
    pq.write_table(pa.table(labs), path / "labs.parquet")
    cohort, _ = read_cohort(path, drop_bad_rows=True)
    assert [patient.patient_id for patient in cohort] == ["123456789012"]


@pytest.mark.parametrize(
    ("value", "number_format", "shown"),
    [(0.45, "0%", "45%"), (0.457, "0.0%;[Red]-0.0%", "45.7%"), (1, "0 %", "100%"), (45.5, '0.0"%"', ""),
     (45.5, r"0.0\%", ""), (45.5, "General", "")],
)  # fmt: skip
@pytest.mark.parametrize("name", ["hct", "marker Q"])
def test_a_percentage_of_a_workbook_is_not_read_as_a_fraction(
    folder: Folder, value: float, number_format: str, shown: str, name: str
) -> None:
    path = folder(patients=PATIENTS)
    workbook(path / "checkups.xlsx", checkups=[["patient_id", "date", name], ["007", "2021-04-01", value]])
    book = pytest.importorskip("openpyxl").load_workbook(path / "checkups.xlsx")
    book.active["C2"].number_format = number_format
    book.save(path / "checkups.xlsx")
    if not shown:
        assert np.nanmax(read_cohort(path)[0][0].values) == value
        return
    column = name if " " not in name else f"'{name}'"
    assert f"checkups.xlsx, row 2, column {column}: '{shown}' has a percent sign" in refused_lines(path)


def test_a_formula_without_a_stored_value_is_not_an_empty_cell(folder: Folder) -> None:
    path = folder(patients=PATIENTS)
    rows = [["patient_id", "date", "hgb"], ["007", "2021-04-01", "90"], ["B2", "2022-02-01", "=60+60"]]
    workbook(path / "checkups.xlsx", checkups=rows)
    assert refused(path).startswith("checkups.xlsx, cell C3: a formula without a stored value; open the file in Excel")


def test_a_large_workbook_is_refused(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder(patients=PATIENTS)
    workbook(path / "labs.xlsx", labs=rows_of(LABS))
    monkeypatch.setattr(tables, "MAX_CELLS", 20)
    assert "labs.xlsx has more than 20 cells" in refused(path)


@pytest.mark.parametrize(
    ("days", "said"),
    [
        ((datetime(2021, 4, 1), datetime(2022, 2, 12), "31/01/2022"), "such as '31/01/2022', are text"),
        ((datetime(2021, 4, 1, 8, 30), "31/01/2022 09:00", "13/02/2022"), "such as '31/01/2022 09:00', are text"),
        ((datetime(2021, 4, 1), "01/31/2022", "02/13/2022"), "such as '01/31/2022', are text"),
        ((datetime(2021, 4, 13), datetime(2022, 2, 2), "31/01/2022"), ""),
        ((datetime(2021, 4, 1), datetime(2022, 2, 2), "2022-01-31"), ""),
        ((datetime(2021, 4, 1), "31.01.2022", datetime(2022, 2, 2)), ""),
    ],
)
def test_a_workbook_in_which_excel_swapped_day_and_month_is_refused(
    folder: Folder, days: tuple[datetime | str, ...], said: str
) -> None:
    path = folder(patients=PATIENTS)
    rows = [[name, day, "hgb", 100] for name, day in zip(("007", "B2", "C3"), days, strict=True)]
    workbook(path / "labs.xlsx", labs=[["patient_id", "date", "indicator", "value"], *rows])
    if not said:
        assert len(read_cohort(path)[0]) == 3
        return
    assert "labs.xlsx, column date: Excel has probably swapped day and month" in (line := refused(path))
    assert said in line


def test_without_openpyxl_the_extra_is_named(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    path = folder(patients=PATIENTS)
    (path / "labs.xlsx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    assert "pip install 'pmlm-env[xlsx]'" in refused(path)


def test_values_of_a_day_have_one_mean_in_any_order(folder: Folder) -> None:
    values = np.random.default_rng(0).uniform(50, 200, size=50)
    means = []
    for seed in range(5):
        rows = "".join(
            f"007,2021-04-01,hgb,{value!r}\n" for value in np.random.default_rng(seed).permutation(values).tolist()
        )
        cohort, _ = read_cohort(folder(patients=PATIENTS, labs="patient_id,date,indicator,value\n" + rows))
        means.append(float(np.nanmax(cohort[0].values)))
    assert len({*means}) == 1
    assert means[0] == pytest.approx(values.mean())
