"""The units of the rows of a long table."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.schema import Indicator, Schema
from pmlm_env.cohort.sources.cells import Cells
from pmlm_env.cohort.units import conversion
from pmlm_env.cohort.wording import bare, quoted, tidy


class UnitFactors(NamedTuple):
    """The units of the rows of a long table.

    Attributes:
        pairs: Each pair of an indicator and a unit, with the factor or what is wrong.
        pair: The pair of each row, shape (n,); -1 for unknown indicators.
        factor: What each value is multiplied by, shape (n,).
        wrong: Which rows have a unit that cannot be converted, shape (n,).
    """

    pairs: Sequence[tuple[Indicator, str, Fraction | str]]
    pair: npt.NDArray[np.int64]
    factor: npt.NDArray[np.float64]
    wrong: npt.NDArray[np.bool_]

    def problem(self, row: int) -> str:
        """Describe the unit of a row that has a wrong one."""
        indicator, unit, problem = self.pairs[self.pair[row]]
        return f"{quoted(unit)} is not the unit of {bare(indicator.name)}, {indicator.unit}: {problem}"

    def counts(self, rows: npt.NDArray[np.int64]) -> dict[str, int]:
        """Count the values among these rows that were converted, by indicator and unit."""
        counts = np.bincount(self.pair[rows], minlength=len(self.pairs)).tolist()
        return {
            f"{indicator.name} from {tidy(unit)} to {indicator.unit}": count
            for (indicator, unit, factor), count in zip(self.pairs, counts, strict=True)
            if count and factor != 1
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
    of_pair = np.array([1.0, *(1.0 if isinstance(each, str) else float(each) for _, _, each in pairs)])
    wrong = np.array([False, *(isinstance(each, str) for _, _, each in pairs)])
    return UnitFactors(pairs, pair, of_pair[pair + 1], wrong[pair + 1])
