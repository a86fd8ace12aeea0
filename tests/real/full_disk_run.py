"""What tests/real/test_stop.py runs on a disk of its own that fills up: four commands, the imports done once."""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path

from tests.real import imported  # noqa: F401  once, for all who are forked from here
from tests.real.runs import logged

if __name__ == "__main__":
    arguments, disk, work = sys.argv[1:], Path(os.environ["DISK"]), Path(os.environ["WORK"])

    def run(log: str, command: str, *more: str) -> int | None:
        child = multiprocessing.get_context("fork").Process(target=logged, args=(work / log, command, more))
        child.start()
        child.join()
        return child.exitcode

    assert run("said", "train", *arguments) == 1
    assert run("still", "train", *arguments, "--resume") == 1
    (disk / "fill").unlink()
    assert run("on", "train", *arguments, "--resume") == 0, (work / "on").read_text()
    address = ["--base-url", arguments[arguments.index("--base-url") + 1]]
    assert run("evaluated", "evaluate", "--run", str(disk / "run"), *address) == 0, (work / "evaluated").read_text()
    (work / "evaluation.json").write_bytes((disk / "run" / "evaluation.json").read_bytes())
