"""One full simulated cohort of each kind, made once a session."""

from __future__ import annotations

import pytest

from pmlm_env.cohort.schema import Cohort
from pmlm_env.cohort.simulator import simulate_cohort


@pytest.fixture(scope="session")
def paper_cohort() -> Cohort:
    """The default cohort, whose labels can be told apart about as well as the paper's."""
    return simulate_cohort()


@pytest.fixture(scope="session")
def literature_cohort() -> Cohort:
    """The same size of cohort with published shifts only."""
    return simulate_cohort(signal="literature")
