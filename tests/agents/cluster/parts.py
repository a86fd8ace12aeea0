"""An LLM and an experiment of one's own, whose processes die, wait or fail when a test asks for it."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from agents.experiments.base import Experiment
from pmlm_env.llm import ReplyCache
from pmlm_env.llm.base import LLM, LLMError, Reply, Request
from pmlm_env.llm.responder import Responder

#: The variable with the folder in which the LLM leaves a record, and looks for the file ``kill``.
FOLDER = "PMLM_TEST_FOLDER"


class Recorded(LLM):
    """The rule-based LLM, with a record of what it was asked; with a file ``kill``, its process dies once, at work."""

    identity = "recorded"

    def __init__(self) -> None:
        self._llm, self._folder = Responder(), Path(os.environ[FOLDER])

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        with (self._folder / "asked.jsonl").open("a") as file:
            file.write("".join(json.dumps([os.getpid(), request.prompt]) + "\n" for request in requests))
        try:
            (self._folder / "kill").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        except FileNotFoundError:
            yield from self._llm.replies(requests)


class Refusing(LLM):
    """An LLM that never replies."""

    identity = "refusing"

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        yield {i: LLMError("no reply to anybody") for i in range(len(requests))}


class Named:
    """Knows what a cache at a path is called."""

    def __init__(self, path: str) -> None:
        self.identity = {"name": ReplyCache(path).name}


def asked(folder: Path) -> list[tuple[int, str]]:
    """The process and the prompt of each request of ``Recorded``, in order."""
    return [tuple(json.loads(line)) for line in (folder / "asked.jsonl").read_text().splitlines()]


@dataclass(frozen=True)
class Behaving(Experiment):
    """Two runs that do what they are told.

    Attributes:
        first: What the first run does: ``die``, ``fail``, ``warn``.
        second: What the second run does.
    """

    first: str = "warn"
    second: str = "warn"

    name: ClassVar[str] = "behaving"
    packages: ClassVar[Sequence[str]] = ("numpy",)

    def cells(self) -> list[dict[str, Any]]:
        return [{"run": 0, "does": self.first}, {"run": 1, "does": self.second}]

    def run(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        match cell["does"]:
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "fail":
                self._wait_for("begun")  # the other run
                raise KeyError("a mistake in the user's class")
            case "stand":
                (self.out / "begun").touch()
                try:
                    time.sleep(600)
                except KeyboardInterrupt:
                    (self.out / "stored").touch()
                    raise
        logging.getLogger("agents.own").warning("mind the gap")
        return {"pid": os.getpid()}

    def table(self, runs: Sequence[Mapping[str, Any]]) -> str:
        return f"{len(runs)} runs\n"

    def _wait_for(self, name: str) -> None:
        while not (self.out / name).exists():
            time.sleep(0.05)
