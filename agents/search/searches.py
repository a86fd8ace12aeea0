"""Registry of the searches of a single prompt."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from agents.search.base import Search
from agents.search.best_of import best_of
from agents.search.genetic import genetic
from agents.search.greedy import beam, greedy
from agents.search.grips import grips
from agents.search.hierarchical import hierarchical
from agents.search.tapruning import tapruning

SEARCHES: Mapping[str, Search] = MappingProxyType(
    {
        "best-of-n": best_of,
        "greedy": greedy,
        "beam": beam,
        "tapruning": tapruning,
        "hierarchical": hierarchical,
        "grips": grips,
        "grips-annealing": partial(grips, annealing=True),
        "genetic": genetic,
    }
)
