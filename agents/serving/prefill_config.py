"""Settings of ``pmlm prefill``."""

from __future__ import annotations

from dataclasses import dataclass

from agents.evaluation.config import EvaluateConfig
from agents.settings import refuse_idle
from agents.training.config import TrainConfig

_NOTHING_TO_REPLAY = "this command is there to ask for replies: leave it out"


@dataclass(frozen=True)
class PrefillTrainConfig(TrainConfig):
    """Ask for the replies that `pmlm train` with the same options will need first.

    These are the replies to the untouched prompts of all training patients, to random deletions if --random is given,
    and to the prompts that the agent tries before it has learned from any reply. They are stored in the run's cache,
    and count for the run's limits; then run `pmlm train` with the same options. If interrupted, run the command again:
    it asks for the missing replies only.

    Attributes:
        random: Number of random deletions of each prompt, of as many words as the edit budget allows.
        batch: Send requests through the endpoint's batch API, at most this many in a batch (at most 50,000).
    """

    random: int = 0
    batch: int | None = None

    def __post_init__(self) -> None:
        """Check ``random``, and refuse options without effect.

        Raises:
            ValueError: One of them is not allowed.
        """
        super().__post_init__()
        if self.random < 0:
            raise ValueError(f"--random is {self.random}: use a number of deletions, 0 or more")
        idle = dict.fromkeys(("resume", "allow_import", "dry_run", "wandb"), "it is an option of `pmlm train` alone")
        refuse_idle(self, {**idle, "calls.replay": _NOTHING_TO_REPLAY})


@dataclass(frozen=True)
class PrefillEvaluateConfig(EvaluateConfig):
    """Ask for the replies that `pmlm evaluate` with the same options will need.

    These are the replies to the untouched prompts, to random deletions, and to the agent's prompts. Then `pmlm evaluate
    --replay` gives the results that it would give without this command. If interrupted, run the command again: it asks
    for the missing replies only.

    Attributes:
        batch: Send requests through the endpoint's batch API, at most this many in a batch (at most 50,000).
    """

    batch: int | None = None

    def __post_init__(self) -> None:
        """Refuse options without effect.

        Raises:
            ValueError: One of them is given.
        """
        super().__post_init__()
        why = "the search for a rule depends on the replies: leave it out"
        refuse_idle(
            self, {"rule_calls": why, "cases": "nothing is evaluated: leave it out", "calls.replay": _NOTHING_TO_REPLAY}
        )
