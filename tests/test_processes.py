"""Processes that end."""

from __future__ import annotations

from typing import Any

import pytest

from pmlm_env.processes import LostProcessError, Processes


class _Left(Processes):
    """A process whose companion has been killed."""

    def exchange(self, value: Any) -> list[Any]:
        raise LostProcessError("another process of the run has ended")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_reports_its_own_error_although_another_one_has_been_killed(rank: int) -> None:
    with pytest.raises(OSError, match="No space left"), _Left(rank, 2).together():
        raise OSError("No space left on device")


def test_a_process_without_an_error_reports_that_another_one_has_been_killed() -> None:
    with pytest.raises(LostProcessError), _Left(0, 2).together():
        pass
