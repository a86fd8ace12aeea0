"""``tests/gpu_checks.py`` in a process of its own: autograd counts the devices once, when it first runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

CHECKS = Path(__file__).with_name("gpu_checks.py")


@pytest.mark.real
def test_everything_that_computes_does_so_on_a_gpu() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(CHECKS)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKS.parents[1], check=False)
    assert done.returncode == 0, done.stdout + done.stderr  # 5 where it finds no test
