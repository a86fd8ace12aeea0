"""A cohort in parts: simulated, written and read one part at a time, it is the same as in one piece."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pmlm_env.cohort.simulator.simulate as simulate
from pmlm_env.cohort import Cohort, CohortError, Patient, read_cohort, read_parts, write_cohort, write_parts
from pmlm_env.cohort.simulator import simulate_cohort, simulate_parts
from tests.commands import pmlm

pytestmark = pytest.mark.once


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate, "PART", 40)
    monkeypatch.setattr("agents.cli.simulate.PART", 40)


def same(one: Patient, other: Patient) -> bool:
    arrays = all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True) for name in ("dates", "values")
    )
    no_arrays = {"dates": np.empty(0), "values": np.empty((0, 0))}
    plain = [{**each.__dict__, **dict.fromkeys(no_arrays)} for each in (one, other)]
    return arrays and plain[0] == plain[1]


def assert_same(one: Cohort, other: Cohort) -> None:
    assert one.schema == other.schema
    assert len(one) == len(other)
    assert all(map(same, one, other))


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("options", [{}, {"personal": 0.5, "language": "zh"}])
def test_the_parts_are_the_cohort(options: dict) -> None:
    parts = [*simulate_parts(100, seed=3, **options)]
    assert [len(part) for part in parts] == [40, 40, 20]
    assert_same(simulate_cohort(100, 3, **options), Cohort(sum((part.patients for part in parts), ()), parts[0].schema))


@pytest.mark.usefixtures("small_parts")
def test_ids_differ_and_dates_rise_over_all_parts() -> None:
    cohort = simulate_cohort(100)
    assert [patient.patient_id for patient in cohort] == [f"P{i:05}" for i in range(1, 101)]
    dates = [patient.split_date for patient in cohort]
    assert dates == sorted(dates)
    notes = {patient.reference for patient in cohort}
    assert len(notes) > 90  # the parts do not repeat one another


def test_labels_and_dates_do_not_depend_on_the_parts_and_one_part_is_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = simulate_cohort(100, seed=2)
    monkeypatch.setattr(simulate, "PART", 100)
    assert_same(simulate_cohort(100, seed=2), whole)
    monkeypatch.setattr(simulate, "PART", 30)
    divided = simulate_cohort(100, seed=2)
    assert [(each.label, each.split_date) for each in divided] == [(each.label, each.split_date) for each in whole]


@pytest.mark.usefixtures("small_parts")
def test_one_part_is_in_memory_at_a_time(tmp_path: Path) -> None:
    seen: list[weakref.ref[Cohort]] = []

    def watched(parts: Iterable[Cohort]) -> Iterator[Cohort]:
        for part in parts:
            assert not any(earlier() for earlier in seen)
            seen.append(weakref.ref(part))
            yield part
            del part

    write_parts(watched(simulate_parts(100)), tmp_path)
    for part, _ in read_parts(tmp_path):
        assert not any(earlier() for earlier in seen)
        seen.append(weakref.ref(part))
        del part
    assert len(seen) == 6


@pytest.mark.usefixtures("small_parts")
def test_parts_are_read_as_one_table_would_be(tmp_path: Path) -> None:
    cohort = simulate_cohort(100)
    assert write_parts(simulate_parts(100), tmp_path / "parts") == (100, cohort.n_checkups)
    write_cohort(cohort, tmp_path / "whole")
    (read, report), (whole, of_whole) = (read_cohort(tmp_path / name) for name in ("parts", "whole"))
    assert_same(read, whole)
    assert report == of_whole
    parts = [*read_parts(tmp_path / "parts")]
    assert [each.patients for _, each in parts] == [40, 40, 20]
    assert_same(Cohort(sum((part.patients for part, _ in parts), ()), parts[0][0].schema), whole)
    ((only, its_report),) = read_parts(tmp_path / "whole")
    assert_same(only, whole)
    assert its_report == of_whole


@pytest.mark.usefixtures("small_parts")
def test_the_command_writes_parts_of_many_patients(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("simulate", "--out", str(tmp_path / "cohort"), "--patients", "90")
    assert pmlm(*options) == 0
    cohort, _ = read_cohort(tmp_path / "cohort")
    assert_same(cohort, simulate_cohort(90))
    assert (tmp_path / "cohort" / "part-00002").is_dir()
    assert f"90 simulated patients with {cohort.n_checkups} check-ups are in" in capsys.readouterr().out
    assert pmlm(*options) == 2
    assert f"{tmp_path / 'cohort'} already has part-00000: choose another folder" in capsys.readouterr().err


def two_parts(folder: Path, change: Callable[[Patient], Patient] = lambda patient: patient) -> Path:
    """Two parts of which the patients of the second are changed."""
    cohort = simulate_cohort(40)
    second = Cohort(tuple(change(patient) for patient in cohort.patients[20:]), cohort.schema)
    write_parts([cohort[:20], second], folder)
    return folder


def test_a_patient_of_two_parts_is_a_problem(tmp_path: Path) -> None:
    two_parts(tmp_path, lambda patient: replace(patient, patient_id=patient.patient_id.replace("P0002", "P0000")))
    with pytest.raises(CohortError, match="part-00001: patient 'P00001' is in an earlier part already; keep one"):
        read_cohort(tmp_path)


def test_spellings_of_a_label_are_merged_over_all_parts(tmp_path: Path) -> None:
    two_parts(tmp_path, lambda patient: replace(patient, label=f" {patient.label.upper()}"))
    cohort, report = read_cohort(tmp_path)
    assert {*cohort.y.tolist()} <= {label.name for label in cohort.schema.labels}
    assert report.merged_labels
    for folder in (tmp_path / "part-00000", tmp_path / "part-00001"):  # nor in a schema: the more frequent spelling
        (folder / "schema.json").unlink()
    cohort, report = read_cohort(tmp_path)
    assert len({label.casefold() for label in cohort.y.tolist()}) == len({*cohort.y.tolist()})


def test_parts_have_one_schema(tmp_path: Path) -> None:
    two_parts(tmp_path)
    path = tmp_path / "part-00001" / "schema.json"
    described = json.loads(path.read_text())
    described["max_checkups"] = 7
    path.write_text(json.dumps(described))
    with pytest.raises(CohortError, match=r"part-00001 has another schema than the first part: put one schema into"):
        read_cohort(tmp_path)
    (tmp_path / "schema.json").write_text(json.dumps(described))
    assert read_cohort(tmp_path)[0].schema.max_checkups == 7  # that of the whole rules


def test_without_a_schema_that_of_the_first_part_is_that_of_all(tmp_path: Path) -> None:
    two_parts(tmp_path)
    for path in tmp_path.glob("*/schema.json"):
        path.unlink()
    first, second = (part for part, _ in read_parts(tmp_path))
    assert first.schema == second.schema == read_cohort(tmp_path)[0].schema


def test_tables_beside_parts_are_a_problem(tmp_path: Path) -> None:
    two_parts(tmp_path)
    (tmp_path / "patients.csv").write_text("patient_id\n")
    with pytest.raises(CohortError, match=r"has patients.csv and part-00000: remove the tables or the parts"):
        read_cohort(tmp_path)


@pytest.mark.parametrize("name", ["map.toml", "letters.csv", "results.xlsx"])
def test_a_mapped_cohort_beside_a_stray_part_is_a_problem(tmp_path: Path, name: str) -> None:
    (tmp_path / "part-old").mkdir()
    (tmp_path / name).write_text("")
    with pytest.raises(CohortError, match=f"has {name} and part-old: remove the tables or the parts"):
        read_cohort(tmp_path)
    with pytest.raises(CohortError, match=f"already has {name}|has {name} and part-old"):
        write_parts([simulate_cohort(3)], tmp_path)


def test_hidden_files_and_other_files_beside_parts_are_no_problem(tmp_path: Path) -> None:
    two_parts(tmp_path)
    for name in ("._patients.csv", "~$notes.xlsx", "README.md"):
        (tmp_path / name).write_text("")
    assert len(read_cohort(tmp_path)[0]) == 40


@pytest.mark.usefixtures("small_parts")
def test_writing_that_fails_leaves_no_parts(tmp_path: Path) -> None:
    def failing() -> Iterator[Cohort]:
        yield next(simulate_parts(100))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_parts(failing(), tmp_path)
    assert [*tmp_path.iterdir()] == []
    assert write_parts(simulate_parts(100), tmp_path)[0] == 100


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("stopped", ["in the second part", "after the first rename"])
def test_parts_of_a_killed_process_are_not_read_as_the_cohort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: str
) -> None:
    def parts() -> Iterator[Cohort]:
        yield next(simulate_parts(100))
        if stopped == "in the second part":
            raise KeyboardInterrupt
        yield simulate_cohort(3)

    def rename(path: Path, target: Path) -> None:
        os.rename(path, target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_, **__: None)  # a killed process tidies nothing up
        patch.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            write_parts(parts(), tmp_path)
    for use in (read_cohort, lambda folder: write_parts(simulate_parts(100), folder)):
        with pytest.raises(CohortError, match=f"{tmp_path} is incomplete: .* remove {tmp_path} and write it again"):
            use(tmp_path)


def test_a_cohort_is_not_written_beside_parts(tmp_path: Path) -> None:
    two_parts(tmp_path)
    with pytest.raises(CohortError, match="already has part-00000: choose another folder, or remove the cohort in it"):
        write_cohort(simulate_cohort(3), tmp_path)
    assert len(read_cohort(tmp_path)[0]) == 40


def test_a_problem_in_a_part_names_the_part(tmp_path: Path) -> None:
    two_parts(tmp_path)
    path = tmp_path / "part-00001" / "checkups.csv"
    path.write_text(path.read_text() + "P00040,2021-02-30" + "," * 34 + "1\n")
    with pytest.raises(CohortError, match="part-00001"):
        read_cohort(tmp_path)


def test_a_part_without_results_or_with_too_many_bad_ones_is_named(tmp_path: Path) -> None:
    two_parts(tmp_path)
    path = tmp_path / "part-00001" / "checkups.csv"
    header, *rows = path.read_text().splitlines()
    path.write_text(f"{header}\n")
    with pytest.raises(CohortError, match=r"part-00001: checkups\.csv has no rows below its header"):
        read_cohort(tmp_path)
    path.write_text("\n".join([header, *(f"{row.split(',')[0]},someday,{row.split(',', 2)[2]}" for row in rows)]))
    with pytest.raises(CohortError, match=r"part-00001.*") as caught:
        read_cohort(tmp_path, drop_bad_rows=True)
    assert "would be left out" in str(caught.value)
    assert str(caught.value).count("part-00001") == 1
