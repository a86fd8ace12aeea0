"""The commands of ``pmlm``, run in the tests' own process."""

from __future__ import annotations

import pytest

from agents.cli.main import main


def pmlm(command: str, *arguments: object) -> int:
    """Run a command and return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main(command, [str(argument) for argument in arguments])
    return int(stop.value.code or 0)
