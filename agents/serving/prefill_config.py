"""Settings of ``pmlm prefill``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agents.cluster.options import ClusterOptions
from agents.evaluation.config import EvaluateConfig
from agents.settings import refuse_idle
from agents.training.config import TrainConfig


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
        cluster: Where the LLM is asked.
    """

    random: int = 0
    batch: int | None = None
    cluster: ClusterOptions = field(default_factory=ClusterOptions)

    def __post_init__(self) -> None:
        """Check ``random``, and refuse options without effect.

        Raises:
            ValueError: One of them is not allowed.
        """
        super().__post_init__()
        if self.random < 0:
            raise ValueError(f"--random is {self.random}: use a number of deletions, 0 or more")
        idle = dict.fromkeys(("resume", "allow_import", "dry_run", "wandb"), "it is an option of `pmlm train` alone")
        _check(self, idle)


@dataclass(frozen=True)
class PrefillEvaluateConfig(EvaluateConfig):
    """Ask for the replies that `pmlm evaluate` with the same options will need.

    These are the replies to the untouched prompts, to random deletions, and to the agent's prompts. Then `pmlm evaluate
    --replay` gives the results that it would give without this command. If interrupted, run the command again: it asks
    for the missing replies only.

    Attributes:
        batch: Send requests through the endpoint's batch API, at most this many in a batch (at most 50,000).
        cluster: Where the LLM is asked.
    """

    batch: int | None = None
    cluster: ClusterOptions = field(default_factory=ClusterOptions)

    def __post_init__(self) -> None:
        """Refuse options without effect.

        Raises:
            ValueError: One of them is given.
        """
        super().__post_init__()
        why = "the search for a rule depends on the replies: leave it out"
        _check(self, {"rule_calls": why, "cases": "nothing is evaluated: leave it out"})


def _check(config: PrefillTrainConfig | PrefillEvaluateConfig, idle: Mapping[str, str]) -> None:
    """Refuse options without effect, and ways to ask that exclude each other.

    Raises:
        ValueError: One of them is given.
    """
    refuse_idle(config, {**idle, "calls.replay": "this command is there to ask for replies: leave it out"})
    if config.batch is not None and config.cluster.ray is not None:
        raise ValueError("--batch and --ray are two ways to ask the LLM: leave one of them out")
