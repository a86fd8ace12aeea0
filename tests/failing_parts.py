"""Parts of one's own that raise errors."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pmlm_env.cohort import Cohort, Schema
from pmlm_env.core.episodes import Episode
from pmlm_env.llm.base import Reply, Request
from pmlm_env.llm.responder import Responder
from tests.own_parts import LabelLength
from tests.own_stages import First, Shares

NOTHING: dict[str, Any] = {}


class FailsToFit(Shares):
    def fit(self, cohort: Cohort) -> None:
        NOTHING["condition"].fit(cohort)


class FailsToFitShapes(Shares):
    def fit(self, cohort: Cohort) -> None:
        np.zeros(2) + np.zeros(3)


class RefusesToLoad(Shares):
    @classmethod
    def load(cls, folder: Path) -> RefusesToLoad:
        raise ValueError(f"{folder} is damaged")


class FailsToPredict(Shares):
    def predict_proba(self, cohort: Cohort) -> Any:
        raise NotImplementedError


class FailsToSave(Shares):
    def save(self, folder: Path) -> None:
        (folder / str(1 / len(NOTHING))).touch()


class FailsToFind(First):
    def peers(self, *arguments: Any, **options: Any) -> Any:
        return _helper()


def _helper() -> Any:
    raise AttributeError("no such\nvector")


def fails(path: Path, schema: Schema) -> Any:
    return NOTHING.get("cohort") + 1  # type: ignore[operator]


class FailsToScore(LabelLength):
    def score(self, replies: Sequence[str], episodes: Sequence[Episode]) -> Any:
        raise IndexError("past the end")


class FailsToReply(Responder):
    is_remote = False

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        yield {0: [][len(requests)]}
