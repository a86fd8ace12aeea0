"""Made-up traces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agents.evaluation.metrics import METRICS
from pmlm_env.core.edits import Edit
from pmlm_env.core.episodes import Episode
from pmlm_env.core.traces import Trace, TracedReply
from tests.standins import make_episodes

EPISODE = replace(
    make_episodes(1, n_words=5)[0],
    patient_id="a",
    words=("Say", "it", "in", "one", "sentence."),
    roles=("instruction",) * 5,
    label="scar",
    reference="A scar.\nRest.",
)


def make_trace(
    episode: Episode = EPISODE,
    patient: str = "a",
    variant: str = "agent",
    before: Mapping[str, float] | None = None,
    after: Mapping[str, float | None] | None = None,
    edits: tuple[Edit, ...] = (),
    reply: str = "A scar.",
    error: str = "",
) -> Trace:
    """A trace of components that are 0.5 where nothing else is given."""
    middle: dict[str, Any] = dict.fromkeys(METRICS, 0.5)
    before, after = {**middle, **(before or {})}, {} if error else {**middle, **(after or {})}
    score = "reward" if "reward" in after else "bertscore_f1"
    return Trace.of(
        replace(episode, patient_id=patient),
        run="mine",
        agent="lexicon",
        variant=variant,
        seed=0,
        edits=edits,
        prompt="",
        initial_reply="A scar.",
        replies=() if error else (TracedReply(reply),),
        before=before,
        after=after,
        reward=None if error else after[score] - before[score],
        error=error,
    )
