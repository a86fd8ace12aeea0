"""Fine-tuning by as many processes as there are: ``python -m tests.llm.lora.tuned_together MODEL OUT``."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import patch

import torch

from pmlm_env.llm.lora.adapters import Adapter
from pmlm_env.llm.lora.settings import LoraSettings
from pmlm_env.llm.lora.together import end_help, help_fine_tuning
from pmlm_env.llm.lora.training import fine_tune
from pmlm_env.llm.lora.tunable import tunable_lm
from pmlm_env.processes import finish, start

COLORS = ("red", "blue", "green")
EXAMPLES = [(f"What color is number {i}?", COLORS[i % 3]) for i in range(7)]
VALIDATION = [(f"What color is number {i}?", COLORS[i % 3]) for i in range(7, 12)]

#: The last batch of an epoch has one example, so that one of two processes has none.
SETTINGS = LoraSettings(learning_rate=0.01, n_epochs=3, batch_size=3, patience=3)


@patch("pmlm_env.llm.lora.tunable.llm_dtype", lambda device: torch.float32)
def tuned(model: str) -> dict[str, Adapter]:
    """Fine-tune a model twice, with both kinds of validation."""
    lm = tunable_lm(model, "cpu")
    return {
        "likelihood": fine_tune(lm, EXAMPLES, VALIDATION, SETTINGS, seed=1),
        "choices": fine_tune(lm, EXAMPLES, VALIDATION, SETTINGS, seed=2, choices=COLORS),
    }


if __name__ == "__main__":
    processes = start(help_first=True)
    if processes.leads:
        for name, adapter in tuned(sys.argv[1]).items():
            adapter.save(Path(sys.argv[2], name))
        assert end_help(processes)
    else:
        with patch("pmlm_env.llm.lora.tunable.llm_dtype", lambda device: torch.float32):
            help_fine_tuning(processes)
    finish()
