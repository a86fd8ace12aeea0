"""Cells: a column of text, each distinct text once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pmlm_env.cohort.sources.cells import Cells, CellsBuilder, distinct_rows

columns = st.lists(st.sampled_from(["", "a", "b", "10^9/L", "\u6c34"]), max_size=30)


@given(columns)
def test_a_column_is_the_sequence_of_its_cells(cells: list[str]) -> None:
    column = Cells.of(cells)
    assert [*column] == cells
    assert [column[i] for i in range(len(column))] == cells
    assert [*column[1:3]] == cells[1:3]
    assert len({*column.texts}) == len(column.texts)


@given(columns, st.data())
def test_a_part_of_a_column_has_no_text_that_none_of_its_rows_has(cells: list[str], data: st.DataObject) -> None:
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=len(cells), max_size=len(cells))), dtype=np.bool_)
    part = Cells.of(cells).take(keep)
    assert [*part] == [cell for cell, kept in zip(cells, keep, strict=True) if kept]
    assert {*part.texts} == {*part}


@given(columns)
def test_work_on_texts_is_work_on_rows(cells: list[str]) -> None:
    column = Cells.of(cells)
    lengths = column.spread(np.array([len(text) for text in column.texts], dtype=np.int64))
    assert lengths.tolist() == [len(cell) for cell in cells]
    assert [*column.renamed(text[:1] for text in column.texts)] == [cell[:1] for cell in cells]


@given(st.lists(columns, max_size=4))
def test_batches_of_text_and_of_columns_make_one_column(batches: list[list[str]]) -> None:
    builder = CellsBuilder()
    for number, batch in enumerate(batches):
        builder.extend(Cells.of(batch) if number % 2 else batch)
    assert [*builder.cells()] == [cell for batch in batches for cell in batch]


@given(st.lists(st.tuples(*[st.sampled_from("abc")] * 3), max_size=20))
def test_equal_rows_are_counted_once(rows: list[tuple[str, str, str]]) -> None:
    table = [Cells.of(column) for column in zip(*rows, strict=True)] if rows else []
    assert distinct_rows(table) == len({*rows})


def test_many_columns_of_many_texts_do_not_overflow() -> None:
    rows = np.random.default_rng(0).integers(0, 1000, size=(2000, 12))
    rows[1000:] = rows[:1000]
    assert distinct_rows([Cells.of(map(str, column)) for column in rows.T]) == 1000
