"""Dates as hospitals write them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmlm_env.cohort import CohortError, read_cohort
from pmlm_env.cohort.parsing import is_day_first, parse_datetimes
from tests.cohort.three_patients import CHECKUPS, PATIENTS, assert_same

Folder = Callable[..., Path]


@pytest.mark.parametrize(
    "text",
    [
        "2022-02-05",
        "2022-02-05 08:30",
        "2022-02-05T08:30:01.25",
        "2022-02-05T23:30:00Z",
        "2022-02-05 23:30:00+08:00",
        "2022-02-05T00:30-0500",
        "2022-02-05 08:30 UTC",
        "2022/2/5",
        "2022.02.05",
        "20220205",
        "05.02.2022",
        "5. 2. 2022 8:30",
        "5 Feb 2022",
        "05-FEB-2022 08:30",
        "05FEB2022",
        "Feb 5, 2022",
        "February 5 2022 8:30 PM",
        "2022-Feb-05",
        "2022\u5e742\u67085\u65e5",
        "2022\u5e7402\u670805\u65e5 08:30",
    ],
)
def test_a_form_that_means_one_day_is_that_day_on_the_clock_of_the_writer(text: str) -> None:
    assert str(parse_datetimes([text])[0].astype("datetime64[D]")) == "2022-02-05"


@pytest.mark.parametrize(
    "text",
    ["", "soon", "2022-02-30", "2022-13-01", "2022-02-05 25:00", "2022-02-05 08:00 (edited)", "5/2/22", "202202051",
     "31.04.2022", "2022-02-05 13:00 PM", "5/2/2022"],
)  # fmt: skip
def test_other_texts_are_no_dates(text: str) -> None:
    assert np.isnat(parse_datetimes([text])[0])


@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(lambda moment: moment.replace(microsecond=0)))
def test_times_are_those_of_the_standard_library(moment: datetime) -> None:
    forms = [
        moment.isoformat(),
        f"{moment:%d.%m.%Y %H:%M:%S}",
        f"{moment:%d %b %Y %I:%M:%S %p}",
        f"{moment:%Y%m%d %H:%M:%S}",
    ]
    assert parse_datetimes(forms).tolist() == [moment] * 4


@given(st.lists(st.dates(datetime(2000, 1, 1).date(), datetime(2030, 1, 1).date()), min_size=1))
def test_one_day_after_the_twelfth_tells_the_order_of_day_and_month(days: list[datetime]) -> None:
    told = any(day.day > 12 for day in days)
    for form, first in (("%d/%m/%Y", True), ("%m/%d/%Y", False)):
        texts = [day.strftime(form) for day in days]
        assert is_day_first(texts) is (first if told else None)
        found = parse_datetimes(texts).astype("datetime64[D]")
        assert found.tolist() == (days if told else [None] * len(days))
        assert parse_datetimes(texts, day_first=first).astype("datetime64[D]").tolist() == days


def test_days_in_both_orders_are_no_dates() -> None:
    assert np.isnat(parse_datetimes(["13/2/2022", "2/13/2022", "1/1/2022"])).all()


def test_a_day_that_may_be_a_month_is_refused_with_the_cure(folder: Folder) -> None:
    checkups = "patient_id,date,hgb\n007,01/02/2021,90\n"
    with pytest.raises(CohortError, match=r"'01/02/2021' may have the day or the month first, .* day_first = true"):
        read_cohort(folder(patients=PATIENTS, checkups=checkups))


def test_a_table_of_slashed_dates_gives_the_same_cohort(folder: Folder) -> None:
    def slashed(text: str) -> str:
        moment = datetime.fromisoformat(text)
        return f"{moment:%d/%m/%Y}"

    days = [(datetime(2021, 4, 1) + timedelta(days=k)).date().isoformat() for k in range(20)]
    header = "patient_id,date,hgb\n"
    plain, other = (header + "".join(f"007,{form(day)},90\n" for day in days) for form in (str, slashed))
    path = folder(patients=PATIENTS, plain=plain, other=other)
    assert_same(read_cohort(path, checkups="plain.csv")[0], read_cohort(path, checkups="other.csv")[0])


def test_times_with_zones_are_days_as_written(folder: Folder) -> None:
    path = folder(patients=PATIENTS, plain=CHECKUPS, zoned=CHECKUPS.replace("-02,", "-02T23:59:59+09:00,"))
    assert_same(read_cohort(path, checkups="plain.csv")[0], read_cohort(path, checkups="zoned.csv")[0])
