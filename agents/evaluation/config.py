"""Settings of ``pmlm evaluate``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from agents.model_options import CallOptions
from pmlm_env.core.episodes import Split


@dataclass(frozen=True)
class EvaluateConfig:
    """Edit held-out patients' prompts with a trained agent, and compare the replies with those to other prompts.

    Beside the agent stand the untouched prompts, random edits, and zero-call controls such as an echo of the prompt;
    with --rule-calls also the best single rule: what an agent gains beyond it is personal.

    Attributes:
        run: The run folder that ``pmlm train`` wrote. Figures go to its ``evaluation.json``, and one record of each
            episode, with prompts and replies, to its ``traces.jsonl``.
        split: The patients to evaluate on.
        episodes: The prepared folder that the run was trained on, if it has been moved.
        calls: How the LLM is asked, and limits of what the whole run may spend; what is not given is as in training.
        rule_calls: LLM calls for the search of the best single rule on training patients; a fair comparison takes as
            many as training did. 0 = no rule.
        seed: Seeds the random edits, the rule's search and the bootstrap's resamples.
        cases: Number of patients to print with prompts, replies and references: those whose F1 fell most.
    """

    run: Path = Path("runs/train")
    split: Split = "test"
    episodes: Path | None = None
    calls: CallOptions = field(default_factory=CallOptions)
    rule_calls: int = 0
    seed: int = 0
    cases: int = 0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: One is below 0.
        """
        if min(self.rule_calls, self.cases) < 0:
            raise ValueError(f"rule-calls ({self.rule_calls}) and cases ({self.cases}) must be 0 or more")
