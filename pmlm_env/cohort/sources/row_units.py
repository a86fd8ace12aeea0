"""The units of the rows of a long table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.schema import Indicator, Schema
from pmlm_env.cohort.sources.cells import Cells
from pmlm_env.cohort.units import IDENTITY, Conversion, conversion
from pmlm_env.cohort.wording import bare, quoted, tidy


class UnitFactors(NamedTuple):
    """The units of the rows of a long table.

    Attributes:
        pairs: Each pair of an indicator and a unit, with the conversion or what is wrong.
        pair: The pair of each row, shape (n,); -1 for unknown indicators.
        times: What each value is multiplied by, shape (n,).
        plus: What is then added to it, shape (n,).
        over: What it is then divided by, shape (n,).
        wrong: Which rows have a unit that cannot be converted, shape (n,).
    """

    pairs: Sequence[tuple[Indicator, str, Conversion | str]]
    pair: npt.NDArray[np.int64]
    times: npt.NDArray[np.float64]
    plus: npt.NDArray[np.float64]
    over: npt.NDArray[np.float64]
    wrong: npt.NDArray[np.bool_]

    def problem(self, row: int) -> str:
        """Describe the unit of a row that has a wrong one."""
        indicator, unit, problem = self.pairs[self.pair[row]]
        return wrong_unit(indicator, unit, str(problem))

    def counts(self, rows: npt.NDArray[np.int64]) -> dict[str, int]:
        """Count the values among these rows that were converted, by indicator and unit."""
        counts = np.bincount(self.pair[rows], minlength=len(self.pairs)).tolist()
        return {
            converted_from(indicator, unit): count
            for (indicator, unit, found), count in zip(self.pairs, counts, strict=True)
            if count and found != IDENTITY
        }


def unit_factors(units: Cells, position: npt.NDArray[np.int64], schema: Schema) -> UnitFactors:
    """Return what converts each value of a long table to the unit of its indicator.

    Args:
        units: The unit of each row, possibly blank.
        position: The indicator of each row, shape (n,); negative = unknown.
        schema: The indicators.
    """
    keys, pair = np.unique(position * len(units.texts) + units.codes, return_inverse=True)
    first = int(np.searchsorted(keys, 0))  # keys of unknown indicators are negative
    keys, pair = keys[first:], np.maximum(pair - first, -1)
    pairs = [
        (schema.indicators[k], units.texts[code], conversion(units.texts[code], schema.indicators[k]))
        for k, code in (divmod(key, len(units.texts)) for key in keys.tolist())
    ]
    ways = [IDENTITY, *(IDENTITY if isinstance(each, str) else each for _, _, each in pairs)]
    times, plus, over = np.array([each.parts for each in ways], dtype=np.float64).T[:, pair + 1]
    wrong = np.array([False, *(isinstance(each, str) for _, _, each in pairs)])
    return UnitFactors(pairs, pair, times, plus, over, wrong[pair + 1])


def wrong_unit(indicator: Indicator, unit: str, problem: str) -> str:
    """Describe a unit that values cannot be converted from."""
    return f"{quoted(unit)} is not the unit of {bare(indicator.name)}, {indicator.unit}: {problem}"


def converted_from(indicator: Indicator, unit: str) -> str:
    """Return what was converted, for the report."""
    return f"{indicator.name} from {tidy(unit)} to {indicator.unit}"
