"""Ask for the replies that training or evaluation will need: ``pmlm prefill train | evaluate``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType

from agents.serving.prefill_config import PrefillEvaluateConfig, PrefillTrainConfig

#: Subcommands and their settings.
Config: Mapping[str, type] = MappingProxyType({"train": PrefillTrainConfig, "evaluate": PrefillEvaluateConfig})


def run(config: PrefillTrainConfig | PrefillEvaluateConfig) -> int:
    """Ask for replies, say what was found, and return 1 if replies are missing; see ``agents.serving.prefill``."""
    from agents.serving.prefill import prefill  # loads torch

    found = prefill(config)
    missing = found.errors.total()
    print(
        f"{found.n_requests} requests: {found.n_new} new replies, {missing} missing, the others were stored before; "
        f"the run has spent {found.spent['llm_calls']:,.0f} LLM calls"
    )
    for error, number in found.errors.items():
        print(f"{number} missing because: {error}", file=sys.stderr)
    return 1 if missing else 0
