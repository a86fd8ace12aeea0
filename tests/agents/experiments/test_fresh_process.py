from __future__ import annotations

import numpy as np
import pytest

from agents.experiments.fresh_process import in_fresh_process
from tests.agents.experiments.sleepy import fail, memory_with

pytestmark = pytest.mark.once


def test_memory_is_that_of_the_function_and_not_of_the_process_that_asks() -> None:
    mine = np.ones(50_000_000)  # 400 MB
    little, much = (in_fresh_process(memory_with, megabytes) for megabytes in (1, 200))
    assert much - little == pytest.approx(199, abs=20)
    assert little < 350
    assert mine.nbytes == 400_000_000


def test_an_error_of_the_function_is_raised_here() -> None:
    with pytest.raises(ValueError, match=r"^it cannot be done$"):
        in_fresh_process(fail, "error")


def test_a_process_that_ends_without_a_result_is_an_error_with_its_exit_code() -> None:
    with pytest.raises(RuntimeError, match="ended with exit code 9 and no result"):
        in_fresh_process(fail, "exit")
