from __future__ import annotations

import os

# Before anything is imported: the one place that names the LLM of the tests, and of the processes they start.
os.environ["PMLM_DEFAULT_LLM"] = "smollm2-135m"
# One thread each: two processes run the tests side by side, and the last digits of figures hang on the number.
os.environ["OMP_NUM_THREADS"] = "1"
# From the first prediction of rocket on, numba gives PyTorch its own number of threads, which takes five times as long.
os.environ["NUMBA_NUM_THREADS"] = "1"

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from pmlm_env.cohort import Cohort, Split, read_cohort, split_by_date
from pmlm_env.cohort.simulator import simulate_cohort
from tests.schemas import write_men
from tests.standins import HashedSentences

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def pytest_configure(config: pytest.Config) -> None:
    """Keep the order below: xdist would begin with the files that have most tests, and the long ones have few."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files that load weights first: of two processes none should be left with a long one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("real") is None)


@pytest.fixture(scope="module")
def quick_stages() -> Iterator[None]:
    """Let stages 1 and 2 learn little in a moment: for tests of what comes after them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pmlm_env.predictors.boosted.N_ITERATIONS", 3)
        patch.setattr("pmlm_env.retrieval.network.MAX_EPOCHS", 2)
        yield


@pytest.fixture(scope="module")
def hashed_sentences() -> Iterator[None]:
    """Let advice be compared without weights, which take a second a dozen letters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pmlm_env.rewards.advice.SentenceEncoder", HashedSentences)
        yield


@pytest.fixture(scope="module")
def no_figures() -> Iterator[None]:
    """Let the pages of runs have empty figures: matplotlib takes a second a page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agents.report.figures.svg", lambda figure: "<svg/>")
        yield


TONGJI = Path(__file__).resolve().parents[2] / "shared" / "data" / "tongji_covid"


@pytest.fixture(scope="session")
def men(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tables of 60 men and a schema of five indicators."""
    return write_men(tmp_path_factory.mktemp("cohorts") / "men")


@pytest.fixture(scope="session")
def men_cohort(men: Path) -> Cohort:
    """The cohort in ``men``."""
    return read_cohort(men)[0]


@pytest.fixture(scope="session")
def paper_cohort() -> Cohort:
    """The default cohort, whose labels can be told apart about as well as the paper's."""
    return simulate_cohort()


@pytest.fixture(scope="session")
def literature_cohort() -> Cohort:
    """The same size of cohort with published shifts only."""
    return simulate_cohort(signal="literature")


@pytest.fixture(scope="session")
def simulated(paper_cohort: Cohort) -> Split:
    """The simulated cohort at full size, split as in the paper."""
    return split_by_date(paper_cohort)


@pytest.fixture(scope="session")
def tongji() -> Split:
    """The real patients, split by day of admission at about 70 : 30."""
    if not TONGJI.is_dir():
        pytest.skip("needs the shared data folder: shared/data/tongji_covid is not beside this checkout")
    cohort, _ = read_cohort(TONGJI, labs="labs_pmlm35.csv", references=False, keep_later=True)
    return split_by_date(cohort, train_until="2020-02-08", validation_until="2020-02-08", by="admission")
